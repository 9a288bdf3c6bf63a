"""Soft non-maximum suppression."""

import numpy as np

from boxops.reference.common import compute_type, exp_of, iou_of, quiet, to_columns


@quiet
def soft_nms(boxes, scores, iou_threshold=0.3, *, method="gaussian", sigma=0.5, score_threshold=0.001, idxs=None):
    dtype = compute_type(boxes, scores)
    boxes, scores = to_columns(np.asarray(boxes).astype(dtype)), np.asarray(scores).astype(dtype)
    groups = np.zeros(scores.shape, dtype=np.int64) if idxs is None else idxs
    iou_threshold, sigma, score_threshold = map(dtype.type, (iou_threshold, sigma, score_threshold))
    sigma = max(sigma, np.finfo(dtype).smallest_subnormal)
    kept, decayed = [], []
    left = np.flatnonzero(scores > score_threshold)
    while left.size:
        place = np.argmax(scores[left])  # the first of equals
        best, left = left[place], np.delete(left, place)
        kept.append(best)
        decayed.append(scores[best])
        met = left[groups[left] == groups[best]]
        iou = iou_of(boxes[:, best, None], boxes[:, met]).astype(dtype)
        if method == "linear":
            met, iou = met[iou > iou_threshold], iou[iou > iou_threshold]
            weight = np.maximum(1 - iou, 0)
        else:
            met, iou = met[iou > 0], iou[iou > 0]
            weight = exp_of(-((iou * iou) / sigma))
        scores[met] *= weight
        left = left[scores[left] > score_threshold]
    return np.array(kept, dtype=np.int64), np.array(decayed, dtype=dtype)
