"""From the heads' numbers of torchvision's detectors to detections and masks, on boxops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import boxes as box_ops

import boxops
from boxops.swap.detectors import DETECTION, Images, decode, plain_coder
from boxops.swap.guards import in_place_of, is_size, numbers, plain, threshold, wants_gradient
from boxops.swap.steps import BATCHED_NMS


def _can_detect(self: Any, sizes: Sequence[Any], *tensors: Tensor) -> bool:
    limits = self.score_thresh, self.nms_thresh, self.detections_per_img
    one_type = plain(*tensors) and all(tensor.dtype == tensors[0].dtype for tensor in tensors)
    whole = isinstance(self.detections_per_img, int)
    served = one_type and whole and numbers(*limits) and all(map(is_size, sizes)) and plain_coder(self.box_coder)
    return served and not wants_gradient(*tensors) and box_ops.batched_nms is BATCHED_NMS


def _detect(self: Any, boxes: Tensor, scores: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of one image, from scores of all classes with the background."""
    limits = self.score_thresh, threshold(self.nms_thresh, boxes), self.detections_per_img
    boxes, scores, labels, counts = boxops.detect(boxes[None], scores[None, :, 1:], *limits, **options)
    count = int(counts)
    return boxes[0, :count], scores[0, :count], labels[0, :count] + 1


@in_place_of(f"{DETECTION}.roi_heads.RoIHeads.postprocess_detections")
def roi_postprocess(
    self: Any, class_logits: Tensor, box_regression: Tensor, proposals: Images, image_shapes: Any
) -> Any:
    if not _can_detect(self, image_shapes, class_logits, box_regression, *proposals) or not class_logits.numel():
        return NotImplemented
    counts = [len(some) for some in proposals]
    scores, deltas = F.softmax(class_logits, -1), box_regression.unflatten(1, (-1, 4))
    found = [
        _detect(self, decode(self.box_coder, delta[:, 1:], some[:, None], size), score, min_size=1e-2)
        for score, delta, some, size in zip(
            scores.split(counts), deltas.split(counts), proposals, image_shapes, strict=False
        )
    ]
    boxes, labelled, labels = zip(*found, strict=True)
    return list(boxes), list(labelled), list(labels)


@in_place_of(f"{DETECTION}.ssd.SSD.postprocess_detections")
def ssd_postprocess(self: Any, head_outputs: dict[str, Tensor], image_anchors: Images, image_shapes: Any) -> Any:
    logits, deltas = head_outputs["cls_logits"], head_outputs["bbox_regression"]
    if not _can_detect(self, image_shapes, logits, deltas, *image_anchors) or not isinstance(self.topk_candidates, int):
        return NotImplemented
    if not numbers(self.topk_candidates) or not logits.numel():
        return NotImplemented
    images = zip(deltas, F.softmax(logits, -1), image_anchors, image_shapes, strict=False)
    found = [
        _detect(self, decode(self.box_coder, delta, anchors, size), score, topk_per_class=self.topk_candidates)
        for delta, score, anchors, size in images
    ]
    if any((score[1:] == score[:-1]).any() for _, score, _ in found):
        return NotImplemented  # of equal scores torch's topk takes any
    return [dict(zip(("boxes", "scores", "labels"), some, strict=True)) for some in found]


@in_place_of(f"{DETECTION}.roi_heads.paste_masks_in_image")
def paste_masks_in_image(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1) -> Tensor:
    if not plain(masks, boxes) or wants_gradient(masks) or not (masks.numel() and is_size(img_shape)):
        return NotImplemented
    fits = masks.dim() == 4 and masks.shape[1] == 1 and boxes.shape == (len(masks), 4) and isinstance(padding, int)
    if not fits or masks.shape[2] != masks.shape[3] or not all(isinstance(side, int) for side in img_shape):
        return NotImplemented
    return boxops.paste_masks(masks, boxes, (img_shape[0], img_shape[1]), padding=padding)
