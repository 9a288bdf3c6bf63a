"""Masks in the image: bound by writing, or reading, arrays of the image's size."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import crowd, label
from .case import Arrays, Case, whole
from .machine import rival

torch = rival("torch")
tv = rival("torchvision.ops")
pb = rival("powerboxes")
heads = rival("torchvision.models.detection.roi_heads")

IMAGE = (800, 1333)


def small_masks(n: int) -> Arrays:
    return np.random.default_rng(0).random((n, 1, 28, 28), np.float32), crowd(n, 700.0)


def image_masks(n: int, size: tuple[int, int]) -> Arrays:
    masks, rng = np.zeros((n, *size), bool), np.random.default_rng(0)
    for mask, y, x in zip(masks, rng.integers(0, size[0] // 2, n), rng.integers(0, size[1] // 2, n), strict=True):
        mask[y : y + size[0] // 3, x : x + size[1] // 4] = True
    return (masks,)


def paste(n: int, size: tuple[int, int], threshold: float | None = None) -> Case:
    def theirs(masks: Any, boxes: Any) -> Any:
        pasted = heads.paste_masks_in_image(masks, boxes, size)
        return pasted if threshold is None else pasted > threshold

    return Case(
        "paste_masks",
        f"{label(n) if n == 1 else f'{n:,}'} to {size[0]} x {size[1]}{', bool' * (threshold is not None)}",
        n,
        make=partial(small_masks, n),
        ours=lambda masks, boxes: boxops.paste_masks(masks, boxes, size, threshold=threshold),
        reference=lambda masks, boxes: reference.paste_masks(masks, boxes, size, threshold=threshold),
        rivals={"torchvision": theirs},
        check=whole,
        limit="fill",
        graph=True,
        heavy=n > 10,
        variant="bool" if threshold is not None else "",
    )


def around(n: int, size: tuple[int, int]) -> Case:
    return Case(
        "masks_to_boxes",
        f"{label(n) if n == 1 else f'{n:,}'} of {size[0]} x {size[1]}",
        n,
        make=partial(image_masks, n, size),
        ours=boxops.masks_to_boxes,
        reference=reference.masks_to_boxes,
        rivals={
            "torchvision": lambda masks: tv.masks_to_boxes(masks),
            "powerboxes": lambda masks: pb.masks_to_boxes(masks),
        },
        check=whole,
        graph=True,
        heavy=n > 10,
    )


CASES = [
    paste(1, (60, 80)),
    paste(1, IMAGE),
    paste(100, IMAGE),
    paste(100, IMAGE, 0.5),
    around(1, (60, 80)),
    around(10, IMAGE),
    around(100, IMAGE),
]
