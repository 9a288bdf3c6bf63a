"""Anchors, deltas, proposals and matching of torchvision's detectors on boxops, under torchvision's signatures.

Where a module has its own version of a part that would be fused away, and where a gradient is wanted, torchvision's
code runs.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import _utils, anchor_utils, rpn
from torchvision.ops import boxes as box_ops

import boxops
from boxops.swap.guards import finite, in_place_of, is_size, numbers, plain, regular, threshold, wants_gradient
from boxops.swap.steps import BATCHED_NMS

DETECTION = "torchvision.models.detection"
Images = list[Tensor]


def _methods(kind: type, *names: str) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in names}


_ANCHORS = _methods(anchor_utils.AnchorGenerator, "generate_anchors", "grid_anchors", "set_cell_anchors")
_RPN = _methods(rpn.RegionProposalNetwork, "filter_proposals", "_get_top_n_idx")


def _intact(module: Any, methods: dict[str, Any]) -> bool:
    """Whether a module has these methods, not its own or ones set by hand, and batched_nms is torchvision's."""
    unchanged = all(getattr(getattr(module, name), "__func__", None) is method for name, method in methods.items())
    return unchanged and box_ops.batched_nms is BATCHED_NMS


# Codes


def plain_coder(coder: Any) -> bool:
    weights = coder.weights
    return (
        type(coder) is _utils.BoxCoder
        and isinstance(weights, (tuple, list))
        and len(weights) == 4
        and all(finite(weight) and weight > 0 for weight in weights)
        and finite(coder.bbox_xform_clip)
    )


@in_place_of(f"{DETECTION}._utils.BoxCoder.encode_single")
def encode_single(self: Any, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
    if not (plain_coder(self) and plain(reference_boxes, proposals)) or wants_gradient(reference_boxes, proposals):
        return NotImplemented
    fits = reference_boxes.shape == proposals.shape and proposals.dim() == 2 and proposals.shape[1] == 4
    if not fits or reference_boxes.dtype != proposals.dtype:
        return NotImplemented
    return boxops.encode_boxes(reference_boxes, proposals, self.weights)


@in_place_of(f"{DETECTION}._utils.BoxCoder.decode_single")
def decode_single(self: Any, rel_codes: Tensor, boxes: Tensor) -> Tensor:
    if not (plain_coder(self) and plain(rel_codes, boxes)) or wants_gradient(rel_codes, boxes):
        return NotImplemented
    if rel_codes.dim() != 2 or rel_codes.shape[1] % 4 or not rel_codes.numel() or boxes.shape != (len(rel_codes), 4):
        return NotImplemented
    return decode(self, rel_codes.unflatten(1, (-1, 4)), boxes[:, None]).flatten(1)


def decode(coder: Any, deltas: Tensor, boxes: Tensor, size: Any = None) -> Tensor:
    return boxops.decode_boxes(
        deltas, boxes.to(deltas.dtype), coder.weights, clip=coder.bbox_xform_clip, image_size=size
    )


# Anchors


_checked: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _of_its_sizes(generator: Any, like: Tensor) -> bool:
    """Whether cell_anchors are what sizes and ratios give, not set by hand. Looked at once, as long as none changes."""
    cells = generator.cell_anchors
    versions = [0 if cell.is_inference() else cell._version for cell in cells]
    state = (repr((generator.sizes, generator.aspect_ratios)), [id(cell) for cell in cells], versions)
    known = _checked.get(generator)
    if known is None or known[0] != state:
        one = [(1, 1)] * len(cells)
        made = boxops.grid_anchors((1, 1), one, generator.sizes, generator.aspect_ratios, like=like)
        _checked[generator] = known = (state, cells, torch.equal(made, torch.cat(cells)))  # cells: so that ids hold
    return known[2]


@in_place_of(f"{DETECTION}.anchor_utils.AnchorGenerator.forward")
def anchors_forward(self: Any, image_list: Any, feature_maps: Images) -> Images:
    """The images of a batch share one tensor of anchors."""
    if not (_intact(self, _ANCHORS) and plain(*feature_maps)):
        return NotImplemented
    if not len(feature_maps) == len(self.sizes) == len(self.aspect_ratios) == len(self.cell_anchors):
        return NotImplemented
    like = feature_maps[0]
    self.set_cell_anchors(like.dtype, like.device)
    if not plain(*self.cell_anchors) or wants_gradient(*self.cell_anchors) or not _of_its_sizes(self, like):
        return NotImplemented
    grids = [(feature.shape[-2], feature.shape[-1]) for feature in feature_maps]
    size = (image_list.tensors.shape[-2], image_list.tensors.shape[-1])
    anchors = boxops.grid_anchors(size, grids, self.sizes, self.aspect_ratios, like=like)
    return [anchors] * len(image_list.image_sizes)


# The region proposal network


@in_place_of(f"{DETECTION}.rpn.RegionProposalNetwork.forward")
def rpn_forward(self: Any, images: Any, features: dict[str, Tensor], targets: Any = None) -> tuple[Images, Any]:
    if not (_intact(self, _RPN) and plain_coder(self.box_coder)):
        return NotImplemented
    levels = list(features.values())
    objectness, deltas = self.head(levels)
    anchors = self.anchor_generator(images, levels)
    counts = [logits[0].numel() for logits in objectness]
    objectness, deltas = rpn.concat_box_prediction_layers(objectness, deltas)
    if _can_propose(self, anchors, objectness, deltas, images.image_sizes):
        boxes = propose(self, anchors, objectness, deltas, counts, images.image_sizes)
    else:
        proposals = self.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
        boxes, _ = self.filter_proposals(proposals, objectness, images.image_sizes, counts)
    if not self.training:
        return boxes, {}
    if targets is None:
        raise ValueError("targets should not be None")
    labels, matched = self.assign_targets_to_anchors(anchors, targets)
    objective, regression = self.compute_loss(objectness, deltas, labels, self.box_coder.encode(matched, anchors))
    return boxes, {"loss_objectness": objective, "loss_rpn_box_reg": regression}


def _can_propose(self: Any, anchors: Images, objectness: Tensor, deltas: Tensor, sizes: Any) -> bool:
    limits = self.pre_nms_top_n(), self.post_nms_top_n(), self.nms_thresh, self.score_thresh, self.min_size
    one_type = plain(objectness, deltas, *anchors) and all(
        some.dtype == deltas.dtype for some in (objectness, *anchors)
    )
    return one_type and numbers(*limits) and all(map(is_size, sizes)) and not wants_gradient(*anchors)


def propose(self: Any, anchors: Images, objectness: Tensor, deltas: Tensor, counts: list[int], sizes: Any) -> Images:
    """Decoding of the deltas and filter_proposals in one."""
    shared = all(some is anchors[0] for some in anchors)
    boxes, _, real = boxops.generate_proposals(
        objectness.detach().view(len(anchors), -1),
        deltas.detach().view(len(anchors), -1, 4),
        anchors[0] if shared else torch.stack(anchors),
        counts,
        sizes,
        self.pre_nms_top_n(),
        self.post_nms_top_n(),
        threshold(self.nms_thresh, deltas),
        score_threshold=self.score_thresh,
        min_size=self.min_size,
        weights=self.box_coder.weights,
        clip=self.box_coder.bbox_xform_clip,
    )
    return [some[:count] for some, count in zip(boxes, real.tolist(), strict=True)]


# Matching


def _matches(matcher: Any, objects: Tensor, candidates: Tensor) -> Tensor | None:
    """The object of each candidate, -1 for background, -2 between the thresholds; None where torchvision decides."""
    if type(matcher) is not _utils.Matcher or not plain(objects, candidates):
        return None
    shaped = all(some.dim() == 2 and some.shape[1] == 4 and len(some) for some in (objects, candidates))
    if not (shaped and numbers(matcher.high_threshold, matcher.low_threshold) and regular(objects)):
        return None
    limits = matcher.high_threshold, matcher.low_threshold, bool(matcher.allow_low_quality_matches)
    return boxops.match_max_iou(candidates.detach(), objects.detach(), *limits)[0]


@in_place_of(f"{DETECTION}.rpn.RegionProposalNetwork.assign_targets_to_anchors")
def assign_targets_to_anchors(self: Any, anchors: Images, targets: Any) -> Any:
    if self.box_similarity is not box_ops.box_iou:
        return NotImplemented
    labels, matched = [], []
    for some, target in zip(anchors, targets, strict=False):
        boxes = target["boxes"]
        if boxes.numel() == 0:
            labels.append(torch.zeros(len(some), device=some.device))
            matched.append(torch.zeros(some.shape, device=some.device))
            continue
        matches = _matches(self.proposal_matcher, boxes, some)
        if matches is None:
            return NotImplemented
        labels.append((matches.clamp(max=0) + 1).float())
        matched.append(boxes[matches.clamp(min=0)])
    return labels, matched


@in_place_of(f"{DETECTION}.roi_heads.RoIHeads.assign_targets_to_proposals")
def assign_targets_to_proposals(self: Any, proposals: Images, gt_boxes: Images, gt_labels: Images) -> Any:
    matched: Images = []
    labels: Images = []
    for some, boxes, classes in zip(proposals, gt_boxes, gt_labels, strict=False):
        if boxes.numel() == 0:
            for result in (matched, labels):
                result.append(torch.zeros(len(some), dtype=torch.int64, device=some.device))
            continue
        matches = _matches(self.proposal_matcher, boxes, some)
        if matches is None:
            return NotImplemented
        matched.append(matches.clamp(min=0))
        labels.append(torch.where(matches >= 0, classes[matched[-1]].long(), matches + 1))
    return matched, labels


@in_place_of(f"{DETECTION}.retinanet.RetinaNet.compute_loss")
def retinanet_loss(self: Any, targets: Any, head_outputs: Any, anchors: Images) -> Any:
    matched = []
    for target, some in zip(targets, anchors, strict=False):
        boxes = target["boxes"]
        if boxes.numel() == 0:
            matched.append(torch.full((len(some),), -1, dtype=torch.int64, device=some.device))
            continue
        matches = _matches(self.proposal_matcher, boxes, some)
        if matches is None:
            return NotImplemented
        matched.append(matches)
    return self.head.compute_loss(targets, head_outputs, anchors, matched)
