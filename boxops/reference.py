"""The contract in code: every op of boxops in plain NumPy, slow and obvious.

Each function bears the name and the arguments of the public one and defines its result; the kernels
must give the same indices, and the same measures to the bit (CIoU within the error of atan2).
Every step is rounded to the compute type: float64 for float64 boxes, float32 for all others.
"""

import numpy as np

_quiet = np.errstate(all="ignore")  # NaN and inf are inputs like any other


# Boxes


@_quiet
def box_area(boxes, fmt="xyxy"):
    return _area(_columns(boxes, fmt))


@_quiet
def box_convert(boxes, in_fmt, out_fmt):
    boxes = np.asarray(boxes)
    columns = np.moveaxis(_compute(boxes), -1, 0)
    if in_fmt != out_fmt:
        columns = _from_xyxy(_to_xyxy(columns, in_fmt), out_fmt)
    is_integer = np.issubdtype(boxes.dtype, np.integer)
    return np.stack(columns, axis=-1).astype(np.float32 if is_integer else boxes.dtype)


def clip_boxes_to_image(boxes, size):
    boxes = np.asarray(boxes)
    height, width = size
    largest = np.iinfo(boxes.dtype).max if np.issubdtype(boxes.dtype, np.integer) else np.inf
    limits = np.array([min(limit, largest) for limit in (width, height, width, height)])
    return np.clip(boxes, 0, limits.astype(boxes.dtype))


@_quiet
def remove_small_boxes(boxes, min_size):
    x1, y1, x2, y2 = columns = _columns(boxes)
    min_size = columns.dtype.type(min_size)
    # Sizes are not clamped here, as in torchvision: an inverted box is smaller than 0. NaN is never >=.
    return np.flatnonzero((x2 - x1 >= min_size) & (y2 - y1 >= min_size))


# IoU and its relatives: [..., N, 4] x [..., M, 4] -> [..., N, M]; paired, [..., 4] x [..., 4] -> [...]


@_quiet
def box_iou(boxes1, boxes2, fmt="xyxy", *, paired=False):
    return _iou(*_pairs(boxes1, boxes2, fmt, paired))


@_quiet
def generalized_box_iou(boxes1, boxes2, *, fmt="xyxy", paired=False):
    return _giou(*_pairs(boxes1, boxes2, fmt, paired), iou_eps=0, eps=0)


@_quiet
def distance_box_iou(boxes1, boxes2, eps=1e-7, *, fmt="xyxy", paired=False):
    return _diou(*_pairs(boxes1, boxes2, fmt, paired), iou_eps=0, eps=eps)


@_quiet
def complete_box_iou(boxes1, boxes2, eps=1e-7, *, fmt="xyxy", paired=False):
    return _ciou(*_pairs(boxes1, boxes2, fmt, paired), iou_eps=0, eps=eps)


@_quiet
def box_ioa(boxes1, boxes2, *, fmt="xyxy", paired=False):
    a, b = _pairs(boxes1, boxes2, fmt, paired)
    inter, area = _intersection(a, b), _area(b)
    return np.where((area > 0) & (area < np.inf), inter / area, 0)


@_quiet
def generalized_box_iou_loss(boxes1, boxes2, reduction="none", eps=1e-7):
    return _reduce(1 - _giou(_columns(boxes1), _columns(boxes2), iou_eps=eps, eps=eps), reduction)


@_quiet
def distance_box_iou_loss(boxes1, boxes2, reduction="none", eps=1e-7):
    return _reduce(1 - _diou(_columns(boxes1), _columns(boxes2), iou_eps=eps, eps=eps), reduction)


@_quiet
def complete_box_iou_loss(boxes1, boxes2, reduction="none", eps=1e-7):
    return _reduce(1 - _ciou(_columns(boxes1), _columns(boxes2), iou_eps=eps, eps=eps), reduction)


# Non-maximum suppression


@_quiet
def nms(boxes, scores, iou_threshold):
    boxes = _columns(boxes)
    threshold = boxes.dtype.type(iou_threshold)
    left, keep = _by_falling_score(scores), []
    while left.size:
        best, rest = left[0], left[1:]
        keep.append(best)
        left = rest[~(_iou(boxes[:, best], boxes[:, rest]) > threshold)]
    return np.array(keep, dtype=np.int64)


@_quiet
def batched_nms(boxes, scores, idxs, iou_threshold):
    kept = np.zeros(len(scores), dtype=bool)
    for group in np.unique(idxs):
        members = np.flatnonzero(idxs == group)
        kept[members[nms(boxes[members], scores[members], iou_threshold)]] = True
    order = _by_falling_score(scores)
    return order[kept[order]]


@_quiet
def nms_padded(boxes, scores, iou_threshold, max_output, *, labels=None, score_threshold=None):
    labels = np.zeros(scores.shape, dtype=np.int64) if labels is None else labels
    indices = np.full((len(boxes), max_output), -1, dtype=np.int64)
    counts = np.zeros(len(boxes), dtype=np.int64)
    for b in range(len(boxes)):
        left = np.arange(scores.shape[1])
        if score_threshold is not None:
            score = _compute(scores[b])
            left = np.flatnonzero(score > score.dtype.type(score_threshold))
        keep = left[batched_nms(boxes[b, left], scores[b, left], labels[b, left], iou_threshold)][:max_output]
        indices[b, : len(keep)] = keep
        counts[b] = len(keep)
    return indices, counts


def _by_falling_score(scores):
    # Stable: ties go to the lower index. NumPy sorts NaN to the end, and -0.0 with +0.0.
    return np.argsort(-_compute(scores), kind="stable")


# One box or many, as columns x1, y1, x2, y2


def _compute(values):
    values = np.asarray(values)
    return values.astype(np.float64 if values.dtype == np.float64 else np.float32)


def _columns(boxes, fmt="xyxy"):
    """[..., 4] -> [4, ...] in the compute type; a box with any NaN becomes NaN throughout."""
    xyxy = np.stack(_to_xyxy(np.moveaxis(_compute(boxes), -1, 0), fmt))
    return np.where(np.isnan(xyxy).any(axis=0), np.nan, xyxy)


def _pairs(boxes1, boxes2, fmt, paired):
    a, b = _columns(boxes1, fmt), _columns(boxes2, fmt)
    return (a, b) if paired else (a[..., :, None], b[..., None, :])


def _to_xyxy(columns, fmt):
    if fmt == "xyxy":
        return columns
    x, y, w, h = columns
    if fmt == "xywh":
        return x, y, x + w, y + h
    if fmt == "cxcywh":
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    raise ValueError(fmt)


def _from_xyxy(columns, fmt):
    x1, y1, x2, y2 = columns
    if fmt == "xyxy":
        return columns
    if fmt == "xywh":
        return x1, y1, x2 - x1, y2 - y1
    if fmt == "cxcywh":
        return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    raise ValueError(fmt)


def _extent(lo, hi):
    return np.fmax(hi - lo, 0)  # inverted and NaN give 0


def _area(box):
    x1, y1, x2, y2 = box
    return np.where(np.isnan(x1), np.nan, _extent(x1, x2) * _extent(y1, y2))


def _overlap(a, b):
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    return (
        _extent(np.maximum(ax1, bx1), np.minimum(ax2, bx2)),
        _extent(np.maximum(ay1, by1), np.minimum(ay2, by2)),
    )


def _hull(a, b):
    """Width and height of the smallest box around both."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    return (
        _extent(np.minimum(ax1, bx1), np.maximum(ax2, bx2)),
        _extent(np.minimum(ay1, by1), np.maximum(ay2, by2)),
    )


def _intersection(a, b):
    width, height = _overlap(a, b)
    return width * height


def _union(a, b):
    return (_area(a) + _area(b)) - _intersection(a, b)


def _iou(a, b, eps=0):
    union = _union(a, b)
    return np.where(union > 0, _intersection(a, b) / (union + eps), 0)


def _penalty(amount, whole):
    """amount / whole; 0 unless whole > 0, but a NaN amount stays NaN."""
    return amount / np.where(whole > 0, whole, np.inf)


def _giou(a, b, iou_eps, eps):
    width, height = _hull(a, b)
    hull = width * height
    return _iou(a, b, iou_eps) - _penalty(hull - _union(a, b), hull + eps)


def _diou(a, b, iou_eps, eps):
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    dx = (ax1 + ax2) / 2 - (bx1 + bx2) / 2
    dy = (ay1 + ay2) / 2 - (by1 + by2) / 2
    width, height = _hull(a, b)
    return _iou(a, b, iou_eps) - _penalty(dx * dx + dy * dy, (width * width + height * height) + eps)


def _ciou(a, b, iou_eps, eps):
    difference = _angle(b) - _angle(a)
    v = (4 / np.pi**2) * (difference * difference)
    alpha = _penalty(v, ((1 - _iou(a, b, iou_eps)) + v) + eps)
    return _diou(a, b, iou_eps, eps) - alpha * v


def _angle(box):
    x1, y1, x2, y2 = box
    return np.arctan2(_extent(x1, x2), _extent(y1, y2))


def _reduce(loss, reduction):
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if loss.size else loss.sum()
    raise ValueError(reduction)
