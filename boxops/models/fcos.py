"""FCOS: every point of a feature pyramid that lies in an object says how far off the object's edges are; no anchors.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, and what "FCOS: A Simple and Strong
Anchor-Free Object Detector" of 2020 adds. Modules and settings have the names of torchvision's ``fcos_resnet50_fpn``,
whose checkpoint loads as it is. Shapes: B images, A points, G objects of an image, N candidates, C classes with the
background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

import boxops

from . import backbones
from .builders import ADAMW, Weights, detector
from .common import IMAGENET, Detector, GroundTruth, Target, mean_over_processes
from .dense import Branch, candidates, focal_loss, suppress
from .sizes import resize


@dataclass(frozen=True)
class Settings:
    """The hyperparameters, with torchvision's names and values."""

    min_size: int | Sequence[int] = 800
    max_size: int = 1333
    multi_scale: bool = False  # learn at 10 to 19 thirteenths of them, see sizes.py
    # Of each level: the unit of its distances in pixels, which are from 4 to 8 units; those of the first from 0, those
    # of the last to any. Section 3.2
    anchor_sizes: Sequence[float] = (8, 16, 32, 64, 128)
    center_sampling_radius: float = 1.5  # in units
    alpha: float = 0.25
    gamma: float = 2.0
    score_thresh: float = 0.2
    topk_candidates: int = 1000
    nms_thresh: float = 0.6
    detections_per_img: int = 100


class FCOS(Detector):
    """FCOS on any backbone; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, H, W]`` to a dict of features, fine to coarse, each with ``out_channels``
            channels.
        num_classes: with the background, which is 0. As in torchvision each class, the background too, has a score of
            its own, and training pushes the background's to 0.
        settings: the hyperparameters.

    The losses are ``classification`` (focal), ``bbox_regression`` (GIoU) and ``bbox_ctrness``, all per matched point:
    equation 2; GIoU as in 2020. Points count with the weights of their objects.
    """

    weighted = True
    legacy_names: Sequence[tuple[str, str]] = (backbones.LEGACY_FPN,)

    def __init__(self, backbone: nn.Module, num_classes: int, settings: Settings = Settings()) -> None:
        s = settings
        super().__init__(resize(s.min_size, s.max_size, *IMAGENET, multi_scale=s.multi_scale))
        self.settings, self.backbone = s, backbone
        channels = int(backbone.out_channels)  # type: ignore[arg-type]

        def branch(**outputs: int) -> Branch:
            blocks = ((nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(32, channels), nn.ReLU())
                      for _ in range(4))  # fmt: skip
            return Branch(nn.Sequential(*chain.from_iterable(blocks)), channels, 1, **outputs)

        self.head = nn.ModuleDict(
            {
                "classification_head": branch(cls_logits=num_classes),
                "regression_head": branch(bbox_reg=4, bbox_ctrness=1),
            }
        )

    def predict(self, batch: ImageList) -> tuple[Tensor, Tensor, Tensor, Tensor, list[int]]:
        """Class logits [B, A, C], distances in units [B, A, 4], logits of the centerness [B, A], the points as boxes
        one unit wide [A, 4], and how many of them each level has."""
        features = list(self.backbone(batch.tensors).values())
        (logits,), (distances, centerness) = (
            self.head[name](features) for name in ("classification_head", "regression_head")
        )
        sizes = [(size,) for size in self.settings.anchor_sizes]
        grids = [(f.shape[-2], f.shape[-1]) for f in features]
        image_size = (batch.tensors.shape[-2], batch.tensors.shape[-1])
        anchors = boxops.grid_anchors(image_size, grids, sizes, [(1,)] * len(grids), like=logits)
        return logits, distances.relu(), centerness.squeeze(2), anchors, [height * width for height, width in grids]

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        s, truth = self.settings, GroundTruth.of(targets)
        logits, distances, centerness, anchors, levels = self.predict(batch)
        matches = self.match(anchors, levels, truth)  # [B, A]
        positive = matches >= 0
        boxes = truth.take(truth.boxes, matches).where(positive[..., None], anchors)  # [B, A, 4], finite everywhere
        regression = boxops.generalized_box_iou_loss(boxes_of(distances, anchors), boxes)
        left, top, right, bottom = edges(anchors, boxes).unbind(dim=-1)
        across, down = left.minimum(right) / left.maximum(right), top.minimum(bottom) / top.maximum(bottom)
        centred = (across * down).sqrt()  # equation 3
        centred = F.binary_cross_entropy_with_logits(centerness, centred, reduction="none")
        weights = truth.weigh(matches) * positive
        matched = mean_over_processes(weights.sum())
        return {
            "classification": focal_loss(logits, matches, truth, s.alpha, s.gamma).sum() / matched,
            "bbox_regression": (regression * weights).sum() / matched,
            "bbox_ctrness": (centred * weights).sum() / matched,
        }

    def match(self, anchors: Tensor, levels: Sequence[int], truth: GroundTruth) -> Tensor:
        """The object of each point [B, A], -1 without one, -2 in a crowd.

        It is the smallest of those in which the point lies, near the middle (2020, "center sampling"), and whose
        farthest edge is as far off as the level is for (section 3.2); of equal areas the first. One image after
        another, since memory is that of all pairs of points and objects.
        """
        unit = (anchors[:, 2] - anchors[:, 0])[:, None]  # [A, 1]
        low, high = 4 * unit, 8 * unit
        low[: levels[0]], high[len(high) - levels[-1] :] = 0, torch.inf
        none = truth.boxes[:0], 1.0  # of no objects, match_max_iou says what lies in a crowd
        offsets = torch.zeros_like(truth.offsets)
        matches, _ = boxops.match_max_iou(anchors, *none, offsets=offsets, **truth.crowds)
        for b, image in enumerate(truth.images):
            boxes = image["boxes"].float()
            if len(boxes):
                nearest, farthest = edges(anchors[:, None], boxes).aminmax(dim=-1)  # [A, G]
                off = (middle(anchors)[:, None] - middle(boxes)).abs().amax(dim=-1)
                fits = (nearest > 0) & (off < self.settings.center_sampling_radius * unit)
                fits &= (farthest > low) & (farthest < high)
                areas, found = boxops.box_area(boxes).where(fits, torch.inf).min(dim=1)
                matches[b] = found.where(areas < torch.inf, matches[b])
        return matches

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        s = self.settings
        logits, distances, centerness, anchors, levels = self.predict(batch)
        scores = (logits.sigmoid() * centerness.sigmoid()[..., None]).sqrt()  # 3.3; the square root: 2020
        at, labels, scores = candidates(scores, levels, s.topk_candidates)
        distances = distances[torch.arange(len(at), device=at.device)[:, None], at]  # [B, N, 4]
        boxes = map(boxops.clip_boxes_to_image, boxes_of(distances, anchors[at]), batch.image_sizes)
        return suppress(torch.stack([*boxes]), scores, labels, s.score_thresh, s.nms_thresh, s.detections_per_img)


def middle(boxes: Tensor) -> Tensor:  # [..., 4] -> [..., 2]
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def edges(anchors: Tensor, boxes: Tensor) -> Tensor:
    """From the middle of anchors [..., 4] to the left, top, right and bottom edges of boxes, in pixels; equation 1."""
    return torch.cat([middle(anchors) - boxes[..., :2], boxes[..., 2:] - middle(anchors)], dim=-1)


def boxes_of(distances: Tensor, anchors: Tensor) -> Tensor:
    """The boxes [..., 4] with edges so many units off the middle of the anchors."""
    distances = distances.unflatten(-1, (2, 2)) * (anchors[..., 2:] - anchors[..., :2])[..., None, :]
    return torch.cat([middle(anchors) - distances[..., 0, :], middle(anchors) + distances[..., 1, :]], dim=-1)


@detector(Settings(), pretrained={"norm": "frozen", "freeze": 5})
def fcos_resnet50_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> FCOS:
    """FCOS on ResNet-50 with FPN; loads torchvision's ``fcos_resnet50_fpn``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    return FCOS(backbones.resnet_fpn_p6p7(network), num_classes, settings)


SMALL: dict[str, Any] = {"min_size": 320, "max_size": 640, "anchor_sizes": (8, 16, 32, 64)}  # on a CPU


@detector(Settings(**SMALL), short="fcos", pretrained={"norm": "frozen", "freeze": 2}, training=ADAMW)
def fcos_mobilenet_v2_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> FCOS:
    """FCOS on MobileNetV2 with FPN from stride 8: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    return FCOS(backbones.mobilenet_fpn(network, (6, 13, 18), 128), num_classes, settings)
