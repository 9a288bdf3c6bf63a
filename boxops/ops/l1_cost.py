"""The L1 cost of all boxes with all boxes."""

from __future__ import annotations

from typing import TypeVar

from boxops.ops.backend import backend

Array = TypeVar("Array")


def box_l1_cost(boxes1: Array, boxes2: Array) -> Array:
    """L1 distance of all boxes to all boxes: the sum of the absolute differences of their coordinates.

    Args:
        boxes1, boxes2: ``[..., N, 4]`` and ``[..., M, 4]`` in one format, any real dtype and strides, coordinates in
            one unit. Leading dims broadcast.

    Returns:
        ``[..., N, M]`` in the compute type: float64 if either is float64 or has integers of 32 bits or more, else
        float32. A NaN coordinate gives NaN. Differentiable for tensors, in reverse and forward mode; equal
        coordinates pass no gradient.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, or devices differ.
        TypeError: the two are not arrays of one kind.
    """
    return backend("box_l1_cost", boxes1, boxes2).box_l1_cost(boxes1, boxes2)
