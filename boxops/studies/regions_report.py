"""What `boxops study regions` shows: tables for the terminal, CSV and documentation, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxops.studies import store

NAMES = {"rcnn": "R-CNN", "sppnet": "SPP-net", "fast_rcnn": "Fast R-CNN", "faster_rcnn": "Faster R-CNN"}
TIMES = {
    "training": "training",
    "with": "test of an image,\nproposals included",
    "without": "test of an image,\nproposals given",
}
OURS, THEIRS = "#2563eb", "#b6bfcc"
TICKS = {0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 3600: "1 h", 360000: "100 h"}


def span(seconds: float | None) -> str:
    """Seconds with three digits, in the unit that reads well; - for none."""
    if seconds is None:
        return "-"
    for limit, unit, name in ((0.0995, 1e-3, "ms"), (90, 1, "s"), (5400, 60, "min")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 3600:.3g} h"


def ours(results: Mapping[str, Any], system: str) -> dict[str, float | None]:
    """The times of a system, as ``papers`` has theirs."""
    found = results["systems"][system]
    return {"training": found["training_seconds"], **found["test_seconds"]}


def disk(found: Mapping[str, Any]) -> str:
    from rich.filesize import decimal

    return decimal(sum(found["disk"].values()))


def where(results: Mapping[str, Any]) -> str:
    return store.where(found["machine"] for found in results["systems"].values())


def show(results: Mapping[str, Any]) -> None:
    """A table on the terminal, each system above its paper."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("training", "test", "proposals given", "disk", "AP50"):
        table.add_column(heading, justify="right", no_wrap=True)
    for system, found in results["systems"].items():
        mine, papers = ours(results, system), results["papers"][system]
        table.add_row(NAMES[system], *(span(mine[key]) for key in TIMES), disk(found), f"{found['AP50']:.3f}")
        table.add_row("  the paper", *(span(papers[key]) for key in TIMES), style="dim", end_section=True)
    console = Console()
    console.print(table)
    console.print(f"{results['options']['backbone']} on {where(results)}", "the papers: VGG16 on a GPU of the time",
                  "test: of one image, proposals included", sep="\n", highlight=False)  # fmt: skip


def markdown(results: Mapping[str, Any]) -> str:
    """The table of the documentation."""
    lines = [
        ["", "training", "*paper*", "test of an image", "*paper*", "with proposals given", "*paper*", "disk", "AP50"]
    ]
    lines += [["---"] + ["---:"] * (len(lines[0]) - 1)]
    for system, found in results["systems"].items():
        mine, papers = ours(results, system), results["papers"][system]
        times = [span(some[key]) for key in TIMES for some in (mine, papers)]
        lines.append([NAMES[system], *times, disk(found), f"{found['AP50']:.3f}"])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    told = f"{results['options']['backbone']} on {where(results)}; the papers: VGG16 on a GPU of the time."
    if results["options"]["quick"]:
        told += " A quick study, of generated images and a few steps: it tells of times alone."
    return f"{table}\n\n{told}\n"


def write(results: Mapping[str, Any], out: Path) -> None:
    """regions.csv, regions.svg and regions.png of a study's folder."""
    from boxops.cli.outputs import figure_of
    from boxops.training.checkpoint import atomic

    rows = []
    for system, found in results["systems"].items():
        row: dict[str, Any] = {"system": system, "model": found["model"]}
        for key in TIMES:
            row |= {f"{key}_seconds": ours(results, system)[key], f"{key}_papers": results["papers"][system][key]}
        rows.append({**row, **{f"disk_{key}": value for key, value in found["disk"].items()}, "AP50": found["AP50"]})
    with atomic(out / "regions.csv", "w") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    with figure_of([out / "regions.svg", out / "regions.png"], (10, 3.6)) as figure:
        draw(results, figure)


def draw(results: Mapping[str, Any], figure: Any) -> None:
    """Bars of the three times, ours beside the papers', on a log scale."""
    from matplotlib.ticker import FixedLocator, NullLocator

    systems = list(results["systems"])
    for axis, (key, title) in zip(figure.subplots(1, len(TIMES), sharey=True), TIMES.items(), strict=True):
        shown: list[float] = []
        for shift, colour, label, times in (
            (-0.2, OURS, "boxops", [ours(results, system)[key] for system in systems]),
            (0.2, THEIRS, "the papers", [results["papers"][system][key] for system in systems]),
        ):
            known = [(i + shift, value) for i, value in enumerate(times) if value]
            shown += [value for _, value in known]
            bars = axis.barh(*zip(*known, strict=True), 0.38, color=colour, label=label) if known else []
            for bar, (_, value) in zip(bars, known, strict=True):
                axis.annotate(span(value), (value, bar.get_y() + 0.19), (3, 0), textcoords="offset points", va="center")
        axis.set_xscale("log")
        low, high = min(shown, default=1) / 5, max(shown, default=1)
        axis.set_xlim(low, high * (high / low) ** 0.35)  # room for the numbers
        ticks = [tick for tick in TICKS if low <= tick <= 1.2 * high and (tick >= 60 or tick == 1 or high < 1000)]
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_major_formatter(lambda tick, _: TICKS.get(float(f"{tick:.3g}"), ""))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(title, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_yticks(range(len(systems)), [NAMES[system] for system in systems])
    axis.invert_yaxis()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    labels = [
        f"boxops: {results['options']['backbone']}, {where(results)}",
        "the papers: VGG16, a GPU of the time",
    ][: len(labels)]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
