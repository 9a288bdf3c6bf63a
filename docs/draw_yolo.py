"""Draws what YOLO's three versions learn and find, as docs/pictures/yolo*, from real calls.

    python docs/draw_yolo.py cells --darknet FILES
    python docs/draw_yolo.py detections --darknet FILES
    python docs/draw_yolo.py anchors --darknet FILES --root DIR

FILES has darknet's cfgs, weights, coco.names and dog.jpg; DIR is of data in VOC's layout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from torchvision.transforms.v2.functional import pil_to_tensor

from boxops.data import open_dataset
from boxops.data.anchors import average_iou, box_sizes, kmeans_anchors
from boxops.data.images import read_image
from boxops.data.yolo_files import read_names
from boxops.draw import draw_detections
from boxops.models.common import GroundTruth
from boxops.models.yolo import darknet_yolo
from boxops.models.yolo_heads import stride

FOLDER = Path(__file__).parent / "pictures"
DOG = {  # the objects of dog.jpg by hand, and a colour for each
    "bicycle": ((124, 133, 567, 421), "#dc2626"),
    "dog": ((132, 220, 311, 541), "#2563eb"),
    "truck": ((466, 74, 688, 172), "#c026d3"),
    "motorbike": ((57, 73, 109, 124), "#ea580c"),
}
BOXES, OLD, NEW = "#2563eb", "#64748b", "#ea7317"


def dog(args):
    return pil_to_tensor(read_image(args.darknet / "dog.jpg")) / 255


def box(axis, corners, colour, **style):
    x1, y1, x2, y2 = corners
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **{"fill": False, "edgecolor": colour, **style}))


def learnt(cfg, image, boxes):
    """An untrained network's batch, the boxes in it, and of each head its grid and [(object, cell, anchor)], corners in
    the batch's pixels, of the objects that it learns."""
    target = {"boxes": torch.tensor(boxes).float(), "labels": torch.ones(len(boxes), dtype=torch.int64)}
    with torch.device("meta"):  # no outputs are needed
        model = darknet_yolo(cfg)
    batch, moved = model.transform([image], [target])
    truth, size, found = GroundTruth.of(moved), (batch.tensors.shape[2], batch.tensors.shape[3]), []
    for head, i in zip(model.heads, model.network.heads, strict=True):
        raw = torch.zeros(1, *model.network.layers[i].shape)
        grid, rows = head.grid(raw), head.rows(raw)
        cell = head.cell(truth.boxes, grid, size)
        at, mine = head.responsible(rows, head.boxes(rows, grid, size), cell, grid, size, truth)
        y, x = stride(grid, size)
        anchors = head.cells(grid, size, rows)[at % (grid[0] * grid[1] * len(head.mask))]
        places = [
            (c % grid[1] * x, c // grid[1] * y, (c % grid[1] + 1) * x, (c // grid[1] + 1) * y) for c in cell.tolist()
        ]
        own = [(i, places[i], anchors[i].tolist()) for i in mine.nonzero()[:, 0].tolist()]
        found.append((grid, own))
    return batch.tensors[0], truth.boxes.tolist(), found


def cells(args):
    """Which cells, and of v2 and v3 which anchors, are responsible for the objects of dog.jpg."""
    titles = iter(["v1: the cell of an object's centre", "v2: there the anchor most like it",
                   "v3: if it is one of this grid", "v3: or of the finer one"])  # fmt: skip
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.5), layout="constrained")
    axis = iter(axes)
    for name in ("yolov1-tiny", "yolov2-tiny", "yolov3-tiny"):
        image, truths, heads = learnt(args.darknet / f"{name}.cfg", dog(args), [corners for corners, _ in DOG.values()])
        for (high, wide), own in heads:
            show = next(axis)
            height, width = image.shape[-2:]
            show.imshow(image.permute(1, 2, 0) * 0.75 + 0.25)
            for i in range(1, wide):
                show.axvline(i * width / wide, color="white", linewidth=0.6)
            for j in range(1, high):
                show.axhline(j * height / high, color="white", linewidth=0.6)
            for i, cell, anchor in own:
                colour = list(DOG.values())[i][1]
                box(show, cell, colour, fill=True, facecolor=colour, alpha=0.55, linewidth=0)
                box(show, truths[i], colour, linewidth=1.8)
                if "v1" not in name:
                    box(show, anchor, colour, linewidth=1.4, linestyle="--")
            show.set(xlim=(0, width), ylim=(height, 0))
            show.set_title(f"{next(titles)}, {wide} x {high}", fontsize=9)
    return figure, axes


@torch.inference_mode()
def detections(args):
    """Of dog.jpg, with darknet's weights."""
    names, image = read_names(args.darknet / "coco.names"), dog(args)
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.7), layout="constrained")
    for axis, name in zip(axes, ("yolov2-tiny", "yolov3-tiny"), strict=True):
        model = darknet_yolo(args.darknet / f"{name}.cfg", args.darknet / f"{name}.weights")
        axis.imshow(draw_detections(image, model([image])[0], names, 0.5))
        axis.set_title(name, fontsize=9)
    return figure, axes


def anchors(args):
    """The sizes of the data's boxes, COCO's anchors, and those of k-means on the data."""
    data = open_dataset("voc", args.root, split="trainval")
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
    for axis, name in zip(axes, ("yolov2-tiny", "yolov3-tiny"), strict=True):
        model = darknet_yolo(args.darknet / f"{name}.cfg")
        size = model.network.shape[1:]
        head, grid = model.heads[0], model.network.layers[model.network.heads[0]].shape[1:]
        sizes, old = box_sizes(data, size), head.priors(grid, size)
        new, average = kmeans_anchors(sizes, len(old))
        axis.plot(*sizes.T, ".", color=BOXES, alpha=0.2, markersize=3, markeredgewidth=0, label=f"{len(sizes)} boxes")
        for some, value, colour, what in (
            (old, average_iou(sizes, old), OLD, "of COCO"),
            (new, average, NEW, "of the data"),
        ):
            label = f"{len(some)} anchors {what}: average IoU {value:.2f}"
            axis.plot(*zip(*some, strict=True), "P", color=colour, markersize=9, markeredgecolor="white", label=label)
        axis.set(xlim=(0, size[1]), ylim=(0, size[0]), aspect="equal", xlabel="width in pixels of the network",
                 ylabel="height")  # fmt: skip
        axis.set_title(name, fontsize=9)
        axis.legend(fontsize=8, loc="upper left")
    return figure, ()


PICTURES = {"cells": cells, "detections": detections, "anchors": anchors}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=PICTURES)
    parser.add_argument("--darknet", type=Path, required=True)
    parser.add_argument("--root")
    args = parser.parse_args()
    figure, axes = PICTURES[args.name](args)
    for axis in axes:
        axis.set_axis_off()
    file = FOLDER / f"yolo_{args.name}.jpg"
    figure.savefig(file, dpi=110, pil_kwargs={"quality": 85})
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
