"""Elementwise box operations."""

import numpy as np

from boxops.reference.common import area_of, compute, compute_type, elementwise, from_xyxy, quiet, to_columns, to_xyxy


@elementwise
def box_area(boxes, fmt="xyxy"):
    return area_of(to_columns(boxes, fmt))


@elementwise
def box_convert(boxes, in_fmt, out_fmt):
    boxes = np.asarray(boxes)
    columns = np.moveaxis(compute(boxes), -1, 0)
    if in_fmt != out_fmt:
        columns = from_xyxy(to_xyxy(columns, in_fmt), out_fmt)
    is_integer = np.issubdtype(boxes.dtype, np.integer)
    return np.stack(columns, axis=-1).astype(compute_type(boxes) if is_integer else boxes.dtype)


def clip_boxes_to_image(boxes, size):
    boxes = np.asarray(boxes)
    height, width = size
    largest = np.iinfo(boxes.dtype).max if np.issubdtype(boxes.dtype, np.integer) else np.inf
    limits = np.array([min(limit, largest) for limit in (width, height, width, height)])
    return np.clip(boxes, 0, limits.astype(boxes.dtype))


@quiet
def remove_small_boxes(boxes, min_size):
    x1, y1, x2, y2 = columns = to_columns(boxes)
    min_size = columns.dtype.type(min_size)
    # Sizes are not clamped here, as in torchvision: an inverted box is smaller than 0. NaN is never >=.
    return np.flatnonzero((x2 - x1 >= min_size) & (y2 - y1 >= min_size))
