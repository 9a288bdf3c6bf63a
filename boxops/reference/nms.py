"""Non-maximum suppression."""

import numpy as np

from boxops.reference.common import compute, iou_of, kept_greedily, kept_in_groups, quiet, to_columns


@quiet
def nms(boxes, scores, iou_threshold):
    return kept_greedily(to_columns(boxes), scores, iou_threshold, iou_of)


@quiet
def batched_nms(boxes, scores, idxs, iou_threshold):
    return kept_in_groups(nms, boxes, scores, idxs, iou_threshold)


@quiet
def nms_padded(boxes, scores, iou_threshold, max_output, *, idxs=None, score_threshold=None):
    idxs = np.zeros(scores.shape, dtype=np.int64) if idxs is None else idxs
    indices = np.full((len(boxes), max_output), -1, dtype=np.int64)
    counts = np.zeros(len(boxes), dtype=np.int64)
    for b in range(len(boxes)):
        left = np.arange(scores.shape[1])
        if score_threshold is not None:
            score = compute(scores[b])
            left = np.flatnonzero(score > score.dtype.type(score_threshold))
        keep = left[batched_nms(boxes[b, left], scores[b, left], idxs[b, left], iou_threshold)][:max_output]
        indices[b, : len(keep)] = keep
        counts[b] = len(keep)
    return indices, counts
