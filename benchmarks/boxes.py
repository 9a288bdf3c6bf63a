"""Areas, formats, clipping, small boxes: one pass over [N, 4], bound by memory once N is large."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .case import Arrays, Case, whole
from .machine import rival

tv = rival("torchvision.ops")
pb = rival("powerboxes")

SIZES = (1, 1_000, 1_000_000)
IMAGE = (800, 900)  # height and width: the border cuts some of the boxes


def crowd(n: int, side: float = 1000.0, seed: int = 0) -> np.ndarray:
    """n boxes of 8 to 200 px, centres on a square of `side` px, all uniform."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(8, 200, (n, 2))
    centres = rng.uniform(0, side, (n, 2))
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)


OBJECTS = 60


def around(n: int, objects: int = OBJECTS, side: float = 1000.0, seed: int = 0) -> np.ndarray:
    """n boxes as a detector puts them out: about a crowd's objects, corners off by 12 % of their sides."""
    corners = crowd(objects, side)[np.arange(n) % objects]
    sizes = np.tile(corners[:, 2:] - corners[:, :2], 2)
    return (corners + np.random.default_rng(seed + 1).normal(0, 0.12, corners.shape) * sizes).astype(np.float32)


def one(n: int) -> Arrays:
    return (crowd(n),)


def label(n: int, unit: str = "box") -> str:
    return f"1 {unit}" if n == 1 else f"{n:,}"


def cases(op: str, ours: Callable[..., Any], slow: Callable[..., Any], **rivals: Callable[..., Any]) -> list[Case]:
    return [
        Case(op, label(n), n, make=partial(one, n), ours=ours, reference=slow, rivals=rivals, check=whole)
        for n in SIZES
    ]


CASES = [
    *cases(
        "box_area",
        lambda boxes: boxops.box_area(boxes),
        lambda boxes: reference.box_area(boxes),
        torchvision=lambda boxes: tv.box_area(boxes),
        powerboxes=lambda boxes: pb.boxes_areas(boxes),
    ),
    *cases(
        "box_convert",
        lambda boxes: boxops.box_convert(boxes, "xyxy", "cxcywh"),
        lambda boxes: reference.box_convert(boxes, "xyxy", "cxcywh"),
        torchvision=lambda boxes: tv.box_convert(boxes, "xyxy", "cxcywh"),
        powerboxes=lambda boxes: pb.box_convert(boxes, "xyxy", "cxcywh"),
    ),
    *cases(
        "clip_boxes_to_image",
        lambda boxes: boxops.clip_boxes_to_image(boxes, IMAGE),
        lambda boxes: reference.clip_boxes_to_image(boxes, IMAGE),
        torchvision=lambda boxes: tv.clip_boxes_to_image(boxes, IMAGE),
    ),
    *cases(
        "remove_small_boxes",
        lambda boxes: boxops.remove_small_boxes(boxes, 32.0),
        lambda boxes: reference.remove_small_boxes(boxes, 32.0),
        torchvision=lambda boxes: tv.remove_small_boxes(boxes, 32.0),
    ),
]
