"""Minimum cost assignment, and the costs that DETR matches queries with."""

from __future__ import annotations

from typing import TypeVar

from boxops.ops.backend import backend

Array = TypeVar("Array")


def linear_sum_assignment(
    cost: Array, maximize: bool = False, *, offsets: Array | None = None, on_invalid: str = "raise"
) -> tuple[Array, Array]:
    """Assigns rows to columns at the least total cost: the Hungarian problem, exactly, one or many at once.

    As ``scipy.optimize.linear_sum_assignment``. On CUDA, problems are solved side by side and nothing waits.

    Args:
        cost: ``[n, m]``, a batch ``[B, n, m]``, or with ``offsets`` a ragged batch ``[R, m]``; any real dtype or
            bool, any strides. Computed in float64. A cost of +inf forbids the pair (-inf when maximizing).
        maximize: look for the greatest total instead.
        offsets: integers ``[B + 1]``, rising from 0 to R: problem b has the rows ``offsets[b]`` up to
            ``offsets[b + 1]``.
        on_invalid: what becomes of a problem that is faulty: that has a cost that is NaN or infinite the wrong way, or
            no finite assignment. ``"raise"``: the first one is an error on the CPU; on CUDA, where the host would have
            to wait for this, it is left unmatched. ``"unmatched"``: on every device it has ``col_ind`` -1 throughout
            (and ``row_ind`` 0, 1, ..., k - 1), and all other problems are solved.

    Returns:
        row_ind, col_ind: int64 ``[k]`` or ``[B, k]`` with k = min(n, m), rows rising: row ``row_ind[i]`` takes column
        ``col_ind[i]``. With ``offsets`` both are ``[R]``: ``row_ind`` is 0, 1, ..., R - 1, and ``col_ind`` the
        column of each row, -1 for the rows that are left where a problem has more rows than columns.

        Of several optimal assignments all devices choose the same one, which need not be scipy's.

    Raises:
        ValueError: the shape is wrong, the dtype is not real, ``on_invalid`` is another, or offsets do not fit (on CUDA
            offsets that fall make every problem faulty instead). With ``"raise"`` on the CPU also for a faulty problem;
            its number, and the place and value of its first wrong cost are named.
        TypeError: cost and offsets are not arrays of one kind.

    Source: Jonker, Volgenant, A shortest augmenting path algorithm for dense and sparse linear assignment problems,
    Computing 1987; Crouse, On implementing 2D rectangular assignment algorithms, IEEE TAES 2016, section II.
    """
    op = "linear_sum_assignment"
    ops = backend(op, cost) if offsets is None else backend(op, cost, offsets)
    return ops.linear_sum_assignment(cost, maximize, offsets, on_invalid)


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
    """What it costs to give each ground truth each query of its own image, as DETR's matcher weighs it.

    ``linear_sum_assignment(detr_cost(...), offsets=offsets)`` is the matcher: ``col_ind[g]`` is the query of ground
    truth g. No cost between images is computed, and there is no gradient.

    Args:
        logits: ``[B, Q, C]``, floating, before softmax or sigmoid.
        boxes: ``[B, Q, 4]``, floating, ``cxcywh``, normalised by the image's size.
        gt_labels: ``[G]`` whole numbers in 0..C - 1, of any real dtype or bool.
        gt_boxes: ``[G, 4]``, floating, ``cxcywh``, normalised.
        offsets: integers ``[B + 1]``, rising from 0 to G: image b has the ground truths from ``offsets[b]`` to
            ``offsets[b + 1]``.
        class_weight: finite, like the other weights; of -p, p the softmax probability of the ground truth's label.
        box_weight: of the L1 distance of the four numbers.
        giou_weight: of -GIoU.
        focal: take Deformable DETR's class cost instead, on sigmoids, with alpha 0.25 and gamma 2.

    Returns:
        ``[G, Q]``, float64 if one of the floating arrays is, else float32. NaN where an input is NaN.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, C is 0, a weight is infinite or NaN, or offsets do not rise
            from 0 to G. On the CPU also for a label that is a fraction, NaN or outside 0..C - 1; on CUDA the nearest
            label stands in for it, the fraction is cut off, and 0 stands in for NaN.
        TypeError: arrays are not of one kind, or a weight is no number.

    Source: Carion et al., End-to-End Object Detection with Transformers, ECCV 2020, section 3.1; Zhu et al., Deformable
    DETR, ICLR 2021, appendix A.3.
    """
    arrays = (logits, boxes, gt_labels, gt_boxes, offsets)
    return backend("detr_cost", *arrays).detr_cost(*arrays, class_weight, box_weight, giou_weight, focal)
