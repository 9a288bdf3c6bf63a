"""Mask R-CNN: Faster R-CNN with a mask of each object, and keypoints where the data have them.

He et al., "Mask R-CNN", ICCV 2017; section 5 has the keypoints. Modules and settings have the names of torchvision's,
whose checkpoints load as they are. Shapes: B images, P positive RoIs of all of them, C classes with the background,
D detections, K keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypoints_to_heatmap

import boxops

from . import backbones
from .builders import ADAMW, Weights, detector
from .common import GroundTruth, mean_over_processes, split
from .faster_rcnn import MOBILENET, RESNET, RESNET_V2, SMALL, FasterRCNN, Settings
from .roi_heads import ConvHead, Result, TwoMLPHead, pool
from .rpn import Sample

POOL_SIZE = 14  # bins of a RoI; masks have twice as many pixels along each axis, heatmaps four times. Figure 4, right


class MaskRCNN(FasterRCNN):
    """Faster R-CNN with a mask branch, a keypoint branch, or both; see :class:`Detector` for what goes in and out.

    Args:
        backbone, num_classes, settings: as for :class:`FasterRCNN`, like the further ones.
        mask_layers: channels of the mask head's convolutions; none: no mask branch.
        mask_norm: what normalises after each of them; None: nothing.
        keypoint_layers: channels of the keypoint head's convolutions.
        num_keypoints: keypoints of an object; 0: no keypoint branch.

    Targets need ``masks`` ``[G, H, W]``, 0 or 1, and ``keypoints`` ``[G, K, 3]``: x, y and visibility, where 0 is not
    labelled. The losses are those of Faster R-CNN, ``loss_mask`` and ``loss_keypoint``; detections get ``masks``
    ``[D, 1, H, W]`` of probabilities, ``keypoints`` ``[D, K, 3]`` with 1 as visibility and ``keypoints_scores``
    ``[D, K]``, the logits.
    """

    legacy_names = (
        *FasterRCNN.legacy_names,
        *((rf"^roi_heads\.mask_head\.mask_fcn{i}\.", f"roi_heads.mask_head.{i - 1}.0.") for i in range(1, 5)),
    )

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        settings: Settings = Settings(),  # noqa: B008  # it is frozen
        *,
        mask_layers: Sequence[int] = (256,) * 4,
        mask_norm: Callable[..., nn.Module] | None = None,
        keypoint_layers: Sequence[int] = (512,) * 8,
        num_keypoints: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(backbone, num_classes, settings, **options)
        channels = int(backbone.out_channels)  # type: ignore[arg-type]
        self.has_masks, self.num_keypoints = len(mask_layers) > 0, num_keypoints
        if mask_layers:
            self.roi_heads.mask_head = MaskRCNNHeads(channels, mask_layers, 1, mask_norm)
            self.roi_heads.mask_predictor = MaskRCNNPredictor(mask_layers[-1], mask_layers[-1], num_classes)
        if num_keypoints:
            self.roi_heads.keypoint_head = KeypointRCNNHeads(channels, keypoint_layers)
            self.roi_heads.keypoint_predictor = KeypointRCNNPredictor(keypoint_layers[-1], num_keypoints)

    def branch(
        self, name: str, features: Sequence[Tensor], boxes: Tensor | Sequence[Tensor], batch: ImageList
    ) -> Tensor:
        """The logits of "mask" [P, C, 28, 28] or "keypoint" [P, K, 56, 56] in the boxes [P_b, 4] of each image, or
        [B, P_b, 4] of all."""
        head = self.roi_heads.get_submodule(f"{name}_head")
        predictor = self.roi_heads.get_submodule(f"{name}_predictor")
        logits: Tensor = predictor(head(pool(features, boxes, batch, POOL_SIZE)))
        return logits.float()

    def branch_losses(
        self,
        pooled: Sequence[Tensor],
        batch: ImageList,
        sample: Sample,
        boxes: Tensor,
        matches: Tensor,
        truth: GroundTruth,
    ) -> dict[str, Tensor]:
        """Only positives have a mask and keypoints to learn; they are the first of each image's sample."""
        positives = split({"boxes": boxes, "objects": matches}, sample.positive.sum(dim=1))
        windows, objects = [some["boxes"] for some in positives], [some["objects"] for some in positives]
        firsts = truth.offsets[:-1].repeat_interleave(sample.positive.sum(dim=1))
        weights = truth.weights[torch.cat(objects) + firsts]  # [P]
        losses = {}
        if self.has_masks:
            masks = of_objects(truth, "masks")
            labels = torch.cat([image["labels"][i] for image, i in zip(truth.images, objects, strict=True)])
            logits = self.branch("mask", pooled, windows, batch)
            losses["loss_mask"] = mask_loss(logits, labels, windows, objects, masks, weights)
        if self.num_keypoints:
            keypoints = of_objects(truth, "keypoints", self.num_keypoints, 3)
            points = torch.cat([points[i] for points, i in zip(keypoints, objects, strict=True)])
            logits = self.branch("keypoint", pooled, windows, batch)
            losses["loss_keypoint"] = keypoint_loss(logits, torch.cat(windows), points, weights)
        return losses

    def detections(self, batch: ImageList) -> list[Result]:
        """The branches run on the real boxes alone, not on all that ``padded`` has."""
        found, counts, pooled = self.boxes(batch)
        results = split(found, counts)
        boxes, labels = [result["boxes"] for result in results], torch.cat([result["labels"] for result in results])
        each = [len(some) for some in boxes]
        if self.has_masks:
            masks = self.masks(pooled, boxes, labels, batch)
            for result, some in zip(results, masks.split(each), strict=True):
                result["masks"] = some
        if self.num_keypoints:
            points, scores = heatmaps_to_keypoints(self.branch("keypoint", pooled, boxes, batch), torch.cat(boxes))
            for result, some, score in zip(results, points.split(each), scores.split(each), strict=True):
                result["keypoints"], result["keypoints_scores"] = some, score
        return results

    def padded(self, batch: ImageList) -> tuple[Result, Tensor]:
        found, counts, pooled = self.boxes(batch)
        boxes, shape = found["boxes"], found["labels"].shape
        if self.has_masks:
            found["masks"] = self.masks(pooled, boxes, found["labels"].flatten(), batch).unflatten(0, shape)
        if self.num_keypoints:
            found["keypoint_logits"] = self.branch("keypoint", pooled, boxes, batch).unflatten(0, shape)
        return found, counts

    def masks(self, pooled: list[Tensor], boxes: Tensor | Sequence[Tensor], labels: Tensor, batch: ImageList) -> Tensor:
        """[P, 1, 28, 28]: probabilities within the boxes, of their own classes [P]."""
        return own_class(self.branch("mask", pooled, boxes, batch), labels).sigmoid()[:, None]


def of_objects(truth: GroundTruth, key: str, *shape: int) -> list[Tensor]:
    """The masks or keypoints of each image's objects; shape is that of each, where it is known."""
    for i, image in enumerate(truth.images):
        found = [*image[key].shape] if key in image else "none"
        if key not in image or image[key].ndim != 3 or (shape and image[key].shape[1:] != shape):
            expected = ", ".join(["G", *map(str, shape or "HW")])
            raise ValueError(f"expected {key} [{expected}] for image {i}, got {found}")
    return [image[key] for image in truth.images]


def own_class(logits: Tensor, labels: Tensor) -> Tensor:
    """Of masks [P, C, M, M] those of the classes [P]: classes do not compete. Section 3."""
    return logits[torch.arange(len(labels), device=labels.device), labels]


def mask_loss(
    logits: Tensor,
    labels: Tensor,
    boxes: Sequence[Tensor],
    objects: Sequence[Tensor],
    masks: Sequence[Tensor],
    weights: Tensor,
) -> Tensor:
    """The mean cross entropy of the pixels of masks [P, C, M, M], which should be the objects' within the boxes.

    Boxes [P_b, 4], objects [P_b] and masks [G_b, H_b, W_b] are each image's; weights [P] say what each mask counts.
    """
    size = logits.shape[-1]
    mask_targets = [
        boxops.roi_align(mask[:, None].to(box), torch.cat([i[:, None].to(box), box], dim=1), size).squeeze(1)
        for mask, i, box in zip(masks, objects, boxes, strict=True)
    ]
    loss = F.binary_cross_entropy_with_logits(own_class(logits, labels), torch.cat(mask_targets), reduction="none")
    return (loss.sum(dim=(1, 2)) * weights).sum() / (size**2 * mean_over_processes(weights.sum()))


def keypoint_loss(logits: Tensor, boxes: Tensor, keypoints: Tensor, weights: Tensor) -> Tensor:
    """The cross entropy over all places of a heatmap [P, K, M, M] whether the keypoint is there. Section 5.

    Boxes are [P, 4], weights [P] and keypoints [P, K, 3]; those that are not labelled or lie outside of the box do not
    count.
    """
    places, valid = keypoints_to_heatmap(keypoints, boxes, logits.shape[-1])
    places = places.where(valid > 0, -100)
    loss = F.cross_entropy(logits.flatten(0, 1).flatten(1), places.flatten(), reduction="none").view_as(places)
    weights = weights[:, None] * (valid > 0)
    return (loss * weights).sum() / mean_over_processes(weights.sum())


@detector(Settings(), pretrained=RESNET, needs=("masks",))
def mask_rcnn_resnet50_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> MaskRCNN:
    """Mask R-CNN on ResNet-50 with FPN; loads torchvision's ``maskrcnn_resnet50_fpn``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    return MaskRCNN(backbones.resnet_fpn(network), num_classes, settings)


@detector(Settings(), pretrained=RESNET_V2, needs=("masks",))
def mask_rcnn_resnet50_fpn_v2(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> MaskRCNN:
    """Mask R-CNN with batch norm and deeper heads: loads torchvision's ``maskrcnn_resnet50_fpn_v2``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    backbone = backbones.resnet_fpn(network, norm="batch")
    head = ConvHead(backbone.out_channels)  # type: ignore[arg-type]
    return MaskRCNN(backbone, num_classes, settings, mask_norm=nn.BatchNorm2d, box_head=head, rpn_convs=2)


@detector(Settings(min_size=(640, 672, 704, 736, 768, 800)), pretrained=RESNET, num_classes=2, needs=("keypoints",))
def keypoint_rcnn_resnet50_fpn(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    norm: str = "batch",
    freeze: int = 0,
    num_keypoints: int = 17,
) -> MaskRCNN:
    """Keypoint R-CNN on ResNet-50 with FPN; loads torchvision's ``keypointrcnn_resnet50_fpn``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    return MaskRCNN(backbones.resnet_fpn(network), num_classes, settings, mask_layers=(), num_keypoints=num_keypoints)


@detector(Settings(**SMALL), short="mask_rcnn", pretrained=MOBILENET, training=ADAMW, needs=("masks",))
def mask_rcnn_mobilenet_v2_fpn(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    norm: str = "batch",
    freeze: int = 0,
    num_keypoints: int = 0,
) -> MaskRCNN:
    """Mask R-CNN on MobileNetV2 with FPN from stride 8, with keypoints if there are any: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    backbone = backbones.mobilenet_fpn(network, (6, 13, 18), 128)
    return MaskRCNN(
        backbone,
        num_classes,
        settings,
        mask_layers=(64, 64),
        keypoint_layers=(64,) * 4,
        num_keypoints=num_keypoints,
        box_head=TwoMLPHead(backbone.out_channels * 49, 256),  # type: ignore[arg-type, operator]
    )
