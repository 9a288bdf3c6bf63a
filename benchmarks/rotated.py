"""Rotated boxes: bound by arithmetic where they overlap, by the output where few do.

mmcv and detectron2, which have these ops, install with no current torch. The rivals are torchvision's operator,
powerboxes with its R-tree for NMS, and shapely (GEOS), which has a geometry of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import OBJECTS, label
from .case import Arrays, Case, Rival, numpy, sets, some_rows, whole
from .machine import rival
from .nms import AROUND, CROWDS, IOU, greedy

tv = rival("torchvision.ops")
pb = rival("powerboxes")
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


def around_objects(n: int) -> Arrays:
    """What a detector puts out: off the objects' centres and sides by 12 % of the sides, and by 5 degrees."""
    objects = crowd(OBJECTS, 1000.0)[np.arange(n) % OBJECTS]
    noise = np.random.default_rng(2).normal(0, 1, objects.shape)
    noise[:, :4] *= 0.12 * np.tile(objects[:, 2:4], 2)
    boxes = objects + noise * [1, 1, 1, 1, 5]
    boxes[:, 2:4] = np.maximum(boxes[:, 2:4], 1)
    return boxes.astype(np.float32), np.random.default_rng(1).random(n, np.float32)


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


def turned(*arrays: Any) -> Any:
    """powerboxes takes float64, and its angles turn the other way."""
    floats = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    return tuple(a * [1, 1, 1, 1, -1] if a.ndim == 2 else a for a in floats)


def powerboxes_iou(boxes1: Any, boxes2: Any) -> Any:
    return pb.parallel_rotated_iou_distance(boxes1, boxes2)


def powerboxes_nms(boxes: Any, scores: Any) -> Any:
    return pb.rtree_rotated_nms(boxes, scores, IOU, 0.0)


def by_class(boxes: Any, scores: Any, classes: Any) -> Any:
    """What one writes without batches."""
    groups = (np.flatnonzero(classes == c) for c in np.unique(classes))
    kept = np.concatenate([own[powerboxes_nms(boxes[own], scores[own])] for own in groups])
    return kept[np.argsort(-scores[kept], kind="stable")]


def kept_first(some: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return reference.rotated_box_iou(kept, some).T


by_the_rule = partial(greedy, count=300, iou=kept_first)


def pairwise(n: int, side: float, goal: tuple[str, float] = ("powerboxes", 1.0)) -> Case:
    rivals: dict[str, Any] = {
        "powerboxes": Rival(powerboxes_iou, given=turned, answer=lambda theirs, ours: (1 - theirs, ours)),
    }
    if n <= 1000:  # then it takes 3 s
        rivals["torchvision"] = lambda boxes1, boxes2: tv.box_iou(boxes1, boxes2, fmt="cxcywhr")
    if n <= 100:
        rivals["shapely"] = shapely_pairwise
    return Case(
        "rotated_box_iou",
        "1 x 1 box" if n == 1 else f"{n:,} x {n:,} on {side:,.0f} px",
        n,
        make=partial(two, n, side),
        ours=lambda boxes1, boxes2: boxops.rotated_box_iou(boxes1, boxes2),
        reference=lambda boxes1, boxes2: reference.rotated_box_iou(boxes1, boxes2),
        rivals=rivals,
        check=whole if n <= 1000 else some_rows,
        goal=goal,
        limit="fill",
        heavy=n > 100,
        variant=f"on {side:,.0f} px",
    )


def suppression(n: int, side: float, goal: float, around: bool = False) -> Case:
    scene = AROUND if around else f"on {side:,.0f} px"
    return Case(
        "rotated_nms",
        label(n) if n == 1 else f"{n:,} {scene}",
        n,
        make=partial(around_objects, n) if around else partial(scored, n, side),
        ours=lambda boxes, scores: boxops.rotated_nms(boxes, scores, IOU),
        reference=lambda boxes, scores: reference.rotated_nms(boxes, scores, IOU),
        rivals={"powerboxes": Rival(powerboxes_nms, given=turned, answer=sets)},
        check=whole if n <= 1000 else by_the_rule,
        goal=("powerboxes", goal),
        heavy=n > 1000,
        variant=scene,
    )


def batched(n: int) -> Case:
    return Case(
        "batched_rotated_nms",
        label(n) if n == 1 else f"{n:,} in 15 classes",
        n,
        make=lambda: (*scored(n, 1000.0), np.random.default_rng(2).integers(0, 15, n)),
        ours=lambda boxes, scores, idxs: boxops.batched_rotated_nms(boxes, scores, idxs, IOU),
        reference=lambda boxes, scores, idxs: reference.batched_rotated_nms(boxes, scores, idxs, IOU),
        rivals={"powerboxes": Rival(by_class, given=turned, answer=sets)},
        check=whole if n == 1 else by_the_rule,
        goal=("powerboxes", 1.0),
        heavy=n > 1000,
    )


CASES = [
    pairwise(1, 1000.0, ("torchvision", 1.0)),
    pairwise(100, 1000.0),
    pairwise(300, 50.0, ("torchvision", 50.0)),
    pairwise(1000, 1000.0, ("torchvision", 50.0)),
    pairwise(5000, 10_000.0),
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
    suppression(1000, 1000.0, 5),
    suppression(5000, 1000.0, 5),
    suppression(20_000, 1000.0, 5),
    suppression(100_000, 10_000.0, 1),
    *(suppression(n, 1000.0, 5, around=True) for n in CROWDS),
    batched(1),
    batched(20_000),
]
