"""Boxes relative to anchors: R-CNN and SSD deltas, YOLO cells."""

import math

import numpy as np

from boxops.reference.common import compute, exp_of, quiet

CELL_MARGIN = 1e-6
LARGEST_LOG = math.log(1000 / 16)


@quiet
def encode_boxes(boxes, anchors, weights=(1, 1, 1, 1), *, variances=None, coding="rcnn", stride=None):
    boxes, anchors = compute(boxes, anchors), compute(anchors, boxes)
    t = anchors.dtype.type
    position_weight, size_weight = weights_of(weights, variances, t)
    centre, size = centre_and_size(boxes)
    anchor_centre, anchor_size = centre_and_size(anchors)
    ratio = size / anchor_size
    if coding == "rcnn":
        position = position_weight * (centre - anchor_centre) / anchor_size
        return np.concatenate([position, size_weight * np.log(ratio)], axis=-1)
    position = (centre - anchor_centre) / stride_xy(stride, t) + t(0.5)
    if coding == "yolo_v1":
        return np.concatenate([position, np.sqrt(ratio)], axis=-1)
    margin = t(CELL_MARGIN)
    position = np.clip(position, margin, t(1) - margin)
    return np.concatenate([np.log(position / (t(1) - position)), np.log(ratio)], axis=-1)


@quiet
def decode_boxes(deltas, anchors, weights=(1, 1, 1, 1), *, variances=None, coding="rcnn", stride=None,
                 clip=LARGEST_LOG, image_size=None):  # fmt: skip
    deltas, anchors = compute(deltas, anchors), compute(anchors, deltas)
    t = anchors.dtype.type
    position_weight, size_weight = weights_of(weights, variances, t)
    anchor_centre, anchor_size = centre_and_size(anchors)
    position, extent = deltas[..., :2], deltas[..., 2:]
    limit = t(np.inf if clip is None else clip)
    if coding == "rcnn":
        centre = position / position_weight * anchor_size + anchor_centre
        half = t(0.5) * (exp_of(np.minimum(extent / size_weight, limit)) * anchor_size)
    elif coding == "yolo_v1":
        centre = anchor_centre + (position - t(0.5)) * stride_xy(stride, t)
        half = t(0.5) * (extent * extent * anchor_size)
    else:
        centre = anchor_centre + (t(1) / (t(1) + exp_of(-position)) - t(0.5)) * stride_xy(stride, t)
        half = t(0.5) * (exp_of(np.minimum(extent, limit)) * anchor_size)
    boxes = np.concatenate([centre - half, centre + half], axis=-1)
    if image_size is not None:
        sizes = np.asarray(image_size, t)[..., [1, 0, 1, 0]]  # of one image, or [B, 4]
        sizes = sizes.reshape(*sizes.shape[:-1], *[1] * (boxes.ndim - sizes.ndim), 4)
        boxes = np.clip(boxes, t(0), sizes)
    return boxes


def centre_and_size(boxes):
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + boxes.dtype.type(0.5) * size, size


def weights_of(weights, variances, t):
    """For position and size, each (x, y)."""
    weights = np.array(weights if variances is None else [1 / v for v in variances], np.float64).astype(t)
    return weights[:2], weights[2:]


def stride_xy(stride, t):
    return np.broadcast_to(stride, 2)[::-1].astype(t)
