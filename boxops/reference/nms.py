"""Non-maximum suppression."""

import numpy as np

from boxops.reference.common import by_falling_score, compute, iou_of, quiet, to_columns


@quiet
def nms(boxes, scores, iou_threshold):
    boxes = to_columns(boxes)
    threshold = boxes.dtype.type(iou_threshold)
    left, keep = by_falling_score(scores), []
    while left.size:
        best, rest = left[0], left[1:]
        keep.append(best)
        left = rest[~(iou_of(boxes[:, best], boxes[:, rest]) > threshold)]
    return np.array(keep, dtype=np.int64)


@quiet
def batched_nms(boxes, scores, idxs, iou_threshold):
    kept = np.zeros(len(scores), dtype=bool)
    for group in np.unique(idxs):
        members = np.flatnonzero(idxs == group)
        kept[members[nms(boxes[members], scores[members], iou_threshold)]] = True
    order = by_falling_score(scores)
    return order[kept[order]]


@quiet
def nms_padded(boxes, scores, iou_threshold, max_output, *, labels=None, score_threshold=None):
    labels = np.zeros(scores.shape, dtype=np.int64) if labels is None else labels
    indices = np.full((len(boxes), max_output), -1, dtype=np.int64)
    counts = np.zeros(len(boxes), dtype=np.int64)
    for b in range(len(boxes)):
        left = np.arange(scores.shape[1])
        if score_threshold is not None:
            score = compute(scores[b])
            left = np.flatnonzero(score > score.dtype.type(score_threshold))
        keep = left[batched_nms(boxes[b, left], scores[b, left], labels[b, left], iou_threshold)][:max_output]
        indices[b, : len(keep)] = keep
        counts[b] = len(keep)
    return indices, counts
