"""Codes of boxes and back: two arrays [N, 4] in, one out, and a few exps or logs; bound by memory once N is large."""

from __future__ import annotations

from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import IMAGE, crowd, label
from .case import Arrays, Case, whole
from .machine import rival

torch = rival("torch")
tv = rival("torchvision.ops")
coders = rival("torchvision.models.detection._utils")

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
CLOSE = 2e-5  # exp and log differ in their last bits, and a corner is a difference
SIZES = (1, 1_000, 20_000, 200_000)


def coder() -> Any:
    return coders.BoxCoder(WEIGHTS)


def coded(n: int, classes: int = 0) -> Arrays:
    shape = (n, classes, 4) if classes else (n, 4)
    anchors = crowd(n)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32), anchors[:, None] if classes else anchors


def case(op: str, name: str, n: int, make: Any, ours: Any, slow: Any, goal: float, **rivals: Any) -> Case:
    return Case(op, name, n, make=make, ours=ours, reference=slow, rivals=rivals, check=whole, tolerance=CLOSE,
                goal=("torchvision", goal))  # fmt: skip


def encode(n: int) -> Case:
    return case(
        "encode_boxes",
        label(n),
        n,
        lambda: (crowd(n), crowd(n, seed=1)),
        lambda boxes, anchors: boxops.encode_boxes(boxes, anchors, WEIGHTS),
        lambda boxes, anchors: reference.encode_boxes(boxes, anchors, WEIGHTS),
        1 if n < 200_000 else 5,
        torchvision=lambda boxes, anchors: coder().encode_single(boxes, anchors),
    )


def decode(n: int) -> Case:
    return case(
        "decode_boxes",
        label(n),
        n,
        lambda: coded(n),
        lambda deltas, anchors: boxops.decode_boxes(deltas, anchors, WEIGHTS),
        lambda deltas, anchors: reference.decode_boxes(deltas, anchors, WEIGHTS),
        1 if n < 200_000 else 5,
        torchvision=lambda deltas, anchors: coder().decode_single(deltas, anchors),
    )


def torchvision_clipped(deltas: Any, anchors: Any) -> Any:
    boxes = coder().decode_single(deltas.flatten(1), anchors[:, 0])
    return tv.clip_boxes_to_image(boxes.view(deltas.shape), IMAGE)


def of_classes(n: int, classes: int) -> Case:
    return case(
        "decode_boxes",
        f"{n:,} x {classes} classes, clipped",
        n * classes,
        lambda: coded(n, classes),
        lambda deltas, anchors: boxops.decode_boxes(deltas, anchors, WEIGHTS, image_size=IMAGE),
        lambda deltas, anchors: reference.decode_boxes(deltas, anchors, WEIGHTS, image_size=IMAGE),
        1,
        torchvision=torchvision_clipped,
    )


def eager_yolo(deltas: Any, anchors: Any) -> Any:
    centre, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    middle, half = centre + (deltas[:, :2].sigmoid() - 0.5) * 8, deltas[:, 2:].exp() * size / 2
    return torch.cat((middle - half, middle + half), dim=1)


def yolo(side: int) -> Case:
    options: dict[str, Any] = {"coding": "yolo_v3", "stride": 8, "clip": None}

    def make() -> Arrays:
        anchors = reference.cell_anchors((side, side), ((10, 13), (16, 30), (33, 23)), 8)
        return np.random.default_rng(1).normal(size=anchors.shape).astype(np.float32), anchors

    n = side * side * 3
    return Case(
        "decode_boxes",
        f"YOLO v3, {n:,}",
        n,
        make=make,
        ours=lambda deltas, anchors: boxops.decode_boxes(deltas, anchors, **options),
        reference=lambda deltas, anchors: reference.decode_boxes(deltas, anchors, **options),
        rivals={"torch": eager_yolo},
        check=whole,
        tolerance=CLOSE,
        goal=("torch", 1.0),
        variant="YOLO v3",
    )


CASES = [*map(encode, SIZES), *map(decode, SIZES), of_classes(1_000, 91), yolo(76)]
