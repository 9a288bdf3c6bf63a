"""Non-maximum suppression: plain, in groups, and with output of a fixed size."""

from __future__ import annotations

from typing import NoReturn, TypeVar

from numpy import ndarray

from boxops.ops.backend import backend, numpy_ops
from boxops.ops.deprecated import by_new_names, renamed

Array = TypeVar("Array")


def nms(boxes: Array, scores: Array, iou_threshold: float) -> Array:
    """Greedy non-maximum suppression.

    Boxes are taken by descending score; a box is dropped when its IoU with a box kept before exceeds the threshold.

    Args:
        boxes: ``[N, 4]`` corners, any real dtype and strides, coordinates in any unit.
        scores: ``[N]``, any real dtype; ranked exactly.
        iou_threshold: >= 0; a box is suppressed when IoU > iou_threshold, both in the boxes' compute type: float32, or
            float64 for float64 and integers of 32 bits or more (of which those beyond 2^53 are rounded).

    Returns:
        int64 ``[K]``: indices of the kept boxes by descending score. Equal scores go by ascending index, NaN scores
        come last. Degenerate, inverted and NaN boxes overlap nothing and are kept. On CUDA the host waits for K;
        :func:`nms_padded` does not.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, devices differ, or the threshold is negative or NaN.
        TypeError: boxes and scores are not arrays of one kind.
    """
    ops = numpy_ops if type(boxes) is ndarray else backend("nms", boxes, scores)
    return ops.nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Array, scores: Array, idxs: Array, iou_threshold: float) -> Array:
    """Non-maximum suppression inside each group: of one class, one image, one level.

    Boxes suppress only boxes of their own group. Coordinates are not offset by group (torchvision's trick), so the
    result is exactly that of :func:`nms` on each group alone.

    Args:
        boxes, scores, iou_threshold: as for :func:`nms`.
        idxs: ``[N]`` of any real dtype or bool, the group of each box: equal values are a group. Floats must be whole
            numbers.

    Returns:
        int64 ``[K]``: indices of the kept boxes of all groups by descending score, ties by ascending index.

    Raises:
        ValueError, TypeError: as :func:`nms`. On the CPU also for ``idxs`` that are fractions, NaN or infinite; on
            CUDA, where a check would have to wait, these are ids like others, and all NaN are one group.
    """
    ops = numpy_ops if type(boxes) is ndarray else backend("batched_nms", boxes, scores, idxs)
    return ops.batched_nms(boxes, scores, idxs, iou_threshold)


@renamed(labels="idxs")
def nms_padded(
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    max_output: int,
    *,
    idxs: Array | None = None,
    score_threshold: float | None = None,
    **former: NoReturn,
) -> tuple[Array, Array]:
    """Non-maximum suppression of a batch of images with output of a fixed size.

    Shapes depend on the arguments alone: no host synchronisation, and CUDA graphs, ``torch.compile(fullgraph=True)``
    and ``torch.export`` work.

    Args:
        boxes: ``[B, N, 4]`` corners, any real dtype and strides.
        scores: ``[B, N]``, any real dtype.
        iou_threshold: >= 0, as for :func:`nms`.
        max_output: how many boxes of an image to return at most, >= 0.
        idxs: ``[B, N]``, the group of each box, as for :func:`batched_nms`. None: each image is one group.
        score_threshold: only boxes with score > score_threshold take part, compared in the score's compute type.

    Returns:
        indices: int64 ``[B, max_output]``, kept boxes of each image by descending score, then -1.
        counts: int64 ``[B]``, how many indices of each image are not padding.

    Raises:
        ValueError, TypeError: as :func:`batched_nms`; also for a negative ``max_output``.
    """
    if former:
        return by_new_names(nms_padded, locals())
    ops = backend("nms_padded", boxes, scores, idxs)
    return ops.nms_padded(boxes, scores, iou_threshold, max_output, idxs, score_threshold)
