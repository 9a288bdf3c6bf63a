"""Matching of anchors to ground truth: by the largest IoU, and greedily one to one."""

from __future__ import annotations

from typing import TypeVar

from boxops.ops.backend import backend

Array = TypeVar("Array")


def match_max_iou(
    anchors: Array,
    gt_boxes: Array,
    high: float,
    low: float | None = None,
    allow_low_quality: bool = False,
    *,
    offsets: Array | None = None,
    ignore_boxes: Array | None = None,
    ignore_offsets: Array | None = None,
    ignore_threshold: float = 0.5,
) -> tuple[Array, Array]:
    """Matches every anchor to the ground truth box with which it has the largest IoU.

    The result is that of torchvision's ``box_iou`` and ``Matcher(high, low, allow_low_quality)``, without the matrix
    in between: memory is O(A + G).

    Args:
        anchors: ``[A, 4]`` corners, any real dtype and strides, coordinates in any unit; with ``offsets`` shared by
            all images, or ``[B, A, 4]``.
        gt_boxes: ``[G, 4]``, any real dtype; with ``offsets`` those of all images, one after another.
        high: an anchor is matched where IoU >= high, in the compute type: float64 if any boxes are float64 or have
            integers of 32 bits or more (of which those beyond 2^53 are rounded), else float32.
        low: <= high, by default equal to it; an anchor lies between where low <= IoU < high.
        allow_low_quality: also match every anchor whose IoU with some box is the largest that box has with any
            anchor, equals included, each to its own best box. As in torchvision, a box that no anchor overlaps
            has the largest IoU 0 with all anchors, so that in its image all anchors are matched.
        offsets: integers ``[B + 1]``, ascending from 0 to G: image b has the boxes offsets[b] to offsets[b + 1].
        ignore_boxes: ``[C, 4]``, any real dtype, COCO's crowds: an anchor that would be -1 becomes -2
            where intersection / anchor's area with one of them is > ``ignore_threshold`` (not >=, as in mmdetection;
            detectron2 has no such rule).
        ignore_offsets: integers ``[B + 1]``, as ``offsets``, for ``ignore_boxes``; needed with both of these.
        ignore_threshold: >= 0.

    Returns:
        matches: int64 ``[A]``, with ``offsets`` ``[B, A]``: the index of the box inside its own image, -1 where
            IoU < low, -2 between. Of equal IoUs the lower index wins. All -1 in an image without boxes.
        ious: the largest IoU of every anchor, of the same shape, in the compute type; 0 in an image without boxes.
            Not differentiable. NaN, degenerate and inverted boxes overlap nothing.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, devices differ, a threshold is NaN, low > high,
            ``ignore_threshold`` is negative, or offsets on the CPU fall or do not end at the number of boxes
            (on CUDA they are clamped to it).
        TypeError: the arrays are not of one kind, or a threshold is not a number.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.2.
    """
    more = (offsets, ignore_boxes, ignore_offsets)
    ops = backend("match_max_iou", anchors, gt_boxes, *more)
    low = high if low is None else low
    return ops.match_max_iou(anchors, gt_boxes, high, low, allow_low_quality, *more, ignore_threshold)


def match_greedy(
    anchors: Array, gt_boxes: Array, iou_threshold: float | None = None, *, offsets: Array | None = None
) -> tuple[Array, Array]:
    """Matches every ground truth box to an anchor of its own, the largest IoU first; the bipartite rule of SSD.

    Takes the largest IoU of all anchors and boxes, matches the two, removes both, and repeats until boxes or anchors
    run out. Then, with a threshold, every anchor still free is matched to its best box, if their IoU reaches it.

    Args:
        anchors, gt_boxes, offsets: as for :func:`match_max_iou`.
        iou_threshold: >= 0; a free anchor is matched where IoU >= iou_threshold, in the compute type. Without it, none.

    Returns:
        matches: int64 ``[A]``, with ``offsets`` ``[B, A]``: the index of the box inside its own image, or -1. Of equal
            IoUs, the lower anchor goes first, then the lower box; so a box that overlaps nothing gets the lowest
            anchor that is free in the end.
        ious: the IoU of every match, of an unmatched anchor its largest; 0 in an image without boxes. In the compute
            type, not differentiable.

    Raises:
        ValueError, TypeError: as :func:`match_max_iou`; the threshold must not be negative or NaN.

    Source: Liu et al., SSD, ECCV 2016, section 2.2.
    """
    return backend("match_greedy", anchors, gt_boxes, offsets).match_greedy(anchors, gt_boxes, iou_threshold, offsets)


def match_greedy_matrix(iou: Array, iou_threshold: float | None = None) -> tuple[Array, Array]:
    """:func:`match_greedy` on a matrix of IoUs, or of any other measure of how well anchor and box fit.

    Args:
        iou: ``[A, G]`` or ``[B, A, G]``, floating, any strides. NaN counts as -inf: it is taken last.
        iou_threshold: as for :func:`match_greedy`.

    Returns:
        matches, ious: as for :func:`match_greedy`, ``[A]`` or ``[B, A]``; ious in float32, float64 for float64.

    Raises:
        ValueError: ``iou`` is not floating or has another shape, or the threshold is negative or NaN.
        TypeError: ``iou`` is not an array, or the threshold is not a number.
    """
    return backend("match_greedy_matrix", iou).match_greedy_matrix(iou, iou_threshold)
