"""Anchors of a pyramid, of a feature map's pixels, of a YOLO grid: nothing is read, so filling memory is the limit."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import label
from .case import Arrays, Case, whole
from .machine import rival

torch = rival("torch")
anchor_utils = rival("torchvision.models.detection.anchor_utils")
image_list = rival("torchvision.models.detection.image_list")

IMAGE = (800, 1333)
PYRAMID = [(200, 334), (100, 167), (50, 84), (25, 42), (13, 21)]
SIZES = ((32,), (64,), (128,), (256,), (512,))
RATIOS = ((0.5, 1.0, 2.0),) * 5
SCALES, SHAPES = (0.75, 0.5, 0.25), (1.0, 2.0, 0.5)
PRIORS = ((10, 13), (16, 30), (33, 23))


def like() -> Arrays:
    return (np.zeros(1, np.float32),)


@cache
def generator(sizes: Any, ratios: Any) -> Any:
    return anchor_utils.AnchorGenerator(sizes, ratios)


def torchvision_grid(grids: Any, sizes: Any, ratios: Any, like: Any) -> Any:
    images = image_list.ImageList(like.expand(1, 1, *IMAGE), [IMAGE])
    return generator(sizes, ratios)(images, [like.expand(1, 1, *grid) for grid in grids])[0]


def grid(grids: Any, sizes: Any, ratios: Any, goal: float) -> Case:
    n = sum(h * w * len(s) * len(r) for (h, w), s, r in zip(grids, sizes, ratios, strict=True))
    return Case(
        "grid_anchors",
        label(n, "anchor") if n == 1 else f"{len(grids)} levels, {n:,}",
        n,
        make=like,
        ours=lambda x: boxops.grid_anchors(IMAGE, grids, sizes, ratios, like=x),
        reference=lambda x: reference.grid_anchors(IMAGE, grids, sizes, ratios, like=x),
        rivals={"torchvision": partial(torchvision_grid, grids, sizes, ratios)},
        check=whole,
        goal=("torchvision", goal),
        limit="fill",
    )


def book(height: int, width: int, like: Any) -> Any:
    """Dive into Deep Learning's multibox_prior, whose ratios are width over height."""
    on = {"device": like.device, "dtype": like.dtype}
    scales, shapes = torch.tensor(SCALES, **on), torch.tensor([1 / shape for shape in SHAPES], **on)
    y, x = torch.meshgrid(
        (torch.arange(height, **on) + 0.5) / height, (torch.arange(width, **on) + 0.5) / width, indexing="ij"
    )
    w = torch.cat((scales * shapes[0].sqrt(), scales[0] * shapes[1:].sqrt())) * height / width
    h = torch.cat((scales / shapes[0].sqrt(), scales[0] / shapes[1:].sqrt()))
    around = torch.stack((-w, -h, w, h)).T.repeat(height * width, 1) / 2
    x, y = x.reshape(-1), y.reshape(-1)
    return torch.stack((x, y, x, y), dim=1).repeat_interleave(len(w), dim=0) + around


def multibox(height: int, width: int, goal: float) -> Case:
    n = height * width * (len(SCALES) + len(SHAPES) - 1)
    return Case(
        "multibox_anchors",
        f"{height} x {width}, {n:,}",
        n,
        make=like,
        ours=lambda x: boxops.multibox_anchors((height, width), SCALES, SHAPES, like=x),
        reference=lambda x: reference.multibox_anchors((height, width), SCALES, SHAPES, like=x),
        rivals={"torch": partial(book, height, width)},
        check=whole,
        goal=("torch", goal),
        limit="fill",
    )


def eager_cells(side: int, like: Any) -> Any:
    at = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) * 8
    y, x = torch.meshgrid(at, at, indexing="ij")
    half = torch.tensor(PRIORS, device=like.device, dtype=like.dtype) / 2
    centre = torch.stack((x, y), dim=-1)[:, :, None]
    return torch.cat((centre - half, centre + half), dim=-1).reshape(-1, 4)


def cells(side: int) -> Case:
    n = side * side * len(PRIORS)
    return Case(
        "cell_anchors",
        f"{side} x {side}, {n:,}",
        n,
        make=like,
        ours=lambda x: boxops.cell_anchors((side, side), PRIORS, 8, like=x),
        reference=lambda x: reference.cell_anchors((side, side), PRIORS, 8, like=x),
        rivals={"torch": partial(eager_cells, side)},
        check=whole,
        goal=("torch", 1.0),
        limit="fill",
    )


CASES = [
    grid([(1, 1)], ((32,),), ((1.0,),), 1),
    grid(PYRAMID, SIZES, RATIOS, 5),
    multibox(1, 1, 1),
    multibox(200, 334, 5),
    cells(1),
    cells(76),
]
