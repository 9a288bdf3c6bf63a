"""Draws the pictures of the documentation, each from real calls: `python docs/draw.py [name ...]`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np

import boxops

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import Polygon, Rectangle

FOLDER = Path(__file__).parent / "pictures"
BLUE, ORANGE, GREEN, RED, GREY = "#2563eb", "#ea7317", "#16a34a", "#dc2626", "#9ca3af"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "svg.hashsalt": "boxops",
    "axes.edgecolor": "#d1d5db",
    "figure.constrained_layout.use": True,
}
float32 = np.float32


def boxes_of(*rows):
    return np.array(rows, float32)


def panels(*titles, size=(3.1, 3.1), extent=None):
    _, axes = plt.subplots(1, len(titles), figsize=(size[0] * len(titles), size[1]))
    for axis, title in zip(np.atleast_1d(axes), titles, strict=True):
        axis.set_title(title)
        axis.set_aspect("equal")
        axis.set_xticks([])
        axis.set_yticks([])
        if extent:
            axis.set_xlim(0, extent[0])
            axis.set_ylim(extent[1], 0)
    return np.atleast_1d(axes)


def draw_box(axis, box, colour, label=None, fill=0.0, alpha=1.0, **style):
    x1, y1, x2, y2 = map(float, box)
    rgb = matplotlib.colors.to_rgb(colour)
    style = {"linewidth": 1.4, **style}
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, facecolor=(*rgb, fill), edgecolor=(*rgb, alpha), **style))
    if label is not None:
        axis.text(x1 + 1, y1 - 1, label, color=colour, fontsize=8, va="bottom")


def iou():
    """Two boxes nearer and nearer, and what each measure says."""
    first = boxes_of((10, 30, 50, 70))
    seconds = boxes_of((62, 20, 92, 50), (38, 24, 78, 58), (14, 28, 58, 72))
    for axis, second in zip(panels("apart", "overlapping", "close", extent=(100, 100)), seconds, strict=True):
        second = second[None]
        hull = np.concatenate([np.minimum(first, second)[0, :2], np.maximum(first, second)[0, 2:]])
        draw_box(axis, hull, GREY, linestyle=":")
        draw_box(axis, first[0], BLUE, fill=0.25)
        draw_box(axis, second[0], ORANGE, fill=0.25)
        names = {"IoU": "box_iou", "IoA": "box_ioa", "GIoU": "generalized_box_iou", "DIoU": "distance_box_iou",
                 "CIoU": "complete_box_iou"}  # fmt: skip
        values = [f"{short:5s}{getattr(boxops, op)(first, second)[0, 0]:6.2f}" for short, op in names.items()]
        axis.text(3, 97, "\n".join(values), family="DejaVu Sans Mono", fontsize=8, va="bottom")


def boxes():
    """One box in three formats; clipping; decoding."""
    left, middle, right = panels("formats of one box", "clip_boxes_to_image", "decode_boxes", extent=(100, 100))
    box = boxes_of((25, 30, 80, 75))
    draw_box(left, box[0], BLUE, fill=0.15)
    for number, (fmt, colour) in enumerate([("xyxy", BLUE), ("xywh", GREEN), ("cxcywh", ORANGE)]):
        values = ", ".join(f"{v:g}" for v in boxops.box_convert(box, "xyxy", fmt)[0])
        left.text(3, 82 + 6 * number, f"{fmt}: {values}", color=colour, fontsize=8)
    left.plot([25], [30], "o", color=GREEN)
    left.plot([52.5], [52.5], "o", color=ORANGE)
    outside = boxes_of((50, 5, 110, 45), (-12, 40, 40, 88))
    middle.set_xlim(-15, 115)
    draw_box(middle, (0, 0, 100, 100), GREY, fill=0.08)
    for before, after in zip(outside, boxops.clip_boxes_to_image(outside, (100, 100)), strict=True):
        draw_box(middle, before, RED, linestyle="--")
        draw_box(middle, after, GREEN, fill=0.2)
    anchor = boxes_of((20, 25, 60, 65))
    deltas = boxes_of((0.4, 0.35, 0.3, -0.4))
    decoded = boxops.decode_boxes(deltas, anchor)
    draw_box(right, anchor[0], GREY, "anchor", linestyle="--")
    draw_box(right, decoded[0], BLUE, fill=0.15)
    right.annotate("", ((decoded[0, 0] + decoded[0, 2]) / 2, (decoded[0, 1] + decoded[0, 3]) / 2), (40, 45),
                   arrowprops={"arrowstyle": "->", "color": ORANGE})  # fmt: skip
    right.text(3, 97, "deltas (0.4, 0.35, 0.3, -0.4)", fontsize=8, va="bottom", color=ORANGE)


def rotated():
    """A rectangle turning over another."""
    first = np.array([[50, 50, 60, 24, 0]], float32)
    for axis, angle in zip(panels("0°", "30°", "90°", extent=(100, 100)), (0, 30, 90), strict=True):
        second = np.array([[55, 50, 60, 24, angle]], float32)
        for (cx, cy, w, h, r), colour in ((first[0], BLUE), (second[0], ORANGE)):
            turn = np.deg2rad(r)  # counter-clockwise with y down
            axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 @ axes + (cx, cy)
            axis.add_patch(Polygon(corners, facecolor=(*matplotlib.colors.to_rgb(colour), 0.25), edgecolor=colour))
        axis.text(3, 97, f"IoU {boxops.rotated_box_iou(first, second)[0, 0]:.3f}", va="bottom")


def crowd():
    rng = np.random.default_rng(5)
    objects = boxes_of((12, 18, 48, 62), (40, 30, 82, 84))
    boxes = (np.repeat(objects, 6, 0) + rng.normal(0, 3.2, (12, 4))).astype(float32)
    scores = np.r_[0.95, rng.uniform(0.3, 0.8, 5), 0.9, rng.uniform(0.3, 0.8, 5)].astype(float32)
    return boxes, scores


def nms():
    """Candidates, what nms keeps, how soft_nms decays, and what fusion makes of them."""
    boxes, scores = crowd()
    titles = ("candidates", "nms, IoU > 0.5 goes", "soft_nms, gaussian", "weighted_boxes_fusion")
    axes = panels(*titles, size=(2.6, 2.8), extent=(100, 100))
    for box, score in zip(boxes, scores, strict=True):
        draw_box(axes[0], box, BLUE, alpha=float(score))
    for i in boxops.nms(boxes, scores, 0.5):
        draw_box(axes[1], boxes[i], GREEN, f"{scores[i]:.2f}", fill=0.15)
    kept, decayed = boxops.soft_nms(boxes, scores)
    for i, score in zip(kept, decayed, strict=True):
        draw_box(axes[2], boxes[i], BLUE, f"{score:.2f}" if score > 0.3 else None, alpha=max(0.08, float(score)))
    models = [slice(0, None, 2), slice(1, None, 2)]
    fused, fused_scores, _ = boxops.weighted_boxes_fusion(
        [boxes[m] for m in models], [scores[m] for m in models], [np.zeros(6, np.int64)] * 2
    )
    for box, score in zip(fused, fused_scores, strict=True):
        draw_box(axes[3], box, ORANGE, f"{score:.2f}", fill=0.15)


def anchors():
    """Anchors of one pixel, of the levels of a pyramid, of a YOLO grid."""
    left, middle, right = panels(
        "multibox_anchors: 3 sizes, 3 ratios", "grid_anchors: 3 levels", "cell_anchors: 2 priors", extent=(128, 128)
    )
    sizes, ratios = (0.75, 0.5, 0.25), (1, 2, 0.5)
    grid = boxops.multibox_anchors((8, 8), sizes, ratios).reshape(8, 8, 5, 4) * 128
    names = [f"s {s:g}, r 1" for s in sizes] + [f"s {sizes[0]:g}, r {r:g}" for r in ratios[1:]]
    for box, colour, name in zip(grid[4, 4], (BLUE, GREEN, ORANGE, RED, "#7c3aed"), names, strict=True):
        draw_box(left, box, colour)
        left.text(box[0] + 1, box[1] + 1, name, color=colour, fontsize=7, va="top")
    left.plot(*np.meshgrid(np.arange(8) * 16 + 8, np.arange(8) * 16 + 8), ".", color=GREY, markersize=2)
    levels = [(16, 16), (8, 8), (4, 4)]
    all_anchors = boxops.grid_anchors((128, 128), levels, ((16,), (32,), (64,)), ((0.5, 1.0, 2.0),) * 3)
    start = 0
    for (h, w), colour in zip(levels, (BLUE, GREEN, ORANGE), strict=True):
        level = all_anchors[start : start + h * w * 3].reshape(h, w, 3, 4)
        start += h * w * 3
        for box in level[h // 2, w // 2]:
            draw_box(middle, box, colour)
        centres = level[:, :, 1].reshape(-1, 4)
        middle.plot((centres[:, 0] + centres[:, 2]) / 2, (centres[:, 1] + centres[:, 3]) / 2, ".", color=colour,
                    markersize=1.5 + 64 / h / 4)  # fmt: skip
    cells = boxops.cell_anchors((4, 4), [(40, 24), (20, 52)], 32).reshape(4, 4, 2, 4)
    for line in range(0, 129, 32):
        right.plot([0, 128], [line, line], color=GREY, linewidth=0.6)
        right.plot([line, line], [0, 128], color=GREY, linewidth=0.6)
    for y, x in ((1, 1), (2, 2)):
        for box, colour in zip(cells[y, x], (BLUE, ORANGE), strict=True):
            draw_box(right, box, colour, fill=0.1)


LECTURE = np.array([
    [0.02, 0.10, 0.15, 0.05], [0.11, 0.20, 0.96, 0.22], [0.12, 0.28, 0.13, 0.05], [0.09, 0.15, 0.08, 0.40],
    [0.06, 0.05, 0.10, 0.77], [0.30, 0.12, 0.85, 0.18], [0.86, 0.42, 0.07, 0.66], [0.25, 0.36, 0.31, 0.61],
    [0.21, 0.54, 0.24, 0.16],
], float32)  # fmt: skip


def matching():
    """The bipartite rule on the lecture's example, and the bands of the R-CNN matcher."""
    left, right = panels("match_greedy_matrix: order of the picks", "match_max_iou", size=(3.9, 3.9))
    matches, _ = boxops.match_greedy_matrix(LECTURE)
    left.imshow(LECTURE, cmap="Blues", aspect="auto", vmin=0, vmax=1.2)
    picks = [(a, b) for a, b in enumerate(matches) if b >= 0]
    picks.sort(key=lambda pair: -LECTURE[pair])
    for (a, b), value in np.ndenumerate(LECTURE):
        left.text(b, a, f"{value:.2f}", ha="center", va="center", fontsize=7.5)
    for order, (a, b) in enumerate(picks):
        left.add_patch(Rectangle((b - 0.48, a - 0.48), 0.96, 0.96, fill=False, edgecolor=RED, linewidth=2))
        left.text(b + 0.4, a - 0.2, str(order + 1), color=RED, fontsize=9, ha="center", weight="bold")
    left.set_aspect("auto")
    left.set_xticks(range(4), [f"box {b + 1}" for b in range(4)])
    left.set_yticks(range(9), [f"anchor {a + 1}" for a in range(9)])
    right.set_xlim(0, 100)
    right.set_ylim(100, 0)
    truths = boxes_of((18, 20, 52, 56), (58, 50, 92, 88))
    centres = np.stack(np.meshgrid(np.arange(8, 100, 7), np.arange(8, 100, 7)), -1).reshape(-1, 2)
    tried = np.concatenate([centres - 17, centres + 17], 1).astype(float32)
    found, _ = boxops.match_max_iou(tried, truths, 0.6, 0.4)
    for truth in truths:
        draw_box(right, truth, "black", linewidth=2)
    for value, colour, name in (
        (-1, GREY, "background"),
        (-2, ORANGE, "between"),
        (0, BLUE, "box 1"),
        (1, GREEN, "box 2"),
    ):
        chosen = centres[found == value]
        right.plot(chosen[:, 0], chosen[:, 1], "s", color=colour, markersize=4, label=name)
    right.legend(loc="lower left", fontsize=7)


def assignment():
    """The cheapest assignment of queries to truths, and the greedy one, which costs more."""
    cost = np.array([[4, 1, 3, 8], [2, 0, 5, 7], [3, 2, 2, 6]], float32)
    axes = panels("linear_sum_assignment", "greedy by hand", size=(3.6, 2.8))
    rows, columns = boxops.linear_sum_assignment(cost)
    greedy, left = [], cost.copy()
    for _ in range(3):
        at = np.unravel_index(left.argmin(), left.shape)
        greedy.append(at)
        left[at[0]], left[:, at[1]] = np.inf, np.inf
    for axis, pairs in zip(axes, (list(zip(rows, columns, strict=True)), greedy), strict=True):
        axis.imshow(cost, cmap="Oranges", vmax=12)
        for at, value in np.ndenumerate(cost):
            axis.text(at[1], at[0], f"{value:g}", ha="center", va="center")
        for r, c in pairs:
            axis.add_patch(Rectangle((c - 0.47, r - 0.47), 0.94, 0.94, fill=False, edgecolor=BLUE, linewidth=2.5))
        axis.set_xlabel(f"total cost {sum(cost[r, c] for r, c in pairs):g}")


def roi():
    """Bins of roi_pool and samples of roi_align on the lecture's 4 x 4 map."""
    grid = np.arange(16, dtype=float32).reshape(1, 1, 4, 4)
    regions = boxes_of((0, 0, 0, 2, 2), (0, 0, 1, 3, 3))
    pooled = boxops.roi_pool(grid, regions, 2)
    aligned = boxops.roi_align(grid, regions, 2, sampling_ratio=2, aligned=True)
    titles = ("roi_pool (0, 0, 2, 2)", "roi_pool (0, 1, 3, 3)", "roi_align (0, 1, 3, 3)")
    axes = panels(*titles, size=(3.1, 3.8))
    for axis, values, what in zip(
        axes,
        (*pooled[:, 0], aligned[1, 0]),
        ("largest of each bin", "largest of each bin", "means of 4 samples"),
        strict=True,
    ):
        axis.imshow(grid[0, 0], cmap="Greys", vmax=40)
        axis.set_xlim(-0.8, 3.8)
        axis.set_ylim(3.8, -0.8)
        for (y, x), value in np.ndenumerate(grid[0, 0]):
            axis.text(x, y, f"{value:g}", ha="center", va="center", fontsize=10)
        rows = "\n".join("   ".join(f"{v:.4g}" for v in row) for row in values)
        axis.set_xlabel(f"{what}:\n{rows}")
    for axis, (_, x1, y1, x2, y2) in zip(axes[:2], regions, strict=True):  # whole pixels, the last ones included
        draw_box(axis, (x1 - 0.5, y1 - 0.5, x2 + 0.5, y2 + 0.5), RED, linewidth=2)
        for by, colour in enumerate((BLUE, GREEN)):
            for bx in range(2):
                h, w = (y2 - y1 + 1) / 2, (x2 - x1 + 1) / 2
                edges = np.floor(bx * w), np.floor(by * h), np.ceil((bx + 1) * w), np.ceil((by + 1) * h)
                inset = 0.06 * (1 + bx + 2 * by)
                left, top, right, bottom = edges + np.array([x1, y1, x1, y1]) - 0.5
                draw_box(axis, (left + inset, top + inset, right - inset, bottom - inset), colour, linewidth=0.8)
    _, x1, y1, x2, y2 = regions[1] - 0.5  # aligned: a pixel's value sits in its middle
    draw_box(axes[2], (x1, y1, x2, y2), BLUE, linewidth=2)
    axes[2].plot([(x1 + x2) / 2] * 2, [y1, y2], color=BLUE, linewidth=1)
    axes[2].plot([x1, x2], [(y1 + y2) / 2] * 2, color=BLUE, linewidth=1)
    steps = (np.arange(4) + 0.5) / 4
    points = np.meshgrid(x1 + (x2 - x1) * steps, y1 + (y2 - y1) * steps)
    axes[2].plot(*(p.ravel() for p in points), ".", color=ORANGE, markersize=6)


def masks():
    """A mask head's output, pasted."""
    left, middle, right = panels("mask, 28 x 28", "paste_masks", "paste_masks, threshold 0.5")
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    mask = (1 / (1 + np.exp(12 * (x**2 + 0.7 * y**2 + 0.4 * x * y - 0.5)))).astype(float32)[None]
    box = boxes_of((30, 20, 130, 80))
    left.imshow(mask[0], cmap="viridis")
    middle.imshow(boxops.paste_masks(mask, box, (100, 150))[0], cmap="viridis")
    right.imshow(boxops.paste_masks(mask, box, (100, 150), threshold=0.5)[0], cmap="Greys")
    draw_box(middle, box[0], "white")
    found = boxops.masks_to_boxes(boxops.paste_masks(mask, box, (100, 150), threshold=0.5))
    draw_box(right, found[0], RED)
    right.set_xlabel("red: masks_to_boxes")


def pipelines():
    """From the anchors of two levels to proposals, and from class scores to detections."""
    rng = np.random.default_rng(3)
    size, levels = (96, 128), [(12, 16), (6, 8)]
    tried = boxops.grid_anchors(size, levels, ((24,), (48,)), ((0.5, 1.0, 2.0),) * 2)
    truths = boxes_of((14, 20, 44, 72), (66, 26, 116, 70))
    overlap = boxops.box_iou(tried, truths)
    deltas = boxops.encode_boxes(truths[overlap.argmax(1)], tried) + rng.normal(0, 0.12, tried.shape).astype(float32)
    logits = (14 * (overlap.max(1) - 0.45) + rng.normal(0, 0.8, len(tried))).astype(float32)
    counts = [h * w * 3 for h, w in levels]
    axes = panels(
        f"{len(tried)} anchors, the 40 best of each level",
        "generate_proposals",
        "detect",
        size=(3.6, 3),
        extent=size[::-1],
    )
    start = 0
    for count, colour in zip(counts, (BLUE, ORANGE), strict=True):
        for i in np.argsort(-logits[start : start + count])[:40] + start:
            draw_box(axes[0], tried[i], colour, linewidth=0.6)
        start += count
    proposals, scores, number = boxops.generate_proposals(
        logits[None], deltas[None].astype(float32), tried, counts, [size], 40, 12, 0.7
    )
    for box, score in zip(proposals[0, : number[0]], scores[0], strict=False):
        draw_box(axes[1], box, BLUE, linewidth=0.8, alpha=max(0.15, float(score)))
    likeness = boxops.box_iou(proposals[0], truths)
    found = boxops.detect(proposals, likeness[None].astype(float32), 0.3, 0.5, 10)
    for box, score, label, _ in zip(*(f[0] for f in found[:3]), range(int(found[3][0])), strict=False):
        draw_box(axes[2], box, (BLUE, GREEN)[label], f"class {label}: {score:.2f}", fill=0.15)


PICTURES = (anchors, assignment, boxes, iou, masks, matching, nms, pipelines, roi, rotated)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for draw in PICTURES:
            if len(sys.argv) == 1 or draw.__name__ in sys.argv[1:]:
                draw()
                plt.savefig(FOLDER / f"{draw.__name__}.svg", metadata={"Date": None})
                plt.close()


if __name__ == "__main__":
    main()
