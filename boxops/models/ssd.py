"""SSD: anchors on feature maps from fine to coarse, each classified and refined in one shot.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016. Modules and settings have the names of torchvision's
``ssd300_vgg16``, whose checkpoint loads as it is. Shapes: B images, A anchors, C classes with the background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import Conv2dNormActivation

import boxops

from . import backbones
from .backbones import small_normal, xavier
from .builders import ADAMW, Weights, detector
from .common import IMAGENET, Detector, GroundTruth, Target, mean_over_processes
from .labels import cross_entropy


@dataclass(frozen=True)
class Settings:
    """The hyperparameters of SSD300, with torchvision's names and values; section 2.2 of the paper."""

    size: int = 300
    # Pixels from a cell to the next of each map, of SSD300; None: the size over the map's side
    steps: Sequence[float] | None = (8, 16, 32, 64, 100, 300)
    # Of each map and one beyond: fractions of the size
    scales: Sequence[float] = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
    aspect_ratios: Sequence[Sequence[float]] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    iou_thresh: float = 0.5
    negatives: float = 3.0  # for each positive
    label_smoothing: float = 0.0  # of the objects' classes, see labels.py
    score_thresh: float = 0.01
    nms_thresh: float = 0.45
    detections_per_img: int = 200
    topk_candidates: int = 400
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2)

    def of_size(self, size: int) -> dict[str, Any]:
        """The options for images of that side: other steps, where these are SSD300's."""
        return {"size": size} if size == Settings.size else {"size": size, "steps": None}

    def anchors(self, grids: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
        """[A, 4] corners in pixels: around each cell a square of scale s, one of the geometric mean of s and the next,
        and boxes of scale s of every ratio and its inverse. Small ones on the fine maps, large ones on the coarse."""
        levels = []
        for k, grid in enumerate(grids):
            step = self.size / grid[0] if self.steps is None else self.steps[k]
            scale, following = self.scales[k], self.scales[k + 1]
            cells = self.size / (step * grid[0])  # multibox_anchors takes sizes as fractions of the map's height
            ratios = [ratio for r in self.aspect_ratios[k] for ratio in (1 / r, r)]
            sizes = [scale * cells, (scale * following) ** 0.5 * cells]
            levels.append(boxops.multibox_anchors(grid, sizes, [1, *ratios], normalized=False, like=like) * step)
        boxes = boxops.box_convert(torch.cat(levels), "xyxy", "cxcywh")
        boxes[:, 2:].clamp_(max=self.size)  # as torchvision: none is larger than the image
        return boxops.box_convert(boxes, "cxcywh", "xyxy")


def convolution(channels: int, outputs: int) -> nn.Module:
    conv = nn.Conv2d(channels, outputs, 3, padding=1)
    xavier(conv)
    return conv


def depthwise(channels: int, outputs: int, norm: str) -> nn.Module:
    """SSDLite's: a 3x3 convolution of each channel by itself, then one of 1x1. Sandler et al. 2018, section 6.2."""
    options: dict[str, Any] = {"norm_layer": backbones.NORMS[norm], "activation_layer": nn.ReLU6}
    each = Conv2dNormActivation(channels, channels, 3, groups=channels, **options)
    layers = nn.Sequential(each, nn.Conv2d(channels, outputs, 1))
    small_normal(layers)
    return layers


class Head(nn.Module):
    """A ``layer(channels, outputs)`` on each map: ``columns`` numbers for each of its anchors."""

    def __init__(
        self, channels: Sequence[int], anchors: Sequence[int], columns: int, layer: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.columns = columns
        self.module_list = nn.ModuleList(layer(c, a * columns) for c, a in zip(channels, anchors, strict=True))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        outputs = [conv(feature) for conv, feature in zip(self.module_list, features, strict=True)]
        # [B, anchors * columns, H, W] -> [B, H * W * anchors, columns]
        rows = [out.permute(0, 2, 3, 1).reshape(out.shape[0], -1, self.columns) for out in outputs]
        return torch.cat(rows, dim=1).float()


class SSD(Detector):
    """SSD on any backbone; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, size, size]`` to a dict of feature maps, fine to coarse, with ``out_channels``,
            the channels of each.
        num_classes: with the background, which is 0.
        settings: the hyperparameters.
        normalization: mean and standard deviation of the backbone's images.
        layer: what the heads are on each map, of channels and outputs.

    The losses are ``classification`` (softmax, with the hardest negatives, 3 for each positive) and ``bbox_regression``
    (smooth L1), both per matched anchor: equations 1 to 3. Anchors count with the weights of their objects.

    The maps, and the anchors on them, are those of one size: there is no multi-scale training.
    """

    weighted = True

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        settings: Settings = Settings(),
        normalization: tuple[list[float], list[float]] = IMAGENET,
        layer: Callable[[int, int], nn.Module] = convolution,
    ) -> None:
        s = settings
        size = (s.size, s.size)
        super().__init__(GeneralizedRCNNTransform(*size, *normalization, size_divisible=1, fixed_size=size))
        self.settings, self.backbone = s, backbone
        anchors = [2 + 2 * len(ratios) for ratios in s.aspect_ratios]
        channels: Sequence[int] = backbone.out_channels  # type: ignore[assignment]
        heads = {"classification_head": num_classes, "regression_head": 4}
        self.head = nn.ModuleDict({name: Head(channels, anchors, columns, layer) for name, columns in heads.items()})

    def predict(self, batch: ImageList) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits [B, A, C], deltas [B, A, 4] and the anchors [A, 4]."""
        features = list(self.backbone(batch.tensors).values())
        logits, deltas = self.head["classification_head"](features), self.head["regression_head"](features)
        return logits, deltas, self.settings.anchors([(f.shape[-2], f.shape[-1]) for f in features], logits)

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        s, truth = self.settings, GroundTruth.of(targets)
        logits, deltas, anchors = self.predict(batch)
        matches, _ = boxops.match_greedy(anchors, truth.boxes, s.iou_thresh, offsets=truth.offsets)  # [B, A]
        positive = matches >= 0
        labels = truth.take(truth.labels, matches) * positive  # 0: background
        classes = cross_entropy(logits.flatten(0, 1), labels.flatten(), s.label_smoothing).view_as(labels)
        hard = boxops.mine_hard_negatives(classes.detach(), matches, s.negatives)  # [B, A]
        boxes = truth.take(truth.boxes, matches).where(positive[..., None], anchors)  # deltas 0 where nothing is learnt
        regression_targets = boxops.encode_boxes(boxes, anchors, variances=s.variances)
        regression = F.smooth_l1_loss(deltas, regression_targets, reduction="none").sum(dim=-1)
        weights = truth.weigh(matches)
        matched = mean_over_processes((weights * positive).sum())
        return {
            "bbox_regression": (regression * weights * positive).sum() / matched,
            "classification": (classes * weights * (positive | hard)).sum() / matched,
        }

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        s = self.settings
        logits, deltas, anchors = self.predict(batch)
        boxes = boxops.decode_boxes(deltas, anchors, variances=s.variances, image_size=(s.size, s.size))
        scores = logits.softmax(dim=-1)[..., 1:]
        found, scores, labels, counts = boxops.detect(
            boxes, scores, s.score_thresh, s.nms_thresh, s.detections_per_img, topk_per_class=s.topk_candidates
        )
        return {"boxes": found, "scores": scores, "labels": labels + 1}, counts


@detector(Settings(), pretrained={"freeze": 5}, training={"batch_size": 8, "optimizer": "sgd", "lr": 5e-4})
def ssd300_vgg16(num_classes: int, backbone_weights: Weights, settings: Settings, freeze: int = 0) -> SSD:
    """SSD300 on VGG16, as in the paper; loads torchvision's ``ssd300_vgg16``."""
    if backbone_weights == "DEFAULT":
        backbone_weights = "IMAGENET1K_FEATURES"  # torchvision's V1 is of another normalization
    network = backbones.classifier("vgg16", None, backbone_weights, freeze)
    mean = [0.48235, 0.45882, 0.40784]
    return SSD(backbones.VGG16Maps(network), num_classes, settings, (mean, [1 / 255] * 3))  # this VGG reads 0..255


MOBILENET = {**ADAMW, "lr": 1e-3, "backbone_lr": 0.1}


@detector(Settings(), short="ssd", pretrained={"norm": "frozen", "freeze": 2}, training=MOBILENET)
def ssd300_mobilenet_v2(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> SSD:
    """SSD300 on MobileNetV2: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    return SSD(backbones.MobileNetV2Maps(network), num_classes, settings)


LITE: dict[str, Any] = {
    "size": 320,
    "steps": None,
    "scales": (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
    "aspect_ratios": ((2, 3),) * 6,
    "score_thresh": 0.001,
    "nms_thresh": 0.55,
    "detections_per_img": 300,
    "topk_candidates": 300,
}


@detector(Settings(**LITE), pretrained_backbone={"reduced_tail": False}, training=MOBILENET)
def ssdlite320_mobilenet_v3_large(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    norm: str = "batch_lite",
    freeze: int = 0,
    reduced_tail: bool = True,
) -> SSD:
    """SSDLite on MobileNetV3-Large; loads torchvision's ``ssdlite320_mobilenet_v3_large``, whose last stages are half
    as wide as those of ImageNet's weights (``reduced_tail``)."""
    network = backbones.classifier("mobilenet_v3_large", norm, backbone_weights, freeze, reduced_tail=reduced_tail)
    if backbone_weights is None:
        small_normal(network)
    maps = backbones.MobileNetV3Maps(network, norm)
    layer = partial(depthwise, norm=norm)
    return SSD(maps, num_classes, settings, ([0.5] * 3, [0.5] * 3), layer)
