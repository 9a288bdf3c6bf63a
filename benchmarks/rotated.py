"""Rotated boxes: bound by arithmetic where they overlap, by the output where few do.

mmcv and detectron2, which have these ops, install with no current torch. The rivals are what one writes without them:
shapely (GEOS), and its STR-tree for NMS.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import label
from .harness import Arrays, Case, numpy, some_rows, whole
from .machine import rival
from .nms import IOU, greedy

shapely = rival("shapely")


def crowd(n: int, side: float, seed: int = 0) -> np.ndarray:
    """n boxes of 8 to 200 px at any angle, centres on a square of `side` px, all uniform."""
    rng = np.random.default_rng(seed)
    parts = rng.uniform(0, side, (n, 2)), rng.uniform(8, 200, (n, 2)), rng.uniform(-180, 180, (n, 1))
    return np.concatenate(parts, axis=1).astype(np.float32)


def two(n: int, side: float) -> Arrays:
    return crowd(n, side, 1), crowd(n, side, 2)


def neighbours(n: int) -> Arrays:
    """Predictions a little off their targets."""
    target = crowd(n, 1000.0)
    noise = np.random.default_rng(2).normal(0, [4, 4, 4, 4, 5], target.shape)
    return (target + noise).astype(np.float32), target


def scored(n: int, side: float) -> Arrays:
    return crowd(n, side), np.random.default_rng(1).random(n, np.float32)


def polygons(boxes: Any) -> Any:
    boxes = numpy(boxes).astype(np.float64)
    cx, cy, w, h, angle = np.moveaxis(boxes, -1, 0)
    sin, cos = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    corners = [(x * w / 2, y * h / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return shapely.polygons(
        np.stack([np.stack([cx + x * cos + y * sin, cy - x * sin + y * cos], -1) for x, y in corners], -2)
    )


def shapely_iou(first: Any, second: Any) -> np.ndarray:
    area = shapely.area(shapely.intersection(first, second))
    return area / (shapely.area(first) + shapely.area(second) - area)


def shapely_pairwise(boxes1: Any, boxes2: Any) -> np.ndarray:
    return shapely_iou(polygons(boxes1)[:, None], polygons(boxes2)[None])


def shapely_paired(boxes1: Any, boxes2: Any) -> np.ndarray:
    return shapely_iou(polygons(boxes1), polygons(boxes2))


def shapely_nms(boxes: Any, scores: Any) -> np.ndarray:
    """The boxes by falling score, each against those kept among its neighbours in an STR-tree."""
    shapes, order = polygons(boxes), np.argsort(-numpy(scores), kind="stable")
    tree, kept = shapely.STRtree(shapes), np.zeros(len(shapes), bool)
    for i in order:
        near = tree.query(shapes[i])
        near = near[kept[near]]
        kept[i] = not (shapely_iou(shapes[i], shapes[near]) > IOU).any()
    return order[kept[order]]


def kept_first(some: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return reference.rotated_box_iou(kept, some).T


by_the_rule = partial(greedy, count=300, iou=kept_first)


def pairwise(n: int, side: float, goal: float) -> Case:
    return Case(
        "rotated_box_iou",
        "1 x 1 box" if n == 1 else f"{n:,} x {n:,} on {side:,.0f} px",
        n,
        make=partial(two, n, side),
        ours=lambda boxes1, boxes2: boxops.rotated_box_iou(boxes1, boxes2),
        reference=lambda boxes1, boxes2: reference.rotated_box_iou(boxes1, boxes2),
        rivals={"shapely": shapely_pairwise} if n <= 300 else {},
        check=whole if n <= 1000 else some_rows,
        goal=("shapely", goal),
        limit="fill",
        heavy=n > 100,
        variant=f"on {side:,.0f} px",
    )


def suppression(n: int, side: float, goal: float) -> Case:
    return Case(
        "rotated_nms",
        label(n) if n == 1 else f"{n:,} on {side:,.0f} px",
        n,
        make=partial(scored, n, side),
        ours=lambda boxes, scores: boxops.rotated_nms(boxes, scores, IOU),
        reference=lambda boxes, scores: reference.rotated_nms(boxes, scores, IOU),
        rivals={"shapely": shapely_nms} if n <= 5000 else {},
        check=whole if n <= 1000 else by_the_rule,
        goal=("shapely", goal),
        heavy=n > 1000,
        variant=f"on {side:,.0f} px",
    )


def batched(n: int) -> Case:
    return Case(
        "batched_rotated_nms",
        label(n) if n == 1 else f"{n:,} in 15 classes",
        n,
        make=lambda: (*scored(n, 1000.0), np.random.default_rng(2).integers(0, 15, n)),
        ours=lambda boxes, scores, idxs: boxops.batched_rotated_nms(boxes, scores, idxs, IOU),
        reference=lambda boxes, scores, idxs: reference.batched_rotated_nms(boxes, scores, idxs, IOU),
        check=whole if n == 1 else by_the_rule,
        goal=("shapely", 1),
        heavy=n > 1000,
    )


CASES = [
    pairwise(1, 1000.0, 1),
    pairwise(100, 1000.0, 20),
    pairwise(300, 50.0, 500),
    pairwise(1000, 1000.0, 1),
    pairwise(5000, 10_000.0, 1),
    Case(
        "rotated_box_iou",
        "100,000 pairs",
        100_000,
        make=partial(neighbours, 100_000),
        ours=lambda boxes1, boxes2: boxops.rotated_box_iou(boxes1, boxes2, paired=True),
        reference=lambda boxes1, boxes2: reference.rotated_box_iou(boxes1, boxes2, paired=True),
        rivals={"shapely": shapely_paired},
        check=whole,
        goal=("shapely", 50),
        heavy=True,
        variant="paired",
    ),
    suppression(1, 1000.0, 1),
    suppression(1000, 1000.0, 50),
    suppression(5000, 1000.0, 50),
    suppression(20_000, 1000.0, 1),
    suppression(100_000, 10_000.0, 1),
    batched(1),
    batched(20_000),
]
