"""Anchors: boxes of given sizes, centred on the cells of feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from boxops.ops.backend import (
    backend,
    check_list,
    check_numbers,
    check_one_or_pair,
    check_pair,
    check_pairs,
)

Array = TypeVar("Array")


def _of_level(op: str, name: str, values: Any, count: int) -> list[Any]:
    levels = check_list(op, name, values)
    if len(levels) != count:
        raise ValueError(f"{op}: expected {name} for {count} levels, as grid_sizes has, got {len(levels)}")
    return levels


def _or_float32(like: Any) -> Any:
    return np.empty(0, np.float32) if like is None else like


def multibox_anchors(
    grid_size: tuple[int, int],
    sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    *,
    normalized: bool = True,
    like: Array | None = None,
) -> Any:
    """Anchors around every cell of a map: all sizes with the first aspect ratio, the first size with all others.

    Args:
        grid_size: ``(height, width)`` of the feature map, in cells, both >= 0.
        sizes: s1, ..., sn > 0, the square roots of the anchors' areas, as fractions of the map's height.
        aspect_ratios: r1, ..., rm > 0, height over width, as for :func:`grid_anchors`. (The source's ratios are width
            over height.)
        normalized: whether coordinates are fractions of the map's width and height, in [0, 1] inside the map, or in
            cells.
        like: a floating array or tensor; the anchors get its kind, device and dtype. None: NumPy, float32.

    Returns:
        ``[H * W * (n + m - 1), 4]`` corners: cells row by row, for each the pairs (s1, r1), ..., (sn, r1), (s1, r2),
        ..., (s1, rm). The centre of cell (y, x) is ((x + 0.5) / W, (y + 0.5) / H); a pair (s, r) is
        s * sqrt(1 / r) * H / W wide and s / sqrt(1 / r) high. Half sides are rounded once to the compute type (float32,
        or float64), then each step is, then once to the dtype.

    Raises:
        ValueError: a size or ratio is not positive and finite, a list is empty, the map is of negative size, or
            ``like`` is not floating.
        TypeError: arguments of another kind.

    Source: Zhang et al., Dive into Deep Learning, section 14.4 (``multibox_prior``).
    """
    op, like = "multibox_anchors", _or_float32(like)
    height, width = check_pair(op, "grid_size", grid_size, integers=True)
    return backend(op, like).multibox_anchors(like, height, width, sizes, aspect_ratios, normalized)


def grid_anchors(
    image_size: tuple[int, int],
    grid_sizes: Sequence[tuple[int, int]],
    sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[Sequence[float]],
    *,
    strides: Sequence[int | tuple[int, int]] | None = None,
    like: Array | None = None,
) -> Any:
    """Anchors of a feature pyramid: every size with every ratio around the cells of every level.

    They depend on the sizes alone: one call serves all images of a batch. In float32 the result is that of
    torchvision's ``AnchorGenerator`` to the bit.

    Args:
        image_size: ``(height, width)`` of the (padded) image in pixels.
        grid_sizes: ``(height, width)`` of the feature map of each level, in cells, all >= 0.
        sizes: for each level, the square roots of the anchors' areas in pixels, > 0.
        aspect_ratios: for each level, height over width, > 0, as of torchvision's ``AnchorGenerator``.
        strides: for each level, the distance between neighbouring cells in pixels, >= 1, a number or ``(y, x)``; None:
            the image's sides over the map's, rounded down.
        like: a floating array or tensor; the anchors get its kind, device and dtype. None: NumPy, float32.

    Returns:
        ``[sum of H * W * sizes * ratios, 4]`` corners in pixels: levels, cells row by row, ratios, sizes. Anchors are
        centred on their cells' upper left corners, and their half sides rounded to integers (half to even, from
        float32), both as in torchvision.

    Raises:
        ValueError: lists of different length, an empty one, a size or ratio that is not positive and finite, a stride
            below 1, an image or a map of negative size, or ``like`` is not floating.
        TypeError: arguments of another kind.

    Source: Ren et al., NeurIPS 2015, section 3.1; Lin et al., CVPR 2017, section 4.1.
    """
    op, like = "grid_anchors", _or_float32(like)
    image = check_pair(op, "image_size", image_size, integers=True)
    if min(image) < 0:
        raise ValueError(f"{op}: expected image_size = (height, width), both >= 0, got {tuple(image)}")
    grids = check_pairs(op, "grid_sizes", grid_sizes, integers=True)
    if not grids:
        raise ValueError(f"{op}: expected at least one level, got none")
    levels = len(grids) // 2
    level_sizes = [check_numbers(op, "sizes", some) for some in _of_level(op, "sizes", sizes, levels)]
    level_ratios = [
        check_numbers(op, "aspect_ratios", some) for some in _of_level(op, "aspect_ratios", aspect_ratios, levels)
    ]
    if strides is None:
        steps = [side // (cells or 1) for side, cells in zip(image * levels, grids, strict=True)]
    else:
        steps = [
            side
            for stride in _of_level(op, "strides", strides, levels)
            for side in check_one_or_pair(op, "strides", stride, "(y, x)", integers=True)
        ]
    return backend(op, like).grid_anchors(
        like,
        grids,
        steps,
        [size for some in level_sizes for size in some],
        [len(some) for some in level_sizes],
        [ratio for some in level_ratios for ratio in some],
        [len(some) for some in level_ratios],
    )


def cell_anchors(
    grid_size: tuple[int, int],
    priors: Sequence[tuple[float, float]],
    stride: float | tuple[float, float],
    *,
    like: Array | None = None,
) -> Any:
    """YOLO's anchors: its prior boxes, centred on every cell of a grid.

    Args:
        grid_size: ``(height, width)`` of the grid, in cells, both >= 0.
        priors: ``(width, height)`` of each prior, > 0, in the boxes' unit. YOLO v1 has one prior, the whole image.
        stride: a cell's side in that unit, > 0; a number or ``(y, x)``.
        like: a floating array or tensor; the anchors get its kind, device and dtype. None: NumPy, float32.

    Returns:
        ``[H * W * P, 4]`` corners: cells row by row, priors inner, around ((x + 0.5) * stride, (y + 0.5) * stride).

    Raises:
        ValueError: a prior or the stride is not positive and finite, there are no priors, the grid is of negative size,
            or ``like`` is not floating.
        TypeError: arguments of another kind.

    Source: Redmon, Farhadi, CVPR 2017, section 2.
    """
    op, like = "cell_anchors", _or_float32(like)
    height, width = check_pair(op, "grid_size", grid_size, integers=True)
    sides, (y, x) = (
        check_pairs(op, "priors", priors, "(width, height)"),
        check_one_or_pair(op, "stride", stride, "(y, x)"),
    )
    return backend(op, like).cell_anchors(like, height, width, sides, y, x)
