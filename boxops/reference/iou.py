"""IoU and its relatives: [..., N, 4] x [..., M, 4] -> [..., N, M]; paired, [..., 4] x [..., 4] -> [...]."""

from boxops.reference.common import (
    ciou_of,
    diou_of,
    elementwise,
    giou_of,
    ioa_of,
    iou_of,
    to_pairs,
)


@elementwise
def box_iou(boxes1, boxes2, fmt="xyxy", *, paired=False):
    return iou_of(*to_pairs(boxes1, boxes2, fmt, paired))


@elementwise
def generalized_box_iou(boxes1, boxes2, *, fmt="xyxy", paired=False):
    return giou_of(*to_pairs(boxes1, boxes2, fmt, paired), iou_eps=0, eps=0)


@elementwise
def distance_box_iou(boxes1, boxes2, eps=1e-7, *, fmt="xyxy", paired=False):
    return diou_of(*to_pairs(boxes1, boxes2, fmt, paired), iou_eps=0, eps=eps)


@elementwise
def complete_box_iou(boxes1, boxes2, eps=1e-7, *, fmt="xyxy", paired=False):
    return ciou_of(*to_pairs(boxes1, boxes2, fmt, paired), iou_eps=0, eps=eps)


@elementwise
def box_ioa(boxes1, boxes2, *, fmt="xyxy", paired=False):
    return ioa_of(*to_pairs(boxes1, boxes2, fmt, paired))


@elementwise
def generalized_box_iou_loss(boxes1, boxes2, reduction="none", eps=1e-7):
    return reduce(1 - giou_of(*to_pairs(boxes1, boxes2, "xyxy", True), iou_eps=eps, eps=eps), reduction)


@elementwise
def distance_box_iou_loss(boxes1, boxes2, reduction="none", eps=1e-7):
    return reduce(1 - diou_of(*to_pairs(boxes1, boxes2, "xyxy", True), iou_eps=eps, eps=eps), reduction)


@elementwise
def complete_box_iou_loss(boxes1, boxes2, reduction="none", eps=1e-7):
    return reduce(1 - ciou_of(*to_pairs(boxes1, boxes2, "xyxy", True), iou_eps=eps, eps=eps), reduction)


def reduce(loss, reduction):
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean() if loss.size else loss.sum()
    raise ValueError(reduction)
