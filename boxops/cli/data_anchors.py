"""`boxops data anchors`: the anchors of YOLO v2 and v3 for a data set; see :mod:`boxops.data.anchors`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boxops.cli.common import UserError, add_data_arguments, data_kind, one_line_errors, tell, user_errors
from boxops.cli.outputs import figure_of, protect, save_json
from boxops.cli.splits import open_learnt

CELL = 32  # pixels of a cell of v2's grid, in which its anchors are
MOST_DOTS = 5000
BOXES, ANCHORS = "#2563eb", "#ea7317"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Anchors by k-means over the boxes' widths and heights, under 1 - IoU, as YOLO v2's and v3's:

  boxops data anchors --root DIR -k 6 --size 416 --plot anchors.png

Prints them for the cfg, and the boxes' average IoU with the best one, over the
number of anchors."""
    add_data_arguments(parser)
    parser.add_argument("--split", metavar="NAME", help="by default the one to learn from")
    parser.add_argument("-k", type=int, default=5, metavar="N", help="how many anchors (5): v2 has 5, v3 has 9 and its "
                        "tiny network 6")  # fmt: skip
    parser.add_argument("--size", type=network_size, default=(416, 416), metavar="N", help="the network's input in "
                        "pixels, N or WIDTHxHEIGHT (416)")  # fmt: skip
    parser.add_argument("--stretch", action="store_true", help="images fill the input, out of proportion; by default "
                        "they are letterboxed, as darknet does it")  # fmt: skip
    parser.add_argument(
        "--upto", type=int, default=15, metavar="K", help="the average IoU of 1 to so many anchors (15)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the restarts (0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all of it as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw average IoU over the number of anchors, and "
                        "the anchors amid the boxes: .png or .svg")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace files that boxops did not make")


def network_size(text: str) -> tuple[int, int]:
    """Height and width."""
    found = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected N or WIDTHxHEIGHT of 1 or more, such as 416, got {text!r}")
    return int(found[2] or found[1]), int(found[1])


@one_line_errors
def run(args: argparse.Namespace) -> int:
    for option, value, least in (("-k", args.k, 1), ("--upto", args.upto, 1), ("--seed", args.seed, 0)):
        if value < least:
            raise UserError(f"{option}: expected {least} or more, got {value}")
    if args.plot is not None and args.plot.suffix.lower() not in (".png", ".svg"):
        raise UserError(f"--plot: expected a name that ends in .png or .svg, got {args.plot}")
    outputs = [(option, file) for option, file in (("--out", args.out), ("--plot", args.plot)) if file is not None]
    protect(outputs, [args.annotations], args.overwrite)
    with user_errors():
        if args.plot is not None:
            need_matplotlib()
        data_kind(args)
        data = open_learnt(args, masks=False, keypoints=False)
        tell(data.report())
        sizes, results = measure(args, data)
        show(results)
        if args.out is not None:
            save_json(results, args.out)
        if args.plot is not None:
            with figure_of([args.plot], (9, 4)) as figure:
                draw(sizes, results, figure)
    if outputs:
        print(f"wrote {', '.join(str(file) for _, file in outputs)}")
    return 0


def need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(f'{error}; --plot draws with matplotlib: pip install "boxops[regions]"') from error


def measure(args: argparse.Namespace, data: Any) -> tuple[Any, dict[str, Any]]:
    """The sizes [N, 2] of the boxes, and what is printed and stored."""
    import numpy as np

    from boxops.data.anchors import box_sizes, kmeans_anchors

    sizes = box_sizes(data, args.size, keep_ratio=not args.stretch)
    if not len(sizes):
        raise UserError(f"expected objects in the data, got none in {len(data)} images")
    by_k = {args.k: kmeans_anchors(sizes, args.k, seed=args.seed)}  # first: it says what is wrong with k
    for k in range(1, min(max(args.upto, args.k), len(np.unique(sizes, axis=0))) + 1):
        by_k[k] = by_k.get(k) or kmeans_anchors(sizes, k, seed=args.seed)
    rows = [{"k": k, "average_IoU": iou, "anchors": anchors.tolist()} for k, (anchors, iou) in sorted(by_k.items())]
    return sizes, {
        **rows[args.k - 1],
        "width": args.size[1],
        "height": args.size[0],
        "letterboxed": not args.stretch,
        "images": len(data),
        "boxes": len(sizes),
        "by_k": rows,
    }


def cfg_line(anchors: Sequence[Sequence[float]], digits: int) -> str:
    """An option of darknet's cfg. No side is rounded to 0."""
    pairs = ([f"{max(round(side, digits), 10**-digits):g}" for side in pair] for pair in anchors)
    return "anchors = " + ", ".join(",".join(pair) for pair in pairs)


def show(results: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    fitted = "letterboxed" if results["letterboxed"] else "stretched"
    print(f"{results['boxes']} boxes, {fitted} at {results['width']} x {results['height']}: {results['k']} anchors of "
          f"average IoU {results['average_IoU']:.3f}")  # fmt: skip
    print(f"\n[yolo], in pixels:\n{cfg_line(results['anchors'], 1)}")
    cells = [[side / CELL for side in pair] for pair in results["anchors"]]
    print(f"\n[region], in cells of {CELL} pixels:\n{cfg_line(cells, 4)}\n")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("anchors", "average IoU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results["by_k"]:
        table.add_row(str(row["k"]), f"{row['average_IoU']:.3f}")
    Console(highlight=False).print(table)


def draw(sizes: Any, results: dict[str, Any], figure: Any) -> None:
    """Average IoU over the number of anchors, as the paper's figure 2, and the anchors amid the boxes."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    curve, scatter = figure.subplots(1, 2)
    curve.plot(*zip(*((row["k"], row["average_IoU"]) for row in results["by_k"]), strict=True), "o-", color=BOXES,
               markersize=3.5, linewidth=1.4)  # fmt: skip
    curve.plot(results["k"], results["average_IoU"], "o", color=ANCHORS, markersize=8)
    curve.annotate(f"k = {results['k']}: {results['average_IoU']:.3f}", (results["k"], results["average_IoU"]),
                   (6, -14), textcoords="offset points")  # fmt: skip
    curve.set(xlabel="anchors", title="average IoU of the boxes with their best anchor")
    curve.xaxis.set_major_locator(MaxNLocator(integer=True))
    shown = sizes[np.linspace(0, len(sizes) - 1, min(len(sizes), MOST_DOTS)).astype(int)]
    anchors = np.array(results["anchors"])
    some = f"{len(shown)} of " * (len(shown) < len(sizes))
    scatter.scatter(*shown.T, s=6, color=BOXES, alpha=0.25, linewidths=0, label=f"{some}{len(sizes)} boxes")
    scatter.scatter(*anchors.T, s=70, marker="P", color=ANCHORS, edgecolors="white", label=f"{len(anchors)} anchors")
    side = 1.05 * max(shown.max(), anchors.max())
    scatter.set(xlim=(0, side), ylim=(0, side), aspect="equal", xlabel="width in pixels of the network",
                ylabel="height", title=f"sizes at {results['width']} x {results['height']}")  # fmt: skip
    scatter.legend(loc="upper left", frameon=False)
    for axis in (curve, scatter):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
