"""Weighted boxes fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from boxops.ops.backend import backend
from boxops.ops.deprecated import by_new_names, renamed

Array = TypeVar("Array")


def _of_models(op: str, name: str, values: Any, dtype: Any = None) -> list[Any]:
    """Of each model the array that came, or a list as a NumPy array; without `dtype` of all models' common one."""
    if not isinstance(values, (list, tuple)) and not hasattr(values, "shape"):
        raise TypeError(f"{op}: expected {name} as a list of arrays or lists, got {type(values).__name__}")
    parts = list(values)
    lists = [m for m, part in enumerate(parts) if isinstance(part, (list, tuple))]
    for m in lists:
        try:
            parts[m] = np.asarray(parts[m])
        except ValueError:  # rows of different length
            parts[m] = np.empty(1, object)
        if parts[m].size and parts[m].dtype.kind not in "biuf":
            raise ValueError(f"{op}: expected {name} of numbers in rows of one length, got other lists")
    if dtype is None:
        arrays = [part for part in parts if isinstance(part, np.ndarray) and part.size]
        given = [array.dtype for array in arrays if array.dtype.kind in "biuf"]  # others are refused as they came
        dtype = np.result_type(*given) if given else np.int64
    for m in lists:
        parts[m] = parts[m].astype(dtype)
    return parts


@renamed(iou_thr="iou_threshold", skip_box_thr="score_threshold")
def weighted_boxes_fusion(
    boxes_list: Sequence[Array],
    scores_list: Sequence[Array],
    labels_list: Sequence[Array],
    weights: Sequence[float] | None = None,
    iou_threshold: float = 0.55,
    score_threshold: float = 0.0,
    conf_type: str = "avg",
    allows_overflow: bool = False,
    **former: NoReturn,
) -> tuple[Array, Array, Array]:
    """Weighted boxes fusion: overlapping boxes of several models become one, their mean weighted by their scores.

    The arguments and results are those of the package ensemble-boxes (there ``iou_thr`` and ``skip_box_thr`` are the
    thresholds), but for these: coordinates may be in any unit and are neither clipped nor swapped; everything is
    rounded to the compute type (float64 if any boxes or scores are float64 or integers of 32 bits or more, else
    float32), where ensemble-boxes sums in float32; ties have an order; boxes without an area > 0 and NaN scores are
    left out; where the scores of a cluster sum to 0 its box stays as it was; and no confidence exceeds 1 (see
    ``allows_overflow``), which ensemble-boxes promises but does not keep where a model of large weight has several
    boxes in a cluster.

    Args:
        boxes_list: for each model ``[N_m, 4]`` corners, any real dtype and strides; or lists of numbers, as
            ensemble-boxes takes them, which become NumPy arrays: float64, and labels of their own type.
        scores_list: for each model ``[N_m]``, any real dtype.
        labels_list: for each model ``[N_m]``, all of one dtype, any real one or bool; floats must be whole numbers.
            Boxes of different labels never fuse.
        weights: of the models, >= 0, finite, and one of them > 0; by default 1 each.
        iou_threshold: >= 0; a box joins the cluster of largest IoU with its fused box if that exceeds the threshold.
        score_threshold: boxes with score >= score_threshold take part.
        conf_type: the confidence of a fused box. ``"avg"``: the mean score, times boxes over the sum of weights, where
            boxes beyond the number of models do not count (but see ``allows_overflow``); ``"max"``: the largest score,
            over the largest weight; ``"box_and_model_avg"``: mean over the boxes' weights, times the weights of the
            models present over all; ``"absent_model_aware_avg"``: the mean over the boxes' and the absent models'
            weights.
        allows_overflow: for ``"avg"``: confidences may exceed 1 where a model has several boxes in a cluster. Otherwise
            no confidence does, of whatever type and weights, unless scores do: then a confidence that exceeds both 1
            and the mean of its boxes' scores (weighted by their models) becomes the larger of the two.

    Returns:
        boxes: ``[K, 4]``, scores: ``[K]``, both in the compute type, labels: ``[K]`` of the labels' dtype, by
        descending score; equal scores by the index of the cluster's first box in the concatenated lists. On CUDA the
        host waits for K.

    Raises:
        ValueError: no model, lists of different length, shapes that do not fit, dtypes or devices that differ, an
            unknown ``conf_type``, or a threshold or a weight that is negative or NaN. On the CPU also for labels that
            are fractions, NaN or infinite; on CUDA these are labels like others, and all NaN are one.
        TypeError: the arrays are not of one kind, or an argument is not a number.

    Source: Solovyev et al. 2021, Weighted boxes fusion, section 3, and its package ensemble-boxes.
    """
    if former:
        return by_new_names(weighted_boxes_fusion, locals())
    op = "weighted_boxes_fusion"
    boxes = _of_models(op, "boxes_list", boxes_list, np.float64)
    if not boxes:
        raise ValueError(f"{op}: expected the boxes of one model at least, got none")
    boxes = [np.empty((0, 4)) if isinstance(some, np.ndarray) and some.shape == (0,) else some for some in boxes]
    scores = _of_models(op, "scores_list", scores_list, np.float64)
    labels = _of_models(op, "labels_list", labels_list)
    numbers = [1.0] * len(boxes) if weights is None else weights
    return backend(op, *boxes, *scores, *labels).weighted_boxes_fusion(
        boxes, scores, labels, numbers, iou_threshold, score_threshold, conf_type, allows_overflow
    )
