"""Elementwise box operations: area, format, clipping, size filter."""

from __future__ import annotations

from typing import Any, TypeVar

from numpy import ndarray

from boxops.ops.backend import backend, check_pair, numpy_ops

Array = TypeVar("Array")


def box_area(boxes: Array, fmt: str = "xyxy") -> Array:
    """Areas of boxes.

    Args:
        boxes: ``[..., 4]``, any real dtype and strides, coordinates in any unit.
        fmt: ``"xyxy"`` (corners), ``"xywh"`` or ``"cxcywh"``.

    Returns:
        ``[...]`` in the compute type: float32, or float64 for float64 boxes and integers of 32 bits or more (of which
        those beyond 2^53 are rounded). Width and height clamp at 0, so an inverted box has area 0; a box with a NaN
        coordinate has area NaN. Differentiable for tensors, in reverse and forward mode; a width or height at 0 or
        below passes no gradient, as torch's clamp since 2.14.

    Raises:
        ValueError: the last dim is not 4, the dtype is not real, or ``fmt`` is unknown.
    """
    ops = numpy_ops if type(boxes) is ndarray else backend("box_area", boxes)
    return ops.box_area(boxes, fmt)


def box_convert(boxes: Array, in_fmt: str, out_fmt: str) -> Array:
    """Converts boxes between formats.

    Args:
        boxes: ``[..., 4]``, any real dtype and strides.
        in_fmt, out_fmt: ``"xyxy"`` (corners), ``"xywh"`` (x1, y1, width, height) or ``"cxcywh"`` (centre x, centre
            y, width, height).

    Returns:
        ``[..., 4]``, a new array. Floating dtypes are kept (float16 and bfloat16 compute in float32 and round once);
        integers give the compute type of :func:`box_area`. Differentiable for tensors, in reverse and forward mode.

    Raises:
        ValueError: the last dim is not 4, the dtype is not real, or a format is unknown.
    """
    ops = numpy_ops if type(boxes) is ndarray else backend("box_convert", boxes)
    return ops.box_convert(boxes, in_fmt, out_fmt)


def clip_boxes_to_image(boxes: Array, size: tuple[int, int]) -> Array:
    """Clips boxes into an image.

    Args:
        boxes: ``[..., 4]`` corners, any real dtype and strides.
        size: ``(height, width)`` of the image, in the boxes' unit, both >= 0.

    Returns:
        ``[..., 4]`` of the boxes' dtype: x in ``[0, width]``, y in ``[0, height]``; NaN stays NaN. Integers are
        clipped as integers. Differentiable for tensors, in reverse and forward mode; a coordinate on the border or
        beyond passes no gradient, as torch's clamp since 2.14.

    Raises:
        ValueError: the last dim is not 4, the dtype is not real, or a size is negative or NaN.
    """
    op = "clip_boxes_to_image"
    height, width = check_pair(op, "size", size)
    return backend(op, boxes).clip_boxes_to_image(boxes, height, width)


def remove_small_boxes(boxes: Array, min_size: float) -> Any:
    """Indices of the boxes that are large enough.

    Args:
        boxes: ``[N, 4]`` corners, any real dtype and strides.
        min_size: smallest width and height to keep, in the boxes' unit; compared in the compute type, as of
            :func:`box_area`.

    Returns:
        int64 ``[K]``, ascending: the boxes with width >= min_size and height >= min_size. A NaN box is never kept. On
        CUDA the host waits for K.

    Raises:
        ValueError: boxes are not ``[N, 4]``, the dtype is not real, or ``min_size`` is NaN.
    """
    ops = numpy_ops if type(boxes) is ndarray else backend("remove_small_boxes", boxes)
    return ops.remove_small_boxes(boxes, min_size)
