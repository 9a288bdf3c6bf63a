"""Rotated boxes: their IoU, and non-maximum suppression by it."""

from __future__ import annotations

from typing import TypeVar

from boxops.ops.backend import backend

Array = TypeVar("Array")


def rotated_box_iou(boxes1: Array, boxes2: Array, *, paired: bool = False) -> Array:
    """Intersection over union of rotated boxes.

    A box is centre x, centre y, width, height and angle in degrees, counter-clockwise as seen in an image with y
    pointing down: detectron2's boxes, and torchvision's ``"cxcywhr"``. The axis along its width is (cos, -sin).

    Args:
        boxes1, boxes2: ``[..., N, 5]`` and ``[..., M, 5]``, or with ``paired`` both ``[..., 5]``; each of any real
            dtype and strides, centres and sizes in one unit, any angles. Leading dims broadcast.
        paired: compare box i with box i instead of all with all.

    Returns:
        ``[..., N, M]``, paired ``[...]``, in the compute type of :func:`box_iou`, in [0, 1]: exactly 0 for boxes apart
        and 1 for a box with itself; elsewhere exact up to rounding, about 1e-6 (1e-14 for float64), more for sides that
        differ by a factor above 100. Negative sizes count as 0. A box has IoU 0 with everything if one of its numbers
        is not finite or within a factor of 8 of overflow, or if its area is 0 or subnormal; an area that overflows does
        no harm. All backends compute the same bits; swapping boxes1 and boxes2 may change the last ones. Not
        differentiable: asking for the gradient raises, and so does a tangent.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, or devices differ.
        TypeError: the two are not arrays of one kind.

    Source: the area is computed by Green's theorem on the clamped outline (``csrc/core/common/rotated_geometry.h``).
    """
    return backend("rotated_box_iou", boxes1, boxes2).rotated_box_iou(boxes1, boxes2, paired)


def rotated_nms(boxes: Array, scores: Array, iou_threshold: float) -> Array:
    """Greedy non-maximum suppression of rotated boxes.

    Boxes are taken by descending score; a box is dropped when its IoU with a box kept before exceeds the threshold. The
    IoU is that of :func:`rotated_box_iou`, with the box kept before as the first.

    Args:
        boxes: ``[N, 5]`` as for :func:`rotated_box_iou`.
        scores: ``[N]``, any real dtype.
        iou_threshold: >= 0; a box is suppressed when IoU > iou_threshold, both in the boxes' compute type, as for
            :func:`nms`.

    Returns:
        int64 ``[K]``: indices of the kept boxes by descending score. Equal scores go by ascending index, NaN scores
        come last. Boxes without area and boxes with NaN or infinite numbers overlap nothing and are kept. On CUDA the
        host waits for K.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, devices differ, or the threshold is negative or NaN.
        TypeError: boxes and scores are not arrays of one kind.
    """
    return backend("rotated_nms", boxes, scores).rotated_nms(boxes, scores, iou_threshold)


def batched_rotated_nms(boxes: Array, scores: Array, idxs: Array, iou_threshold: float) -> Array:
    """Non-maximum suppression of rotated boxes inside each group: of one class, one image, one level.

    Args:
        boxes, scores, iou_threshold: as for :func:`rotated_nms`.
        idxs: ``[N]``, the group of each box, as for :func:`batched_nms`.

    Returns:
        int64 ``[K]``: indices of the kept boxes of all groups by descending score, ties by ascending index.

    Raises:
        ValueError, TypeError: as :func:`rotated_nms`, and for ``idxs`` as :func:`batched_nms`.
    """
    return backend("batched_rotated_nms", boxes, scores, idxs).batched_rotated_nms(boxes, scores, idxs, iou_threshold)
