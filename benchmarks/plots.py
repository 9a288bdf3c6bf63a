"""The pictures, by matplotlib, as SVG whose colours and font are CSS variables, so that dark mode is served too."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .machine import busy
from .report import duration, least, size, smallest, timed, times

Case = dict[str, Any]
# Rivals of one colour, that of the first: a case has one of them.
ALIKE = (
    ("powerboxes", "SciPy", "HungarianMatcher"),
    ("lsnms", "lap", "lapx", "pycocotools", "shapely", "SAHI"),
    ("onnxruntime", "ultralytics"),
    ("OpenCV",),
    ("ensemble-boxes",),
    ("supervision",),
)
PYTHON = ("torch", "NumPy", "shapely")  # eager loops, said to be slow Python
README = ("box_iou", "generalized_box_iou", "rotated_box_iou", "nms", "batched_nms", "soft_nms",
          "weighted_boxes_fusion", "match_max_iou", "linear_sum_assignment", "roi_align", "generate_proposals",
          "detect")  # fmt: skip
ROWS = ("boxops", "boxops NumPy", "boxops graph", "torchvision", "torch", *sum(ALIKE, ()), "NumPy")

# Role: (light, dark). The light colours are what matplotlib draws with, so each must be a different one.
COLOURS = {
    "paper": ("#ffffff", "#14171c"),
    "ink": ("#1d2329", "#e6e9ee"),
    "muted": ("#66707b", "#98a2ae"),
    "grid": ("#e4e7eb", "#2a3038"),
    "boxops": ("#2563eb", "#6ea0ff"),
    "boxops-numpy": ("#93b4f5", "#3f62ad"),
    "torchvision": ("#ea6a12", "#ff9a4d"),
    "torch": ("#a23bbd", "#d48ae6"),
    "powerboxes": ("#1f9254", "#5fcf8f"),
    "lsnms": ("#0c8296", "#4cc3d6"),
    "onnxruntime": ("#b08900", "#e3bc3f"),
    "opencv": ("#8a5a44", "#c9957c"),
    "ensemble-boxes": ("#5f7d1c", "#a9c95c"),
    "supervision": ("#c2417e", "#f08cbb"),
    "numpy": ("#8d96a0", "#7b8590"),
    "bad": ("#cf3030", "#ff7b72"),
}
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "boxops",
    "font.size": 9.5,
    "text.color": COLOURS["ink"][0],
    "axes.edgecolor": COLOURS["grid"][0],
    "axes.labelcolor": COLOURS["muted"][0],
    "axes.facecolor": "none",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"][0],
    "xtick.color": COLOURS["grid"][0],
    "ytick.color": COLOURS["grid"][0],
    "xtick.labelcolor": COLOURS["muted"][0],
    "ytick.labelcolor": COLOURS["muted"][0],
    "legend.frameon": False,
}


def colour(row: str) -> str:
    row = next((group[0] for group in ALIKE if row in group), row)
    return COLOURS[row.lower().replace(" ", "-").replace("boxops-graph", "boxops")][0]


def variables() -> str:
    """The CSS that gives every role its colour, light and dark."""
    light, dark = (";".join(f"--{role}:{pair[mode]}" for role, pair in COLOURS.items()) for mode in (0, 1))
    return f":root{{--font:{FONT};{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def svg_of(figure: Figure, label: str) -> str:
    """The figure as an SVG element to put into a page that holds variables()."""
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format="svg", transparent=True)
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    for role, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{role})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    figure.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0.058, 1), ncols=7, columnspacing=1.6, handlelength=1.4
    )


def ratio_bars(
    cases: Sequence[Case], title: str = "", subtitle: str = "", rings: Mapping[str, float] | None = None
) -> Figure:
    """Times faster than the strongest rival of the case, on a log axis from 1; a tick marks the goal if it is that
    rival's, and `rings` hold the smallest margin of an op."""
    with matplotlib.rc_context(STYLE):
        top, bottom = 0.72 if title else 0.05, 0.3
        # A little air between one op and the next.
        gaps = [case["op"] != before["op"] for case, before in zip(cases[1:], cases, strict=False)]
        places = [sum(gaps[:index]) * 0.35 + index for index in range(len(cases))]
        height = 0.27 * places[-1] + 0.27 + top + bottom
        figure = Figure((10, height))
        axes = figure.add_axes((0.42, bottom / height, 0.57, 1 - (top + bottom) / height))
        figure.text(0.0087, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
        figure.text(0.0087, 1 - 0.39 / height, subtitle, size=9, va="top", color=COLOURS["muted"][0])
        strongest, rings = [smallest(case) for case in cases], rings or {}
        ratios = [ratio for ratio, _ in strongest]
        ends = [f"than {name}" + " (Python)" * (name in PYTHON) for _, name in strongest]
        # The axis ends where the longest bar has room for what is written behind it: a part of its 410 points.
        left, parts = min(0.95, *ratios, *rings.values()) / 1.1, [(45 + 4.8 * len(end)) / 410 for end in ends]
        room = [(math.log(r) - part * math.log(left)) / (1 - part) for r, part in zip(ratios, parts, strict=True)]
        right = math.exp(max(math.log(2), *room))
        points = 410 / math.log(right / left)
        colours = [COLOURS["boxops" if ratio >= 1 else "bad"][0] for ratio in ratios]
        axes.barh(places, [ratio - 1 for ratio in ratios], left=1, height=0.62, color=colours)
        muted: dict[str, Any] = {"size": 8.5, "color": COLOURS["muted"][0], "va": "center"}
        beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
        last = ""
        for place, case, ratio, end in zip(places, cases, ratios, ends, strict=True):
            goal, text = case["goal"], times(ratio)
            marked = goal["ratio"] > 1 and end.startswith(f"than {goal['rival']}")
            edge = max(ratio, 1.0)
            if marked and 0 < math.log(goal["ratio"] / edge) * points < 14 + 6 * len(text):  # not across the number
                edge = goal["ratio"]
            offset: dict[str, Any] = {"xy": (edge, place), "textcoords": "offset points", "va": "center"}
            axes.annotate(text, xytext=(6, 0), weight="bold", **offset)
            if case["op"] in rings:
                ring: dict[str, Any] = {
                    "color": COLOURS["ink"][0],
                    "mfc": COLOURS["paper"][0],
                    "mew": 1.2,
                    "ms": 5,
                    "zorder": 4,
                }
                axes.plot(rings[case["op"]], place, "o", **ring)
            axes.annotate(end, xytext=(14 + 6 * len(text), 0), **offset | muted)
            axes.annotate(case["op"] if case["op"] != last else "", (-0.7216, place), **beside)
            axes.annotate(case["label"], (-0.02, place), ha="right", **beside | muted)
            last = case["op"]
            if marked:
                axes.plot([goal["ratio"]] * 2, [place - 0.4, place + 0.4], color=COLOURS["ink"][0], lw=1.6)
        axes.set_xscale("log")
        axes.set_xlim(left, right)
        axes.set_ylim(places[-1] + 0.6, -0.6)
        steps = (1, 2, 5) if points > 80 else (1,)
        marks = [m for m in (s * 10.0**e for e in range(-3, 5) for s in steps) if left <= m <= right]
        axes.xaxis.set_major_locator(FixedLocator(marks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}\u00d7"))
        axes.yaxis.set_visible(False)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.grid(axis="x")
        axes.axvline(1, color=COLOURS["muted"][0], lw=1)
        axes.tick_params(length=0)
        return figure


def speed(cases: Sequence[Case]) -> Figure | None:
    """Time against N for every op measured at three sizes or more, boxops beside its rivals."""
    series: dict[str, dict[int, Case]] = {f"{case['op']} {case['variant']}".strip(): {} for case in cases}
    for case in sorted(cases, key=lambda case: case["n"]):
        series[f"{case['op']} {case['variant']}".strip()][case["n"]] = case
    series = {line: sizes for line, sizes in series.items() if len(sizes) >= 3}
    if not series:
        return None
    with matplotlib.rc_context(STYLE):
        rows = -(-len(series) // 3)
        height = 2.6 * rows + 0.6
        figure = Figure((10, height))
        grid = figure.add_gridspec(
            rows, 3, left=0.065, right=0.99, bottom=0.45 / height, top=1 - 0.75 / height, hspace=0.42, wspace=0.27
        )
        handles = {}
        for index, (op, sizes) in enumerate(series.items()):
            axes = figure.add_subplot(grid[index // 3, index % 3])
            drawn = dict.fromkeys(name for case in sizes.values() for name in case["timings"])
            for name in reversed(drawn):
                points = [(n, case["timings"][name]) for n, case in sizes.items() if name in case["timings"]]
                ns = [n for n, _ in points]
                ours = name.startswith("boxops")
                look: dict[str, Any] = {
                    "color": colour(name),
                    "lw": 2.2 if name == "boxops" else 1.4,
                    "zorder": 3 if ours else 2,
                }
                axes.fill_between(
                    ns, [t["q1"] for _, t in points], [t["q3"] for _, t in points], color=colour(name), alpha=0.18, lw=0
                )
                (handles[name],) = axes.plot(
                    ns, [t["median"] for _, t in points], marker="o", ms=4 if name == "boxops" else 3, **look
                )
            axes.set_title(op, weight="bold")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter(
                FuncFormatter(lambda n, _: f"{n / 1e6:g}M" if n >= 1e6 else f"{n / 1e3:g}k" if n >= 1e3 else f"{n:g}")
            )
            axes.yaxis.set_major_formatter(FuncFormatter(lambda t, _: duration(t, 1)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_minor_locator(NullLocator())
            axes.grid()
            axes.tick_params(length=0)
            if index >= len(series) - 3:
                axes.set_xlabel("N")
        names = [name for name in ROWS if name in handles]
        _legend(figure, [handles[name] for name in names], names)
        return figure


def roofline(cases: Sequence[Case], bandwidth: dict[str, float]) -> Figure:
    """Bytes per second over the bytes that must move, under the roofs: the cost of a call, and the bandwidth."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((10, 4.3))
        axes = figure.add_axes((0.08, 0.12, 0.91, 0.77))
        moved = [case["bytes"] for case in cases]
        low, high = min(moved) / 2, max(moved) * 4
        call = min(case["timings"][case["ours"]]["median"] for case in cases)
        muted: dict[str, Any] = {"textcoords": "offset points", "size": 8.5, "color": COLOURS["muted"][0]}
        roofs = (("copy", "copying", "-", (-4, 4)), ("fill", "allocating and filling a matrix", "--", (-4, -11)))
        for name, label, style, offset in roofs:
            roof = bandwidth[name]
            axes.plot([low, roof * call, high], [low / call, roof, roof], color=COLOURS["muted"][0], lw=1.2, ls=style)
            axes.annotate(f"{label}: {roof / 1e9:.1f} GB/s", (high, roof), offset, ha="right", **muted)
        middle = (low * bandwidth["copy"] * call) ** 0.5
        axes.annotate(f"quickest call: {duration(call)}", (middle, middle / call), (-8, 4), ha="right", **muted)
        handles = {}
        for name, row in (("torchvision", "torchvision"), ("boxops", None)):
            for case in cases:
                timing = case["timings"].get(row or case["ours"])
                if timing:
                    rate = case["bytes"] / timing["median"]
                    (handles[name],) = axes.plot(
                        case["bytes"], rate, "o", ms=6, color=colour(name), alpha=0.85, mew=0, ls=""
                    )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: size(count, 1)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate / 1e9:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        _label(axes, {case["op"]: (case["bytes"], case["rate"]) for case in cases if case["n"] > 1}, bandwidth.values())
        axes.set_xlabel("bytes that must move")
        axes.set_ylabel("GB/s")
        axes.grid()
        axes.tick_params(length=0)
        names = [name for name in ROWS if name in handles]
        _legend(figure, [handles[name] for name in names], names)
        return figure


def _label(axes: Any, spots: dict[str, tuple[float, float]], roofs: Iterable[float]) -> None:
    """Writes each name beside its spot where it covers nothing; a name that finds no place is left out."""
    dots = [axes.transData.transform(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1]
    taken = [(x - 4, x + 4, y - 4, y + 4) for x, y in dots]
    for roof in roofs:
        y = axes.transData.transform((1, roof))[1]
        taken.append((axes.bbox.x1 - 260, axes.bbox.x1, y - 20, y + 20))
    for name, spot in spots.items():
        x, y = axes.transData.transform(spot)
        width = 6 * len(name)
        for left, dx, dy in ((0, 8, -5), (1, -8, -5), (0.5, 0, 8), (0.5, 0, -18), (0, 8, 6), (1, -8, 6), (0, 8, -16)):
            start = x + dx - left * width
            box = (start, start + width, y + dy, y + dy + 11)
            free = all(box[1] < t[0] or t[1] < box[0] or box[3] < t[2] or t[3] < box[2] for t in taken)
            if free and box[1] < axes.bbox.x1 and box[0] > axes.bbox.x0:
                points = 72 / axes.figure.dpi
                place = (dx * points, (dy + 2) * points)
                align = {0: "left", 0.5: "center", 1: "right"}[left]
                axes.annotate(name, spot, place, textcoords="offset points", size=7.5, ha=align)
                taken.append(box)
                break


def summary(result: dict[str, Any], path: Path) -> None:
    """The one picture for a README: a dozen ops, each at its largest size, of those with a goal if there are.

    Other than .svg it is drawn light on paper.
    """
    cases = [case for case in timed(result) if case["ratios"]]
    cases = [case for case in cases if case["n"] > 1] or cases
    if not cases:
        raise ValueError("expected a case that was timed against a rival, got none to draw")
    last = sorted(cases, key=lambda case: (smallest(case)[1] not in PYTHON, case["goal"]["ratio"] > 1, case["n"]))
    chosen = {case["op"]: case for case in last}
    machine, options = result["machine"], result["options"]
    where = machine["device"] if options["device"] == "cuda" else f"{machine['cpu']}, {options['threads']} threads"
    title = "boxops: times faster than the strongest rival"
    shown = [case for case in cases if case in chosen.values()]
    shown = [case for case in shown if case["op"] in README] or shown
    told = (
        f"{where}, {options['dtype']}; a mark: the project's goal; a ring: the op's smallest margin over all its cases"
    )
    told += "; the machine was busy" * bool(busy(machine["load"], machine["others"], machine["cores"]))
    figure = ratio_bars(shown, title, told, {op: ratio for op, (ratio, *_) in least(result).items()})
    if path.suffix != ".svg":
        figure.savefig(path, dpi=200, facecolor=COLOURS["paper"][0])
        return
    style = f"<style>{variables()} svg{{background:var(--paper)}}</style>"
    path.write_text(svg_of(figure, title).replace("<defs>", style + "<defs>", 1), encoding="utf-8")
