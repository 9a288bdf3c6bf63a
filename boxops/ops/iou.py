"""IoU and its relatives, pairwise and paired, and the losses made of them."""

from __future__ import annotations

from typing import Any, TypeVar

from numpy import ndarray

from boxops.ops.backend import backend, check_choice, check_number, numpy_ops

Array = TypeVar("Array")


def box_iou(boxes1: Array, boxes2: Array, fmt: str = "xyxy", *, paired: bool = False) -> Array:
    """Intersection over union of boxes.

    Args:
        boxes1, boxes2: ``[..., N, 4]`` and ``[..., M, 4]``, or with ``paired`` both ``[..., 4]``; each of any real
            dtype and strides, coordinates in one unit. Leading dims broadcast.
        fmt: ``"xyxy"`` (corners), ``"xywh"`` or ``"cxcywh"``.
        paired: compare box i with box i instead of all with all.

    Returns:
        ``[..., N, M]``, paired ``[...]``, in [0, 1], in the compute type: float64 if either is float64 or has integers
        of 32 bits or more (of which those beyond 2^53 are rounded), else float32. Nothing else is allocated.
        Degenerate, inverted, infinite and NaN boxes have IoU 0 with everything. Boxes may be so large that their areas
        overflow: such a pair is measured on coordinates scaled by a power of two, which is exact. Differentiable once
        for tensors, in reverse and forward mode; touching boxes pass no gradient through their overlap, as torch's
        ``clamp(min=0)`` from 2.14 on, and two equal coordinates one half each.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, devices differ, or ``fmt`` is unknown.
        TypeError: the two are not arrays of one kind.
    """
    ops = numpy_ops if type(boxes1) is ndarray else backend("box_iou", boxes1, boxes2)
    return ops.box_iou(boxes1, boxes2, fmt, paired)


def box_ioa(boxes1: Array, boxes2: Array, *, fmt: str = "xyxy", paired: bool = False) -> Array:
    """Intersection over the area of the second box: how much of it the first one covers.

    This is detectron2's ``pairwise_ioa``; for COCO's crowd rule pass the crowd boxes first.
    Arguments, result and errors as for :func:`box_iou`; 0 where the second box has no area.
    """
    ops = numpy_ops if type(boxes1) is ndarray else backend("box_ioa", boxes1, boxes2)
    return ops.box_ioa(boxes1, boxes2, fmt, paired)


def generalized_box_iou(boxes1: Array, boxes2: Array, *, fmt: str = "xyxy", paired: bool = False) -> Array:
    """Generalized IoU: IoU minus the share of the enclosing box that neither covers, in [-1, 1].

    Arguments and errors as for :func:`box_iou`. A NaN box gives NaN, so that a diverged regression shows.
    Source: Rezatofighi et al., CVPR 2019, section 3.
    """
    ops = numpy_ops if type(boxes1) is ndarray else backend("generalized_box_iou", boxes1, boxes2)
    return ops.generalized_box_iou(boxes1, boxes2, fmt, paired)


def distance_box_iou(
    boxes1: Array, boxes2: Array, eps: float = 1e-7, *, fmt: str = "xyxy", paired: bool = False
) -> Array:
    """Distance IoU: IoU minus the squared centre distance over the enclosing box's squared diagonal.

    ``eps``, >= 0 and finite, is added to that diagonal. Other arguments and errors as for :func:`box_iou`; a NaN box
    gives NaN. Source: Zheng et al., AAAI 2020, equation 7.
    """
    ops = numpy_ops if type(boxes1) is ndarray else backend("distance_box_iou", boxes1, boxes2)
    return ops.distance_box_iou(boxes1, boxes2, eps, fmt, paired)


def complete_box_iou(
    boxes1: Array, boxes2: Array, eps: float = 1e-7, *, fmt: str = "xyxy", paired: bool = False
) -> Array:
    """Complete IoU: distance IoU minus a penalty on the difference of aspect ratios.

    ``eps``, >= 0 and finite, is added to the penalties' divisors. Other arguments and errors as for :func:`box_iou`; a
    NaN box gives NaN. The trade-off alpha counts as a constant for the gradient, as in the paper's code and
    torchvision.
    Source: Zheng et al., AAAI 2020, equations 9 to 11.
    """
    ops = numpy_ops if type(boxes1) is ndarray else backend("complete_box_iou", boxes1, boxes2)
    return ops.complete_box_iou(boxes1, boxes2, eps, fmt, paired)


def _loss(measure: str, boxes1: Any, boxes2: Any, reduction: str, eps: float) -> Any:
    op = measure + "_loss"
    check_choice(op, "reduction", reduction, ("none", "mean", "sum"))
    if type(boxes2) is not type(boxes1):
        backend(op, boxes2, boxes1)  # says the loss's own name where it is no array
    iou = backend(op, boxes1, boxes2).iou_of_loss(boxes1, boxes2, measure, check_number(op, "eps", eps))
    loss = 1 - iou if iou.shape else (1 - iou[None])[0]  # NumPy 1 makes float64 of a 0-d float32
    if reduction == "none":
        return loss
    if reduction == "mean" and 0 in loss.shape:
        reduction = "sum"  # of nothing: 0, as in torchvision
    if hasattr(loss, reduction):
        return getattr(loss, reduction)()
    return getattr(loss.__array_namespace__(), reduction)(loss)


def generalized_box_iou_loss(boxes1: Array, boxes2: Array, reduction: str = "none", eps: float = 1e-7) -> Array:
    """1 - generalized IoU of paired boxes.

    Args:
        boxes1, boxes2: ``[..., 4]`` corners, each of any real dtype; leading dims broadcast.
        reduction: ``"none"``, ``"mean"`` (0 for no boxes) or ``"sum"``.
        eps: added to the divisors of the IoU and of the penalty; >= 0 and finite.

    Returns:
        ``[...]``, or a scalar, in the compute type of :func:`box_iou`. Differentiable once for tensors, in reverse and
        forward mode.

    Raises:
        ValueError: as for :func:`box_iou`, ``reduction`` is unknown, or ``eps`` is negative, infinite or NaN.

    Source: Rezatofighi et al., CVPR 2019.
    """
    return _loss("generalized_box_iou", boxes1, boxes2, reduction, eps)


def distance_box_iou_loss(boxes1: Array, boxes2: Array, reduction: str = "none", eps: float = 1e-7) -> Array:
    """1 - distance IoU of paired boxes; see :func:`generalized_box_iou_loss`. Source: Zheng et al., AAAI 2020."""
    return _loss("distance_box_iou", boxes1, boxes2, reduction, eps)


def complete_box_iou_loss(boxes1: Array, boxes2: Array, reduction: str = "none", eps: float = 1e-7) -> Array:
    """1 - complete IoU of paired boxes; see :func:`generalized_box_iou_loss`. Source: Zheng et al., AAAI 2020."""
    return _loss("complete_box_iou", boxes1, boxes2, reduction, eps)
