"""Soft non-maximum suppression."""

from __future__ import annotations

from typing import TypeVar

from boxops.ops.backend import backend

Array = TypeVar("Array")


def soft_nms(
    boxes: Array,
    scores: Array,
    iou_threshold: float = 0.3,
    *,
    method: str = "gaussian",
    sigma: float = 0.5,
    score_threshold: float = 0.001,
    idxs: Array | None = None,
) -> tuple[Array, Array]:
    """Non-maximum suppression that lowers scores instead of removing boxes.

    The box of the largest score is taken, the scores of all remaining boxes are lowered by their IoU with it, those
    whose score is no longer above ``score_threshold`` are removed, and so on until no box remains. Everything is
    rounded to the compute type: float64 if boxes or scores are float64 or integers of 32 bits or more, else float32.

    Args:
        boxes: ``[N, 4]`` corners, any real dtype and strides, coordinates in any unit.
        scores: ``[N]``, any real dtype.
        iou_threshold: >= 0, for ``"linear"`` only: smaller IoUs lower no score.
        method: ``"linear"``: score * (1 - IoU) where IoU > iou_threshold; ``"gaussian"``: score * exp(-IoU^2 / sigma).
        sigma: > 0, for ``"gaussian"`` only.
        score_threshold: boxes stay while score > score_threshold.
        idxs: ``[N]``, as for :func:`batched_nms`; with them, boxes lower the scores of boxes of the same id only.

    Returns:
        indices: int64 ``[K]``: the boxes in the order in which they are taken. Equal scores go by ascending index.
        scores: ``[K]`` in the compute type: their scores when taken.

        Boxes with NaN scores are never taken. Degenerate, inverted and NaN boxes overlap nothing. The results are the
        same to the bit on every device. On CUDA the host waits for K.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, devices differ, the method is unknown, ``iou_threshold`` is
            negative, ``sigma`` is not positive, ``score_threshold`` is NaN, or ``idxs`` do not fit, as for
            :func:`batched_nms`.
        TypeError: the arrays are not of one kind, or an argument is not a number.

    Source: Bodla et al. 2017, Soft-NMS: Improving Object Detection With One Line of Code, section 3.
    """
    ops = backend("soft_nms", boxes, scores, idxs)
    return ops.soft_nms(boxes, scores, iou_threshold, method, sigma, score_threshold, idxs)
