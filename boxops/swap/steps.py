"""torchvision.ops' Python functions on boxops, under torchvision's signatures.

Each serves where its result is torchvision's in value, dtype and gradient, and else gives NotImplemented. What is an
operator in torchvision (nms, roi_align, ...) is not here: see boxops.torch_ops.torchvision.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import boxes as box_ops
from torchvision.ops import poolers

import boxops
from boxops.swap.guards import (
    finite,
    in_place_of,
    is_size,
    numbers,
    plain,
    regular,
    threshold,
    touching,
    wants_gradient,
)

FORMATS = ("xyxy", "xywh", "cxcywh")
BATCHED_NMS = box_ops.batched_nms


def _are_boxes(*boxes: Any) -> bool:
    return plain(*boxes) and all(some.dim() >= 2 and some.shape[-1] == 4 and some.numel() > 0 for some in boxes)


@in_place_of("torchvision.ops.boxes.batched_nms")
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Groups are kept apart exactly; torchvision moves the boxes of few groups apart, which rounds them."""
    if not (_are_boxes(boxes) and plain(boxes, scores) and numbers(iou_threshold) and type(idxs) is Tensor):
        return NotImplemented
    fits = boxes.dtype == scores.dtype and boxes.dim() == 2 and scores.shape == idxs.shape == boxes.shape[:1]
    if not fits or idxs.device != boxes.device or idxs.dtype.is_complex:
        return NotImplemented
    if idxs.is_floating_point() and not (idxs.long() == idxs).all():
        return NotImplemented  # boxops refuses ids that are fractions
    keep = boxops.batched_nms(boxes, scores, idxs, threshold(iou_threshold, boxes))
    if boxes.numel() <= (4000 if boxes.device.type == "cpu" else 100_000):
        return keep
    keep = keep.sort().values  # of many boxes torchvision sorts those kept, and equal scores go as that sort has them
    return keep[scores[keep].sort(descending=True).indices]


@in_place_of("torchvision.ops.boxes.box_convert")
def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    if not (plain(boxes) and boxes.shape[-1:] == (4,) and in_fmt in FORMATS and out_fmt in FORMATS):
        return NotImplemented
    return NotImplemented if wants_gradient(boxes) else boxops.box_convert(boxes, in_fmt, out_fmt)


@in_place_of("torchvision.ops.boxes.clip_boxes_to_image")
def clip_boxes_to_image(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    if not (plain(boxes) and boxes.shape[-1:] == (4,) and is_size(size)) or wants_gradient(boxes):
        return NotImplemented
    return boxops.clip_boxes_to_image(boxes, size)


@in_place_of("torchvision.ops.boxes.remove_small_boxes")
def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    if not (plain(boxes) and boxes.dim() == 2 and boxes.shape[1] == 4 and finite(min_size)):
        return NotImplemented
    return boxops.remove_small_boxes(boxes, min_size)


@in_place_of("torchvision.ops.boxes.masks_to_boxes")
def masks_to_boxes(masks: Tensor) -> Tensor:
    served = type(masks) is Tensor and masks.dtype in (torch.bool, torch.uint8) and masks.device.type in ("cpu", "cuda")
    return boxops.masks_to_boxes(masks) if served and masks.dim() == 3 and masks.numel() else NotImplemented


# Measures, pairwise


def _pairwise(measure: str, boxes1: Any, boxes2: Any, *rest: Any, fmt: str = "xyxy") -> Any:
    if not _are_boxes(boxes1, boxes2) or boxes1.is_cuda or wants_gradient(boxes1, boxes2):
        return NotImplemented  # a look at boxes on a device would wait for it
    if not regular(boxes1, boxes2, fmt=fmt):
        return NotImplemented
    return getattr(boxops, measure)(boxes1, boxes2, *rest, fmt=fmt)


@in_place_of("torchvision.ops.boxes.box_iou")
def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    return _pairwise("box_iou", boxes1, boxes2, fmt=fmt) if fmt in FORMATS else NotImplemented


@in_place_of("torchvision.ops.boxes.generalized_box_iou")
def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return _pairwise("generalized_box_iou", boxes1, boxes2)


@in_place_of("torchvision.ops.boxes.distance_box_iou")
def distance_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    return _pairwise("distance_box_iou", boxes1, boxes2, eps) if numbers(eps) else NotImplemented


@in_place_of("torchvision.ops.boxes.complete_box_iou")
def complete_box_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    return _pairwise("complete_box_iou", boxes1, boxes2, eps) if numbers(eps) else NotImplemented


# Losses


class _Twice(torch.autograd.Function):
    """Our loss and its gradient; where that gradient is to be differentiated in turn, torchvision's."""

    @staticmethod
    def forward(ctx: Any, ours: Any, theirs: Any, *boxes: Tensor) -> Tensor:
        ctx.save_for_backward(*boxes)
        ctx.theirs, ctx.leaves = theirs, [some.detach().requires_grad_(some.requires_grad) for some in boxes]
        with torch.enable_grad():
            ctx.loss = ours(*ctx.leaves)
        return ctx.loss.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        again = torch.is_grad_enabled()
        boxes = ctx.saved_tensors if again else ctx.leaves
        loss = ctx.theirs(*boxes) if again else ctx.loss
        wanted = [some for some in boxes if some.requires_grad]
        slopes = iter(torch.autograd.grad(loss, wanted, grad, retain_graph=True, create_graph=again))
        return None, None, *(next(slopes) if some.requires_grad else None for some in boxes)


def _loss(name: str, boxes1: Any, boxes2: Any, reduction: Any, eps: Any) -> Any:
    if not plain(boxes1, boxes2) or boxes1.is_cuda or boxes1.dtype != boxes2.dtype or boxes1.shape != boxes2.shape:
        return NotImplemented
    known = reduction in ("none", "mean", "sum") and numbers(eps)
    flat = name == "generalized_box_iou_loss"  # FCOS's first boxes are points; the others have kinks there
    if not known or boxes1.shape[-1:] != (4,) or not regular(boxes1, boxes2, flat=flat):
        return NotImplemented
    if not wants_gradient(boxes1, boxes2):
        return getattr(boxops, name)(boxes1, boxes2, reduction, eps)
    if touching(boxes1, boxes2):
        return NotImplemented
    ours, theirs = getattr(boxops, name), globals()[name].theirs
    return _Twice.apply(
        lambda *boxes: ours(*boxes, reduction, eps), lambda *boxes: theirs(*boxes, reduction, eps), boxes1, boxes2
    )


@in_place_of("torchvision.ops.giou_loss.generalized_box_iou_loss")
def generalized_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    return _loss("generalized_box_iou_loss", boxes1, boxes2, reduction, eps)


@in_place_of("torchvision.ops.diou_loss.distance_box_iou_loss")
def distance_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    return _loss("distance_box_iou_loss", boxes1, boxes2, reduction, eps)


@in_place_of("torchvision.ops.ciou_loss.complete_box_iou_loss")
def complete_box_iou_loss(boxes1: Tensor, boxes2: Tensor, reduction: str = "none", eps: float = 1e-7) -> Tensor:
    # torchvision's distance keeps the eps of 1e-7 whatever eps is.
    return _loss("complete_box_iou_loss", boxes1, boxes2, reduction, eps) if eps == 1e-7 else NotImplemented


# Pooling


@in_place_of("torchvision.ops.poolers.MultiScaleRoIAlign.forward")
def pooler_forward(self: Any, x: Any, boxes: Any, image_shapes: Any) -> Any:
    """All levels in one launch; where there is one level, torchvision's code calls the operator."""
    if not (isinstance(x, dict) and isinstance(boxes, (list, tuple))):
        return NotImplemented
    features = [feature for name, feature in x.items() if name in self.featmap_names]
    if len(features) < 2 or not boxes or not plain(*features, *boxes) or len(boxes) != len(features[0]):
        return NotImplemented
    if self.scales is None or self.map_levels is None:
        self.scales, self.map_levels = poolers._setup_scales(
            features, image_shapes, self.canonical_scale, self.canonical_level
        )
    if not (_served_levels(self.map_levels, self.scales, features) and _are_rois(boxes, features)):
        return NotImplemented
    return boxops.multiscale_roi_align(
        features, boxes, self.output_size, self.scales, self.sampling_ratio,
        canonical_scale=self.map_levels.s0, canonical_level=self.map_levels.lvl0,
    )  # fmt: skip


def _served_levels(mapper: Any, scales: Sequence[float], features: list[Tensor]) -> bool:
    # torchvision takes levels as consecutive; of MobileNetV3's two maps of one scale it reads the first.
    consecutive = all(fine == 2 * coarse for fine, coarse in itertools.pairwise(scales))
    if type(mapper) is not poolers.LevelMapper or mapper.eps != 1e-6 or len(scales) != len(features):
        return False
    return consecutive and scales[0] == 2.0**-mapper.k_min and mapper.k_min + len(scales) - 1 == mapper.k_max


def _are_rois(boxes: Sequence[Tensor], features: list[Tensor]) -> bool:
    one_type = all(some.dtype == features[0].dtype for some in (*boxes, *features))
    if not one_type or not all(some.dim() == 2 and some.shape[1] == 4 for some in boxes):
        return False
    real = [some for some in boxes if len(some)]
    return not real or regular(torch.cat(real) if len(real) > 1 else real[0])
