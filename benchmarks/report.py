"""What came out: the table in the terminal, the page, the file, and the comparison with an older file."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

RICH = importlib.util.find_spec("rich") is not None  # without it: no progress bar, and plain text
Result = dict[str, Any]
SPECIALISTS = ("powerboxes", "SciPy", "shapely", "ensemble-boxes")  # no case has two of them
RIVALS = {
    "torchvision": "torchvision",
    "torch": "torch eager",
    **dict.fromkeys(SPECIALISTS, "specialist"),
    "NumPy": "NumPy",
}


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


def progress_bar(cases: Sequence[Any]) -> Iterator[Any]:
    """Goes through the cases and shows which one is at work."""
    if not RICH:
        yield from cases
        return
    from rich import console, progress

    columns = ("{task.percentage:>3.0f} %", progress.BarColumn(), progress.TimeElapsedColumn(), "{task.description}")
    with progress.Progress(*columns, transient=True, console=console.Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(cases))
        for case in cases:
            bar.update(task, description=case.name)
            yield case
            bar.advance(task)


# The table, as cells (text, mood): the terminal and the page show the same.


X, NONE = "\N{MULTIPLICATION SIGN}", "-"
Cell = tuple[str, str]


def columns(result: Result) -> list[str]:
    titles = dict.fromkeys(t for name, t in RIVALS.items() if any(name in case["ratios"] for case in timed(result)))
    return ["case", "boxops", "spread", "on NumPy", "GB/s", "of limit", *titles, "goal"]


def cells(result: Result, case: dict[str, Any]) -> list[Cell]:
    ours = case["timings"][case["ours"]]
    arrays = case["timings"].get("boxops NumPy")
    row = [
        (duration(ours["median"]), "ours"),
        (f"± {(ours['q3'] - ours['q1']) / 2 / ours['median']:.0%}", "dim"),
        (duration(arrays["median"]) if arrays else NONE, ""),
        (f"{case['rate'] / 1e9:.3g}" if case["rate"] > 1e7 else "< 0.01", ""),
        (f"{case['of_limit']:.0%} {case['limit']}" if case["bytes"] >= 100_000 else NONE, "dim"),
    ]
    for title in columns(result)[6:-1]:
        names = [name for name, of in RIVALS.items() if of == title]
        name = next((name for name in names if name in case["ratios"]), "")
        ratio = case["ratios"].get(name)
        failed = "fails" if set(names) & set(case["failed"]) else NONE
        text = f"{times(ratio)} {name if name in SPECIALISTS else ''}".strip() if ratio else failed
        row.append((text, "dim" if not ratio else "bad" if ratio < 1 else "good"))
    goal, met = case["goal"], case["goal"]["met"]
    verdict = f"(no {goal['rival']})" if met is None else "met" if met else "missed"
    row.append((f"≥ {goal['ratio']:g}{X} {verdict}", {True: "good", False: "bad", None: "dim"}[met]))
    return row


def notes(result: Result) -> list[str]:
    """The facts and caveats that belong under the table."""
    machine, options = result["machine"], result["options"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    copy, fill = (machine["bandwidth"][name] / 1e9 for name in ("copy", "fill"))
    lines = [
        f"{machine['device']}, {machine['cores']} cores, {options['threads']} threads, {options['dtype']}; {packages}",
        f"measured here: copying {copy:.1f} GB/s, allocating and filling a matrix {fill:.1f} GB/s",
    ]
    if machine["load"] and machine["load"] > 0.3 * machine["cores"]:
        lines.append(f"the machine was busy when this began (load {machine['load']:.1f}): expect a larger spread")
    lines += [f"no {name}: {reason}" for name, reason in result["absent"].items()]
    for case in timed(result):
        if graph := case["timings"].get("boxops graph"):
            lines.append(f"{case['name']} replayed as a CUDA graph: {duration(graph['median'])}")
        lines += [f"{name} fails on {case['name']}: {reason}" for name, reason in case["failed"].items()]
    return lines


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
    """Prints the table, what went wrong, the notes and the comparison."""
    if timed(result):
        rows = [[(case["name"], ""), *cells(result, case)] for case in timed(result)]
        print_table("times faster than each rival" if len(columns(result)) > 7 else "", columns(result), rows)
    for case in result["cases"]:
        if case["error"]:
            print(f"NOT TIMED {case['name']}: {case['error']}")
    print("\n".join(notes(result)))
    if baseline:
        print_table("against the baseline", COMPARED, compare(result, baseline))
        print("\n".join(differing(result, baseline)))


def print_table(title: str, names: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    if not RICH:
        for row in [[(name, "") for name in names], *rows]:
            print("  ".join(f"{text:<40}" if i == 0 else f"{text:>13}" for i, (text, _) in enumerate(row)))
        return
    from rich import box, console, table

    moods = {"ours": "bold", "dim": "dim", "good": "green", "bad": "bold red", "": ""}
    shown = table.Table(title=title or None, box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(names):
        shown.add_column(name, justify="right" if index else "left", no_wrap=True)
    op = None
    for row in rows:
        first = row[0][0].partition(" ")[0]
        if op not in (None, first):
            shown.add_section()
        op = first
        shown.add_row(*(f"[{moods[mood]}]{text}[/]" if moods[mood] else text for text, mood in row))
    console.Console(width=None if console.Console().is_terminal else 180).print(shown)
