"""torchvision's steps with boxops inside, under torchvision's signatures.

Where a module's class has its own version of a part that would be fused away, torchvision's code runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection import _utils, anchor_utils, roi_heads, rpn, ssd
from torchvision.ops import boxes as box_ops
from torchvision.ops import poolers

import boxops

PLAIN = ("xyxy", "xywh", "cxcywh")
Images = list[Tensor]


def _same(owner: Any, kind: type, *names: str) -> bool:
    """Whether a module's class has these methods from torchvision's, so that they may be fused."""
    return all(getattr(type(owner), name) is getattr(kind, name) for name in names)


_box_iou, _box_convert = box_ops.box_iou, box_ops.box_convert


def _joint(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes in one dtype, as torch's arithmetic promotes them: under autocast anchors are float16, objects float32."""
    dtype = torch.promote_types(boxes.dtype, others.dtype)
    return boxes.to(dtype), others.to(dtype)


def box_iou(boxes1: Tensor, boxes2: Tensor, fmt: str = "xyxy") -> Tensor:
    return boxops.box_iou(*_joint(boxes1, boxes2), fmt=fmt) if fmt in PLAIN else _box_iou(boxes1, boxes2, fmt)


def box_convert(boxes: Tensor, in_fmt: str, out_fmt: str) -> Tensor:
    if in_fmt in PLAIN and out_fmt in PLAIN:
        return boxops.box_convert(boxes, in_fmt, out_fmt)
    return _box_convert(boxes, in_fmt, out_fmt)


def paste_masks_in_image(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1) -> Tensor:
    height, width = img_shape
    return boxops.paste_masks(masks, boxes, (int(height), int(width)), padding=padding)


# Methods, bound to torchvision's modules.

_AnchorGenerator, _Pooler = anchor_utils.AnchorGenerator, poolers.MultiScaleRoIAlign
_RPN, _RoIHeads, _SSD = rpn.RegionProposalNetwork, roi_heads.RoIHeads, ssd.SSD
_anchors_forward, _pooler_forward, _rpn_forward = _AnchorGenerator.forward, _Pooler.forward, _RPN.forward
_to_anchors, _to_proposals = _RPN.assign_targets_to_anchors, _RoIHeads.assign_targets_to_proposals
_roi_postprocess, _ssd_postprocess = _RoIHeads.postprocess_detections, _SSD.postprocess_detections


def encode_single(self: Any, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
    return boxops.encode_boxes(*_joint(reference_boxes, proposals), weights=self.weights)


def decode_single(self: Any, rel_codes: Tensor, boxes: Tensor) -> Tensor:
    return _decode(self, rel_codes.unflatten(1, (-1, 4)), boxes[:, None]).flatten(1)


def _decode(coder: Any, codes: Tensor, boxes: Tensor, size: Any = None) -> Tensor:
    boxes = boxes.to(torch.promote_types(codes.dtype, torch.float32))
    return boxops.decode_boxes(codes, boxes, coder.weights, clip=coder.bbox_xform_clip, size=size)


def anchors_forward(self: Any, image_list: Any, feature_maps: Images) -> Images:
    if not _same(self, _AnchorGenerator, "generate_anchors", "grid_anchors", "set_cell_anchors"):
        return _anchors_forward(self, image_list, feature_maps)
    grids = [(feature.shape[-2], feature.shape[-1]) for feature in feature_maps]
    size = (image_list.tensors.shape[-2], image_list.tensors.shape[-1])
    anchors = boxops.grid_anchors(size, grids, self.sizes, self.aspect_ratios, like=feature_maps[0])
    return [anchors] * len(image_list.image_sizes)


def pooler_forward(self: Any, x: dict[str, Tensor], boxes: Images, image_shapes: Any) -> Tensor:
    features = [feature for name, feature in x.items() if name in self.featmap_names]
    if self.scales is None or self.map_levels is None:
        self.scales, self.map_levels = poolers._setup_scales(
            features, image_shapes, self.canonical_scale, self.canonical_level
        )
    if any(fine != 2 * coarse for fine, coarse in zip(self.scales, self.scales[1:], strict=False)):
        # torchvision takes levels as consecutive; of MobileNetV3's two maps of one scale it reads the first.
        return _pooler_forward(self, x, boxes, image_shapes)
    if len(features) == 1:
        return boxops.roi_align(features[0], boxes, self.output_size, self.scales[0], self.sampling_ratio)
    features = [feature.to(features[0].dtype) for feature in features]
    return boxops.multiscale_roi_align(
        features, boxes, self.output_size, self.scales, self.sampling_ratio,
        canonical_scale=self.canonical_scale, canonical_level=self.canonical_level,
    )  # fmt: skip


def rpn_forward(self: Any, images: Any, features: dict[str, Tensor], targets: Any = None) -> tuple[Images, Any]:
    if not (_same(self, _RPN, "filter_proposals", "_get_top_n_idx") and type(self.box_coder) is _utils.BoxCoder):
        return _rpn_forward(self, images, features, targets)
    levels = list(features.values())
    objectness, codes = self.head(levels)
    anchors = self.anchor_generator(images, levels)
    counts = [logits[0].numel() for logits in objectness]
    objectness, codes = rpn.concat_box_prediction_layers(objectness, codes)
    boxes = propose(self, anchors, objectness, codes, counts, images.image_sizes)
    if not self.training:
        return boxes, {}
    if targets is None:
        raise ValueError("targets should not be None")
    labels, matched = self.assign_targets_to_anchors(anchors, targets)
    objective, regression = self.compute_loss(objectness, codes, labels, self.box_coder.encode(matched, anchors))
    return boxes, {"loss_objectness": objective, "loss_rpn_box_reg": regression}


def propose(self: Any, anchors: Images, objectness: Tensor, codes: Tensor, counts: list[int], sizes: Any) -> Images:
    """Decoding of the codes and filter_proposals in one."""
    shared = all(some is anchors[0] for some in anchors)
    boxes, _, real = boxops.generate_proposals(
        objectness.detach().view(len(anchors), -1),
        codes.detach().view(len(anchors), -1, 4),
        anchors[0] if shared else torch.stack(anchors),
        counts,
        sizes,
        self.pre_nms_top_n(),
        self.post_nms_top_n(),
        self.nms_thresh,
        score_threshold=self.score_thresh,
        min_size=self.min_size,
        weights=self.box_coder.weights,
        clip=self.box_coder.bbox_xform_clip,
    )
    return [some[:count] for some, count in zip(boxes, real.tolist(), strict=True)]


def _match(matcher: Any, candidates: Tensor, objects: Tensor) -> Tensor:
    objects, candidates = _joint(objects, candidates)
    low_quality = matcher.allow_low_quality_matches
    return boxops.match_max_iou(candidates, objects, matcher.high_threshold, matcher.low_threshold, low_quality)[0]


def assign_targets_to_anchors(self: Any, anchors: Images, targets: Any) -> tuple[Images, Images]:
    if type(self.proposal_matcher) is not _utils.Matcher or self.box_similarity not in (_box_iou, box_iou):
        return _to_anchors(self, anchors, targets)
    labels, matched = [], []
    for some, target in zip(anchors, targets, strict=True):
        boxes = target["boxes"]
        matches = _match(self.proposal_matcher, some, boxes)  # -1: background, -2: between the thresholds
        labels.append((matches.clamp(max=0) + 1).float())
        matched.append(boxes[matches.clamp(min=0)] if len(boxes) else boxes.new_zeros(some.shape))
    return labels, matched


def assign_targets_to_proposals(self: Any, proposals: Images, gt_boxes: Images, gt_labels: Images) -> Any:
    if type(self.proposal_matcher) is not _utils.Matcher:
        return _to_proposals(self, proposals, gt_boxes, gt_labels)
    matched, labels = [], []
    for some, boxes, classes in zip(proposals, gt_boxes, gt_labels, strict=True):
        matches = _match(self.proposal_matcher, some, boxes)
        matched.append(matches.clamp(min=0))
        own = classes[matched[-1]] if len(boxes) else matches
        labels.append(torch.where(matches >= 0, own.long(), matches + 1))
    return matched, labels


def _detect(self: Any, boxes: Tensor, scores: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of one image, from scores of all classes with the background."""
    boxes, scores, labels, counts = boxops.detect(
        boxes[None], scores[None, :, 1:], self.score_thresh, self.nms_thresh, self.detections_per_img, **options
    )
    count = int(counts)
    return boxes[0, :count], scores[0, :count], labels[0, :count] + 1


def roi_postprocess(
    self: Any, class_logits: Tensor, box_regression: Tensor, proposals: Images, image_shapes: Any
) -> Any:
    if type(self.box_coder) is not _utils.BoxCoder:
        return _roi_postprocess(self, class_logits, box_regression, proposals, image_shapes)
    counts = [len(some) for some in proposals]
    scores, codes = F.softmax(class_logits, -1), box_regression.unflatten(1, (-1, 4))
    found = [
        _detect(self, _decode(self.box_coder, code[:, 1:], some[:, None], size), score, min_size=1e-2)
        for score, code, some, size in zip(
            scores.split(counts), codes.split(counts), proposals, image_shapes, strict=True
        )
    ]
    boxes, labelled, labels = zip(*found, strict=True)
    return list(boxes), list(labelled), list(labels)


def ssd_postprocess(self: Any, head_outputs: dict[str, Tensor], image_anchors: Images, image_shapes: Any) -> Any:
    if type(self.box_coder) is not _utils.BoxCoder:
        return _ssd_postprocess(self, head_outputs, image_anchors, image_shapes)
    images = zip(
        head_outputs["bbox_regression"],
        F.softmax(head_outputs["cls_logits"], -1),
        image_anchors,
        image_shapes,
        strict=True,
    )
    found = [
        _detect(self, _decode(self.box_coder, codes, anchors, size), scores, topk_per_class=self.topk_candidates)
        for codes, scores, anchors, size in images
    ]
    return [dict(zip(("boxes", "scores", "labels"), some, strict=True)) for some in found]
