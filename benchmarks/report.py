"""What came out: the table in the terminal, the page, the file, and the comparison with an older file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .terminal import NO_BREAK, Cell, print_table, print_warnings

Result = dict[str, Any]


def save(result: Result, path: Path) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Result:
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"expected a file written by --json, got {path}: {error}") from None
    if not isinstance(result, dict) or result.get("schema") != 1:
        raise ValueError(f"expected a file written by --json with schema 1, got {path}")
    return result


def scaled(value: float, digits: int, units: Sequence[tuple[float, str]]) -> str:
    """So many digits, with the largest unit that leaves one before the point."""
    factor, unit = next((pair for pair in units if abs(value) >= 0.9995 * pair[0]), units[-1])
    number = value / factor
    places = digits - 1 - math.floor(math.log10(abs(number) * 1.0005)) if number else 0
    return f"{number:.{max(0, places)}f} {unit}"


def duration(seconds: float, digits: int = 3) -> str:
    return scaled(seconds, digits, ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")))


def size(count: float, digits: int = 3) -> str:
    return scaled(count, digits, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))


def times(ratio: float) -> str:
    return f"{ratio:.0f}{X}" if ratio >= 20 else f"{ratio:.1f}{X}" if ratio >= 2 else f"{ratio:.2f}{X}"


def timed(result: Result) -> list[dict[str, Any]]:
    return [case for case in result["cases"] if not case["error"]]


# The table, as cells (text, mood): the terminal and the page show the same.


X, NONE, SPACE = "\N{MULTIPLICATION SIGN}", "-", NO_BREAK
COLUMNS = ["case", "boxops", "spread", "on NumPy", "GB/s", "of limit", "times faster than", "goal"]
SPARE = ["GB/s", "on NumPy", "spread", "of limit"]  # left out where there is no room, in this order


def cells(case: dict[str, Any]) -> list[Cell]:
    ours = case["timings"][case["ours"]]
    arrays = case["timings"].get("boxops NumPy")
    goal, met = case["goal"], case["goal"]["met"]
    verdict = {True: f"≥{SPACE}{goal['ratio']:g}{X} met", False: f"≥{SPACE}{goal['ratio']:g}{X} missed"}
    return [
        (case["name"], ""),
        (duration(ours["median"]), "ours"),
        (f"±{SPACE}{(ours['q3'] - ours['q1']) / 2 / ours['median']:.0%}" if ours["blocks"] > 1 else NONE, "dim"),
        (duration(arrays["median"]) if arrays else NONE, ""),
        (f"{case['rate'] / 1e9:.3g}" if case["rate"] > 1e7 else f"<{SPACE}0.01", ""),
        (f"{case['of_limit']:.0%}{SPACE}{case['limit']}" if case["bytes"] >= 100_000 else NONE, "dim"),
        rivals(case),
        (verdict.get(met, f"no {goal['rival']}"), {True: "good", False: "bad", None: "dim"}[met]),
    ]


def rivals(case: dict[str, Any]) -> Cell:
    """Every rival's ratio, the smallest first, then those that fail."""
    ratios = sorted((ratio, name) for name, ratio in case["ratios"].items())
    entries = [f"{times(ratio)}{SPACE}{name}{'*' * (name in case['differs'])}" for ratio, name in ratios]
    entries += [f"{name}{SPACE}fails" for name in case["failed"]]
    mood = "dim" if not ratios else "bad" if ratios[0][0] < 1 else "good"
    return ", ".join(entries) or NONE, mood


def smallest(case: dict[str, Any]) -> tuple[float, str]:
    """The smallest ratio to a rival, and which; the reference counts where there is no other."""
    ratios = [(ratio, name) for name, ratio in case["ratios"].items() if name != "NumPy" or len(case["ratios"]) == 1]
    return min(ratios)


MARGINS = ["op", "smallest margin", "rival", "case"]


def least(result: Result) -> dict[str, tuple[float, str, str]]:
    """Of each op the smallest ratio, to which rival and in which case; the smallest of all first."""
    found: dict[str, tuple[float, str, str]] = {}
    for case in timed(result):
        if case["ratios"]:
            found[case["op"]] = min(found.get(case["op"], (math.inf, "", "")), (*smallest(case), case["label"]))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def margins(result: Result) -> list[list[Cell]]:
    return [
        [(op, ""), (times(ratio), "bad" if ratio < 1 else "good"), (name, ""), (label, "dim")]
        for op, (ratio, name, label) in least(result).items()
    ]


def verdict(result: Result) -> list[str]:
    """What was verified, which goals were met, and where a rival is ahead."""
    cases, every = timed(result), result["cases"]
    lines = [f"{len(cases)} of {len(every)} cases verified, then timed"]
    goals = [case["goal"]["met"] for case in cases if case["goal"]["met"] is not None]
    if goals:
        lines.append(f"{sum(goals)} of {len(goals)} goals met, each against one rival")
    ratios = [case for case in cases if case["ratios"]]
    behind = sum(smallest(case)[0] < 1 for case in ratios)
    if ratios:
        lines.append(f"some rival is faster in {behind} of {len(ratios)} cases that have one")
    return lines


def notes(result: Result) -> list[str]:
    """The facts and caveats that belong under the table."""
    machine, options = result["machine"], result["options"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    copy, fill = (machine["bandwidth"][name] / 1e9 for name in ("copy", "fill"))
    lines = [
        f"{machine['device']}, {machine['cores']} cores, {options['threads']} threads, {options['dtype']}; {packages}",
        f"measured here: copying {copy:.1f} GB/s, allocating and filling a matrix {fill:.1f} GB/s",
    ]
    for case in timed(result):
        if graph := case["timings"].get("boxops graph"):
            lines.append(f"{case['name']} replayed as a CUDA graph: {duration(graph['median'])}")
        lines += [f"* {name} on {case['name']}: {what} differ" for name, what in case["differs"].items()]
        lines += [f"{name} fails on {case['name']}: {reason}" for name, reason in case["failed"].items()]
    return lines


def warnings(result: Result) -> list[str]:
    """What makes the numbers worth less than they could be: the terminal and the page say so alike."""
    lines = [f"NOT TIMED {case['name']}: {case['error']}" for case in result["cases"] if case["error"]]
    lines += [f"not compared with {name}: {reason}" for name, reason in result["absent"].items()]
    return lines + result["warnings"]


def compare(result: Result, baseline: Result) -> list[list[Cell]]:
    """Per case: time then and now, the change, the change of the rivals, and a verdict.

    A change counts if it is over 5 %, the quartiles of then and now do not overlap, and the rivals did not change
    alike, for then it is the machine that changed.
    """
    rows, old = [], {case["name"]: case for case in timed(baseline)}
    for case in timed(result):
        before = old.get(case["name"])
        if not before or case["ours"] not in before["timings"]:
            rows.append([(case["name"], ""), *[(NONE, "dim")] * 4, ("new", "dim")])
            continue
        then, now = before["timings"][case["ours"]], case["timings"][case["ours"]]
        change = now["median"] / then["median"]
        shared = [name for name in case["ratios"] if name in before["timings"]]
        drifts = sorted(case["timings"][name]["median"] / before["timings"][name]["median"] for name in shared)
        drift = drifts[len(drifts) // 2] if drifts else 1.0
        apart = now["q1"] > then["q3"] or now["q3"] < then["q1"]
        verdict = ("within the spread", "dim")
        if apart and abs(change - 1) > 0.05:
            alike = abs(change / drift - 1) <= 0.05 or (change > 1) != (change / drift > 1)
            verdict = ("as its rivals", "dim") if alike else ("slower", "bad") if change > 1 else ("faster", "good")
        rival = (f"{drift - 1:+.0%}" if drifts else NONE, "dim")
        row = [(duration(then["median"]), ""), (duration(now["median"]), "ours"), (f"{change - 1:+.0%}", ""), rival]
        rows.append([(case["name"], ""), *row, verdict])
    return rows


COMPARED = ["case", "then", "now", "change", "rivals", "verdict"]


def differing(result: Result, baseline: Result) -> list[str]:
    """What makes the two runs hard to compare."""
    pairs = [(name, baseline["options"][name], result["options"][name]) for name in ("device", "dtype", "threads")]
    pairs += [(name, baseline["machine"][name], result["machine"][name]) for name in ("device", "cores")]
    return [f"the baseline had {name} {then}, this run {now}" for name, then, now in pairs if then != now]


def show(result: Result, baseline: Result | None = None) -> None:
    """Prints the tables, the notes, the comparison, and last what the reader must know."""
    cases = timed(result)
    if cases:
        print_table("", COLUMNS, map(cells, cases), spare=SPARE)
    if rows := margins(result):
        print_table("the smallest margin of each op", MARGINS, rows)
    print("\n".join(notes(result)))
    if baseline:
        print_table("against the baseline", COMPARED, compare(result, baseline))
        print("\n".join(differing(result, baseline)))
    print("\n".join(verdict(result)))
    print_warnings(warnings(result))
