"""Matching of anchors to ground truth: by the largest IoU, and greedily one to one."""

import numpy as np

from boxops.reference.common import compute, compute_type, quiet
from boxops.reference.iou import box_ioa, box_iou


def images(anchors, gt_boxes, offsets):
    """(anchors, ground truths) of every image; a single image without offsets."""
    if offsets is None:
        return [(anchors, gt_boxes)]
    shared = np.ndim(anchors) == 2
    return [(anchors if shared else anchors[b], gt_boxes[offsets[b] : offsets[b + 1]]) for b in range(len(offsets) - 1)]


def stacked(results, anchors, offsets, dtype):
    """A list of (matches, ious) per image as two arrays [B, A], or as those of the only image."""
    if offsets is None:
        return results[0]
    shape = len(results), np.shape(anchors)[-2]
    matches = np.array([matches for matches, _ in results], dtype=np.int64).reshape(shape)
    return matches, np.array([ious for _, ious in results], dtype=dtype).reshape(shape)


def best_of(iou):
    """Of every anchor: the box with the largest IoU (of equals the first), and that IoU; 0 and 0 without boxes."""
    if iou.shape[1] == 0:
        return np.zeros(len(iou), dtype=np.int64), np.zeros(len(iou), dtype=iou.dtype)
    return iou.argmax(axis=1), iou.max(axis=1)


@quiet
def match_max_iou(
    anchors,
    gt_boxes,
    high,
    low=None,
    allow_low_quality=False,
    *,
    offsets=None,
    ignore_boxes=None,
    ignore_offsets=None,
    ignore_threshold=0.5,
):
    if ignore_boxes is None:
        ignore_boxes = np.zeros((0, 4), dtype=np.float32)
        ignore_offsets = None if offsets is None else np.zeros(len(offsets), dtype=np.int64)
    T = compute_type(anchors, gt_boxes, ignore_boxes).type
    anchors, gt_boxes, ignore_boxes = (np.asarray(boxes).astype(T) for boxes in (anchors, gt_boxes, ignore_boxes))
    low, high, ignore_threshold = T(high if low is None else low), T(high), T(ignore_threshold)
    results = []
    ignored_of = images(anchors, ignore_boxes, ignore_offsets)
    for (boxes, truths), (_, ignored) in zip(images(anchors, gt_boxes, offsets), ignored_of, strict=True):
        iou = box_iou(boxes, truths)
        which, best = best_of(iou)
        matches = np.where(best >= high, which, np.where(best >= low, -2, -1))
        if len(truths) == 0:
            matches[:] = -1
        elif allow_low_quality and len(boxes):
            restored = (iou == iou.max(axis=0)).any(axis=1)
            matches[restored] = which[restored]
        covered = (box_ioa(ignored, boxes) > ignore_threshold).any(axis=0)
        matches[(matches == -1) & covered] = -2
        results.append((matches, best))
    return stacked(results, anchors, offsets, T)


def greedy(iou, iou_threshold):
    which, best = best_of(iou)
    matches = np.full(len(iou), -1)
    if iou_threshold is not None and iou.shape[1] > 0:
        matches = np.where(best >= iou.dtype.type(iou_threshold), which, -1)
    ious, left = best.copy(), iou.copy()
    anchors, boxes = np.arange(iou.shape[0]), np.arange(iou.shape[1])
    while left.size:
        a, g = np.unravel_index(left.argmax(), left.shape)  # the first of equals: lowest anchor, then lowest box
        matches[anchors[a]], ious[anchors[a]] = boxes[g], left[a, g]
        left = np.delete(np.delete(left, a, axis=0), g, axis=1)
        anchors, boxes = np.delete(anchors, a), np.delete(boxes, g)
    return matches, ious


@quiet
def match_greedy(anchors, gt_boxes, iou_threshold=None, *, offsets=None):
    T = compute_type(anchors, gt_boxes).type
    anchors, gt_boxes = np.asarray(anchors).astype(T), np.asarray(gt_boxes).astype(T)
    results = [greedy(box_iou(boxes, truths), iou_threshold) for boxes, truths in images(anchors, gt_boxes, offsets)]
    return stacked(results, anchors, offsets, T)


@quiet
def match_greedy_matrix(iou, iou_threshold=None):
    values = compute(iou)
    values = np.where(np.isnan(values), -np.inf, values).astype(values.dtype)
    if values.ndim == 2:
        return greedy(values, iou_threshold)
    results = [greedy(matrix, iou_threshold) for matrix in values]
    matches = np.array([matches for matches, _ in results], dtype=np.int64).reshape(values.shape[:2])
    return matches, np.array([ious for _, ious in results], dtype=values.dtype).reshape(values.shape[:2])
