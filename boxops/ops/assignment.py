"""Minimum cost assignment, and the costs that DETR matches queries with."""

from __future__ import annotations

from typing import TypeVar

from numpy import ndarray

from boxops.ops.backend import backend, numpy_ops

Array = TypeVar("Array")


def linear_sum_assignment(
    cost: Array, maximize: bool = False, *, offsets: Array | None = None, on_invalid: str = "raise"
) -> tuple[Array, Array]:
    """Assigns rows to columns, one to one, at the least total cost (the Hungarian algorithm's problem), one or many.

    As ``scipy.optimize.linear_sum_assignment``. On CUDA, problems are solved side by side and nothing waits.

    Args:
        cost: ``[n, m]``, a batch ``[B, n, m]``, or with ``offsets`` a ragged batch ``[R, m]``; any real dtype or
            bool, any strides. Computed in float64. A cost of +inf forbids the pair (-inf when maximizing).
        maximize: look for the greatest total instead.
        offsets: integers ``[B + 1]``, ascending from 0 to R: problem b has the rows ``offsets[b]`` up to
            ``offsets[b + 1]``.
        on_invalid: what becomes of an invalid problem, which has a cost that is NaN or -inf (+inf when maximizing), or
            no assignment of finite cost. ``"raise"``: on the CPU the first one raises; on CUDA, where the host would
            have to wait for this, it is left unmatched. ``"unmatched"``: on every device its ``col_ind`` is -1
            throughout (and ``row_ind`` 0, 1, ..., k - 1), and all other problems are solved.

    Returns:
        row_ind, col_ind: int64 ``[k]`` or ``[B, k]`` with k = min(n, m), rows ascending: row ``row_ind[i]`` takes
        column ``col_ind[i]``. With ``offsets`` both are ``[R]``: ``row_ind`` is 0, 1, ..., R - 1, and ``col_ind`` the
        column of each row, -1 for rows left without one where a problem has more rows than columns.

        Of several optimal assignments all devices choose the same one, which need not be scipy's.

    Raises:
        ValueError: the shape is wrong, the dtype is not real, ``on_invalid`` is unknown, offsets do not fit (on CUDA
            offsets that fall make every problem invalid instead), or there are more than 2^30 rows or columns on CUDA.
            With ``"raise"`` on the CPU also for an invalid problem; its index, and the place and value of its first
            wrong cost are named.
        TypeError: cost and offsets are not arrays of one kind.

    Source: Jonker, Volgenant, A shortest augmenting path algorithm for dense and sparse linear assignment problems,
    Computing 1987; Crouse, On implementing 2D rectangular assignment algorithms, IEEE TAES 2016, section II.
    """
    if offsets is None and type(cost) is ndarray:
        return numpy_ops.linear_sum_assignment(cost, maximize, offsets, on_invalid)
    return backend("linear_sum_assignment", cost, offsets).linear_sum_assignment(cost, maximize, offsets, on_invalid)


def detr_cost(
    logits: Array,
    boxes: Array,
    gt_labels: Array,
    gt_boxes: Array,
    offsets: Array,
    *,
    class_weight: float = 1.0,
    box_weight: float = 5.0,
    giou_weight: float = 2.0,
    focal: bool = False,
) -> Array:
    """DETR's matching cost of each ground truth and each query of the same image.

    ``linear_sum_assignment(detr_cost(...), offsets=offsets)`` is the matcher: ``col_ind[g]`` is the query of ground
    truth g. No costs between images are computed. Not differentiable.

    Args:
        logits: ``[B, Q, C]``, floating, before softmax or sigmoid.
        boxes: ``[B, Q, 4]``, floating, ``cxcywh``, normalised by the image's size.
        gt_labels: ``[G]`` whole numbers in 0..C - 1, of any real dtype or bool.
        gt_boxes: ``[G, 4]``, floating, ``cxcywh``, normalised.
        offsets: integers ``[B + 1]``, ascending from 0 to G: image b has the ground truths from ``offsets[b]`` to
            ``offsets[b + 1]``.
        class_weight: weight of the class cost -p, where p is the softmax probability of the ground truth's label. All
            weights are finite.
        box_weight: weight of the L1 distance of the boxes' four numbers.
        giou_weight: weight of -GIoU.
        focal: use Deformable DETR's class cost, that of the focal loss on sigmoids, with alpha 0.25 and gamma 2.

    Returns:
        ``[G, Q]``, float64 if one of the floating arrays is, else float32. NaN where an input is NaN.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, C is 0, a weight is infinite or NaN, or offsets do not ascend
            from 0 to G. On the CPU also for a label that is not a whole number in 0..C - 1; on CUDA it is truncated
            and clamped to 0..C - 1, NaN to 0.
        TypeError: arrays are not of one kind, or a weight is not a number.

    Source: Carion et al., End-to-End Object Detection with Transformers, ECCV 2020, section 3.1; Zhu et al., Deformable
    DETR, ICLR 2021, appendix A.3.
    """
    arrays = (logits, boxes, gt_labels, gt_boxes, offsets)
    return backend("detr_cost", *arrays).detr_cost(*arrays, class_weight, box_weight, giou_weight, focal)
