"""The boxes that count for more than a threshold."""

from __future__ import annotations

from typing import TypeVar

from boxops.ops.backend import backend

Array = TypeVar("Array")


def top_boxes(boxes: Array, scores: Array, min_score: float, *, method: str = "score") -> tuple[Array, Array]:
    """The boxes that count for more than a threshold, and what they count for.

    Args:
        boxes: ``[N, 4]`` corners, any real dtype and strides, coordinates in any unit.
        scores: ``[N]``, any real dtype.
        min_score: boxes stay while they count for more than it.
        method: ``"score"``: a box counts for its score; ``"area"``: for its score times its area.

    Returns:
        indices: int64 ``[K]``, rising.
        values: ``[K]`` in the compute type: float64 if boxes or scores are float64 or integers of 32 bits or more,
            else float32. A NaN is never above the threshold. On CUDA the host waits for K.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, devices differ, the method is unknown, or ``min_score`` is
            NaN.
        TypeError: the arrays are not of one kind, or ``min_score`` is not a number.
    """
    return backend("top_boxes", boxes, scores).top_boxes(boxes, scores, min_score, method)
