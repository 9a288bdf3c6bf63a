"""SSD: anchors on feature maps from fine to coarse, each classified and refined in one shot.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016. Modules and numbers have the names of torchvision's
``ssd300_vgg16``, whose checkpoint loads as it is. Shapes: B images, A anchors, C classes with the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import boxops

from . import backbones
from .common import IMAGENET, Detector, GroundTruth, Target, Weights, detector, mean_over_processes, split


@dataclass(frozen=True)
class Settings:
    """The numbers of SSD300, with torchvision's names and values; section 2.2 of the paper."""

    size: int = 300
    # Pixels from a cell to the next of each map, of SSD300; None: the size over the map's side
    steps: Sequence[float] | None = (8, 16, 32, 64, 100, 300)
    # Of each map and one beyond: shares of the size
    scales: Sequence[float] = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
    aspect_ratios: Sequence[Sequence[float]] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    iou_thresh: float = 0.5
    negatives: float = 3.0  # for each positive
    score_thresh: float = 0.01
    nms_thresh: float = 0.45
    detections_per_img: int = 200
    topk_candidates: int = 400
    variances: Sequence[float] = (0.1, 0.1, 0.2, 0.2)

    def anchors(self, grids: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
        """[A, 4] corners in pixels: around each cell a square of scale s, one of the geometric mean of s and the next,
        and boxes of scale s of every ratio and its inverse. Small ones on the fine maps, large ones on the coarse."""
        levels = []
        for k, grid in enumerate(grids):
            step = self.size / grid[0] if self.steps is None else self.steps[k]
            scale, following = self.scales[k], self.scales[k + 1]
            cells = self.size / (step * grid[0])  # multibox_anchors takes sizes as shares of the map's height
            ratios = [ratio for r in self.aspect_ratios[k] for ratio in (r, 1 / r)]
            sizes = [scale * cells, (scale * following) ** 0.5 * cells]
            levels.append(boxops.multibox_anchors(grid, sizes, [1, *ratios], normalized=False, like=like) * step)
        boxes = boxops.box_convert(torch.cat(levels), "xyxy", "cxcywh")
        boxes[:, 2:].clamp_(max=self.size)  # as torchvision: none is larger than the image
        return boxops.box_convert(boxes, "cxcywh", "xyxy")


class Head(nn.Module):
    """A 3x3 convolution on each map: ``columns`` numbers for each of its anchors."""

    def __init__(self, channels: Sequence[int], anchors: Sequence[int], columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.module_list = nn.ModuleList(
            nn.Conv2d(c, a * columns, 3, padding=1) for c, a in zip(channels, anchors, strict=True)
        )
        xavier(self)

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
        settings: the numbers of the method.
        normalization: mean and standard deviation of the backbone's images.

    The losses are ``classification`` (softmax, with the hardest negatives, 3 for each positive) and ``bbox_regression``
    (smooth L1), both per matched anchor: equations 1 to 3.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        settings: Settings = Settings(),
        normalization: tuple[list[float], list[float]] = IMAGENET,
    ) -> None:
        s = settings
        size = (s.size, s.size)
        super().__init__(GeneralizedRCNNTransform(*size, *normalization, size_divisible=1, fixed_size=size))
        self.settings, self.backbone = s, backbone
        anchors = [2 + 2 * len(ratios) for ratios in s.aspect_ratios]
        channels: Sequence[int] = backbone.out_channels  # type: ignore[assignment]
        heads = {"classification_head": num_classes, "regression_head": 4}
        self.head = nn.ModuleDict({name: Head(channels, anchors, columns) for name, columns in heads.items()})

    def predict(self, batch: ImageList) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits [B, A, C], codes [B, A, 4] and the anchors [A, 4]."""
        features = list(self.backbone(batch.tensors).values())
        logits, codes = self.head["classification_head"](features), self.head["regression_head"](features)
        return logits, codes, self.settings.anchors([(f.shape[-2], f.shape[-1]) for f in features], logits)

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        s, truth = self.settings, GroundTruth.of(targets)
        logits, codes, anchors = self.predict(batch)
        matches, _ = boxops.match_greedy(anchors, truth.boxes, s.iou_thresh, offsets=truth.offsets)  # [B, A]
        positive = matches >= 0
        labels = truth.take(truth.labels, matches) * positive  # 0: background
        classes = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
        hard = boxops.mine_hard_negatives(classes.detach(), matches, s.negatives)  # [B, A]
        boxes = truth.take(truth.boxes, matches).where(positive[..., None], anchors)  # code 0 where nothing is learnt
        wanted = boxops.encode_boxes(boxes, anchors, variances=s.variances)
        regression = F.smooth_l1_loss(codes, wanted, reduction="none").sum(dim=-1)
        matched = mean_over_processes(positive.sum())
        return {
            "bbox_regression": (regression * positive).sum() / matched,
            "classification": (classes * (positive | hard)).sum() / matched,
        }

    def detections(self, batch: ImageList) -> list[dict[str, Tensor]]:
        s = self.settings
        logits, codes, anchors = self.predict(batch)
        boxes = boxops.decode_boxes(codes, anchors, variances=s.variances, size=(s.size, s.size))
        scores = logits.softmax(dim=-1)[..., 1:]
        found, scores, labels, counts = boxops.detect(
            boxes, scores, s.score_thresh, s.nms_thresh, s.detections_per_img, topk_per_class=s.topk_candidates
        )
        rows = split(counts, found, scores, labels + 1)
        return [dict(zip(("boxes", "scores", "labels"), row, strict=True)) for row in rows]


class VGG(nn.Module):
    """VGG16 with the maps of SSD300: conv4_3 (normalised), fc7 as a convolution, and conv8_2 to conv11_2. Section 3."""

    out_channels = (512, 1024, 512, 256, 256, 256)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = list(network.features)  # type: ignore[arg-type]
        pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        layers[pools[2]].ceil_mode = True  # 75 -> 38 cells, as in the paper
        self.features = nn.Sequential(*layers[: pools[3]])  # to conv4_3
        self.scale_weight = nn.Parameter(torch.full((512,), 20.0))  # of the channels of conv4_3; section 3.1
        fc = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(inplace=True),
        )
        strided: dict[str, Any] = {"stride": 2, "padding": 1}
        self.extra = nn.ModuleList(
            [
                nn.Sequential(*layers[pools[3] : -1], fc),
                narrow_wide(1024, 256, 512, **strided),
                narrow_wide(512, 128, 256, **strided),
                narrow_wide(256, 128, 256),
                narrow_wide(256, 128, 256),
            ]
        )
        xavier(fc)
        xavier(self.extra[1:])

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # [B, 3, 300, 300] -> 38, 19, 10, 5, 3, 1 cells
        x = self.features(images)
        maps = [self.scale_weight[:, None, None] * F.normalize(x)]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return {str(i): x for i, x in enumerate(maps)}


class MobileNetV2(nn.Module):
    """MobileNetV2 with maps of SSD300's sizes: two of its expansions and its end, and three smaller ones beyond.

    The expansions have six times the channels of the blocks' ends; Sandler et al. 2018, section 6.2, read them too. All
    maps are normalised as the paper's first one is (section 3.1), and the new layers by the batch: as they come, 1280
    channels of large values make a head's first steps so rough that the backbone learns to silence them for good.
    """

    out_channels = (192, 576, 1280, 512, 256, 256)
    scale = 4.0  # length of every cell's features

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = network.features
        self.extra = nn.ModuleList(
            [
                nn.Sequential(*normed(1280, 256, 1), *normed(256, 512, 3, stride=2, padding=1)),
                nn.Sequential(*normed(512, 128, 1), *normed(128, 256, 3, stride=2, padding=1)),
                nn.Sequential(*normed(256, 128, 1), nn.Conv2d(128, 256, 3), nn.ReLU(inplace=True)),  # one cell: no norm
            ]
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # [B, 3, 300, 300] -> 38, 19, 10, 5, 3, 1 cells
        x, maps = images, []
        for i, block in enumerate(self.features):  # type: ignore[arg-type]
            if i in (7, 14):  # its first layer expands, the second has stride 2
                x = block.conv[0](x)
                maps.append(x)
                x = block.conv[1:](x)
            else:
                x = block(x)
        maps.append(x)
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return {str(i): self.scale * F.normalize(x) for i, x in enumerate(maps)}


def normed(channels: int, out: int, size: int, **conv: Any) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, size, bias=False, **conv), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


def narrow_wide(channels: int, narrow: int, wide: int, **conv: Any) -> nn.Sequential:
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(nn.Conv2d(channels, narrow, 1), relu, nn.Conv2d(narrow, wide, 3, **conv), relu)


def xavier(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


@detector(pretrained={"freeze": 5})
def ssd300_vgg16(num_classes: int, backbone_weights: Weights, freeze: int = 0, **settings: Any) -> SSD:
    """SSD300 on VGG16, as in the paper; loads torchvision's ``ssd300_vgg16``."""
    network = backbones.classifier("vgg16", None, backbone_weights, freeze)
    mean = [0.48235, 0.45882, 0.40784]
    return SSD(VGG(network), num_classes, Settings(**settings), (mean, [1 / 255] * 3))  # this VGG reads 0..255


@detector(pretrained={"norm": "frozen", "freeze": 2})
def ssd300_mobilenet_v2(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> SSD:
    """SSD300 on MobileNetV2: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    return SSD(MobileNetV2(network), num_classes, Settings(**settings))
