"""From a head's numbers to boxes: proposals of an RPN, detections of any detector."""

import numpy as np

from boxops.reference.codecs import LARGEST_LOG, decode_boxes
from boxops.reference.common import by_falling_score, compute, compute_type, exp_of, quiet
from boxops.reference.nms import batched_nms


@quiet
def generate_proposals(
    objectness,
    deltas,
    anchors,
    num_anchors_per_level,
    image_sizes,
    pre_nms_top_n=1000,
    post_nms_top_n=1000,
    iou_threshold=0.7,
    *,
    score_threshold=0.0,
    min_size=1e-3,
    weights=(1.0, 1.0, 1.0, 1.0),
    clip=LARGEST_LOG,
):
    T = compute_type(objectness, deltas, anchors).type
    objectness, deltas, anchors = (np.asarray(array).astype(T) for array in (objectness, deltas, anchors))
    anchors = np.broadcast_to(anchors, deltas.shape)
    boxes = np.zeros((len(deltas), post_nms_top_n, 4), T)
    scores = np.zeros((len(deltas), post_nms_top_n), T)
    counts = np.zeros(len(deltas), np.int64)
    for b, (height, width) in enumerate(image_sizes):
        top, levels, first = [], [], 0
        for level, count in enumerate(num_anchors_per_level):
            top.extend(first + by_falling_score(objectness[b, first : first + count])[:pre_nms_top_n])
            levels.extend([level] * min(count, pre_nms_top_n))
            first += count
        box = decode_boxes(deltas[b, top], anchors[b, top], weights, clip=clip)
        box = np.clip(box, 0, np.array([width, height, width, height], T))
        score = sigmoid(objectness[b, top])
        large = (box[:, 2:] - box[:, :2] >= T(min_size)).all(axis=1)
        candidates = np.flatnonzero(large & (score >= T(score_threshold)))
        box, score, level = box[candidates], score[candidates], np.array(levels, np.int64)[candidates]
        keep = batched_nms(box, score, level, iou_threshold)[:post_nms_top_n]
        counts[b] = len(keep)
        boxes[b, : len(keep)], scores[b, : len(keep)] = box[keep], score[keep]
    return boxes, scores, counts


@quiet
def detect(
    boxes,
    scores,
    score_threshold=0.05,
    iou_threshold=0.5,
    max_output=100,
    *,
    topk_per_class=None,
    min_size=None,
    class_agnostic=False,
):
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    found = np.zeros((len(scores), max_output, 4), boxes.dtype)
    found_scores = np.zeros((len(scores), max_output), scores.dtype)
    labels = np.full((len(scores), max_output), -1, np.int64)
    counts = np.zeros(len(scores), np.int64)
    for b in range(len(scores)):
        compared = compute(scores[b])
        rows, classes = np.nonzero(compared > compared.dtype.type(score_threshold))
        box = boxes[b, rows] if boxes.ndim == 3 else boxes[b, rows, classes]
        score = scores[b, rows, classes]
        candidates = np.arange(len(rows))
        if min_size is not None:
            corners = compute(box)
            candidates = np.flatnonzero((corners[:, 2:] - corners[:, :2] >= corners.dtype.type(min_size)).all(axis=1))
        if topk_per_class is not None:
            of_classes = (candidates[classes[candidates] == c] for c in range(scores.shape[2]))
            best = [some[by_falling_score(score[some])[:topk_per_class]] for some in of_classes]
            candidates = np.sort(np.concatenate([np.zeros(0, np.int64), *best]))
        box, score, label = box[candidates], score[candidates], classes[candidates]
        keep = batched_nms(box, score, label * (not class_agnostic), iou_threshold)[:max_output]
        counts[b] = len(keep)
        found[b, : len(keep)], found_scores[b, : len(keep)] = box[keep], score[keep]
        labels[b, : len(keep)] = label[keep]
    return found, found_scores, labels, counts


def sigmoid(x):
    # In float64 and rounded once, so that it rises with x, which float32 steps would not promise.
    return (1 / (1 + exp_of(-x.astype(np.float64)))).astype(x.dtype)
