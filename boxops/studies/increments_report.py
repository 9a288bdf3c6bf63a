"""What a study of tricks shows: tables for the terminal, CSV and documentation, and a picture."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxops.studies.regions_report import OURS, span

PAPERS = ("#8a94a3", "#b98a4b", "#6f9a76")
READ = "gain: over the row above, with the same seeds; *: the two rows' ranges do not overlap"
__all__ = ["markdown", "show", "span", "table", "write", "write_picture"]


def table(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows: ``values`` of the first measure by seed, ``mean``, ``std`` (of the sample, from two seeds on), ``min``,
    ``max``, ``gain`` and ``clear`` (see :func:`compare`), ``others``: the means of the other measures.

    A row that is left out has the values of the one above and no gain; a row without runs has no numbers.
    """
    first, *others = results["measures"]
    rows: list[dict[str, Any]] = []
    for row, name in results["rows"].items():
        done = results["runs"].get(row, {})
        entry: dict[str, Any] = {"row": row, "name": name, "left_out": row in results["left_out"]}
        if entry["left_out"] and rows:
            rows.append({**rows[-1], **entry, "gain": None, "clear": None})
            continue
        values = {seed: float(run[first]) for seed, run in sorted(done.items(), key=lambda item: int(item[0]))}
        gain, clear = compare(rows[-1]["values"], values) if rows else (None, None)
        means = {other: _mean([float(run[other]) for run in done.values()]) for other in others}
        rows.append({**entry, "values": values, **spread(values), "gain": gain, "clear": clear, "others": means})
    return rows


def spread(values: Mapping[str, float]) -> dict[str, float | None]:
    some = list(values.values())
    std = statistics.stdev(some) if len(some) > 1 else None
    return {"mean": _mean(some), "std": std, "min": min(some, default=None), "max": max(some, default=None)}


def compare(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float | None, bool | None]:
    """The mean of the differences of equal seeds, and whether the ranges of all values are apart; None where there are
    too few: one common seed, and two values each."""
    gain = _mean([after[seed] - before[seed] for seed in after if seed in before])
    if min(len(before), len(after)) < 2:
        return gain, None
    return gain, min(after.values()) > max(before.values()) or max(after.values()) < min(before.values())


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def percent(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else f"{100 * value:{form}}"


def gained(entry: Mapping[str, Any]) -> str:
    return "as above" if entry["left_out"] else percent(entry["gain"], "+.1f") + "*" * bool(entry["clear"])


def told(results: Mapping[str, Any]) -> list[str]:
    """What the numbers are, in lines."""
    rows, first = table(results), next(iter(results["measures"].values()))
    counts = sorted({len(entry["values"]) for entry in rows})
    seeds = " to ".join(map(str, counts[:: max(len(counts) - 1, 1)]))
    machines = dict.fromkeys(run["machine"] for runs in results["runs"].values() for run in runs.values())
    lines = [f"{results['title']}: {first} in % on held-out images, {seeds} seed{'s' * (counts != [1])} a row"]
    lines.append(READ)
    gain, clear = compare(rows[0]["values"], rows[-1]["values"])
    if gain is not None:
        apart = {None: "", True: ", ranges apart", False: ", ranges overlap"}[clear]
        lines.append(f"all together: {percent(gain, '+.1f')}{apart}")
    lines += [f"{results['rows'][row]}: not run, {why}" for row, why in results["left_out"].items()]
    return [*lines, "; ".join(machines)]


def _cells(results: Mapping[str, Any], narrow: bool = False) -> list[list[str]]:
    """The heading and the rows; narrow: beside several papers the first measure alone."""
    first, *others = results["measures"].values()
    if narrow and len(results["papers"]) > 1:
        others = []
    cells = [["", first, "range", "gain", *others, *results["papers"]]]
    for entry in table(results):
        between = "-" if entry["std"] is None else f"{percent(entry['min'])}..{percent(entry['max'])}"
        means = [percent(value) for value in entry["others"].values()][: len(others)]
        papers = [percent(paper.get(entry["row"]), ".2f") for paper in results["papers"].values()]
        cells.append([entry["name"], percent(entry["mean"]), between, gained(entry), *means, *papers])
    return cells


def show(results: Mapping[str, Any]) -> None:
    """The table on the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    heading, *rows = _cells(results, narrow=True)
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, text in enumerate(heading):
        broken = text.replace(" ", "\n", 1) if " " in text else text.replace("-", "-\n", 1)
        shown.add_column(broken, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console = Console(highlight=False)
    console.print(shown)
    console.print(*told(results), sep="\n", markup=False)


def markdown(results: Mapping[str, Any]) -> str:
    """The table of the documentation."""
    heading, *rows = _cells(results)
    papers = len(results["papers"])
    heading = [*heading[: len(heading) - papers], *(f"*{name}*" for name in heading[len(heading) - papers :])]
    lines = [heading, ["---"] + ["---:"] * (len(heading) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n\n" + ". ".join(told(results)) + ".\n"


def write(results: Mapping[str, Any], out: Path) -> None:
    """The table as CSV, with the numbers of every run, all in 0..1."""
    from boxops.training.checkpoint import atomic

    seeds = sorted({seed for runs in results["runs"].values() for seed in runs}, key=int)
    rows = []
    for entry in table(results):
        row = {key: entry[key] for key in ("row", "left_out", "mean", "std", "min", "max", "gain", "clear")}
        row |= {name: paper.get(entry["row"]) for name, paper in results["papers"].items()}
        done = results["runs"].get(entry["row"], {})
        row |= {f"{key} {seed}": done.get(seed, {}).get(key) for key in results["measures"] for seed in seeds}
        rows.append(row)
    with atomic(out / f"{results['study']}.csv", "w") as file:
        lines = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        lines.writeheader()
        lines.writerows(rows)


def write_picture(results: Mapping[str, Any], out: Path) -> None:
    from boxops.cli.outputs import figure_of

    size = (9, 1.1 + 0.32 * len(results["rows"]))
    with figure_of([out / f"{results['study']}.{kind}" for kind in ("svg", "png")], size) as figure:
        draw(results, figure)


def draw(results: Mapping[str, Any], figure: Any) -> None:
    """From the top down a row for each trick: ours, a dot for each seed and a line at their mean; beside it the papers'
    numbers, on an axis of their own."""
    rows, places = table(results), range(len(results["rows"]))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, entry in zip(places, rows, strict=True):
        values = [100 * value for value in entry["values"].values()]
        fill = "none" if entry["left_out"] else OURS
        left.scatter(values, [place] * len(values), s=18, facecolors=fill, edgecolors=OURS, linewidths=0.8, alpha=0.8)
        if values:
            left.vlines(100 * entry["mean"], place - 0.3, place + 0.3, color=OURS, linewidth=1.6)
            left.annotate(f"{100 * entry['mean']:.1f}", (100 * entry["mean"], place - 0.3), (0, 1), ha="center",
                          textcoords="offset points", fontsize=7, color=OURS)  # fmt: skip
    for colour, (name, paper) in zip(PAPERS, results["papers"].items(), strict=False):
        known = [paper.get(entry["row"]) for entry in rows]
        values = [float("nan") if value is None else 100 * value for value in known]  # a gap in the line
        right.plot(values, places, "o-", color=colour, markersize=4, linewidth=1, label=name)
        for value, place in zip(values, places, strict=True):
            if value == value and len(results["papers"]) == 1:
                right.annotate(f"{value:.2f}", (value, place), (5, 3), textcoords="offset points", fontsize=7,
                               color=colour)  # fmt: skip
    left.set_title(f"{results['title']}: {next(iter(results['measures'].values()))} in %", fontsize=9)
    right.set_title(results["theirs"], fontsize=9)
    left.set_yticks(places, list(results["rows"].values()))
    left.invert_yaxis()
    if len(results["papers"]) > 1:
        right.legend(frameon=False, fontsize=7)
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
