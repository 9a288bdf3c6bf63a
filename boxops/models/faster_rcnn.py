"""Faster R-CNN: a region proposal network and a Fast R-CNN head on shared features, trained together.

Ren et al., "Faster R-CNN", NeurIPS 2015; with FPN: Lin et al., "Feature Pyramid Networks", CVPR 2017. Modules and
numbers have the names of torchvision's, whose checkpoints load as they are. Shapes: B images, A anchors, P proposals,
S of them sampled, C classes with the background.
"""

from __future__ import annotations

import math
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
from .common import IMAGENET, Detector, GroundTruth, Target, Weights, detector
from .rpn import BETA, RegionProposalNetwork, Sample

Result = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """The numbers of the method, with torchvision's names and values."""

    min_size: int | Sequence[int] = 800
    max_size: int = 1333
    anchor_sizes: Sequence[Sequence[float]] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    rpn_pre_nms_top_n_train: int = 2000
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n_train: int = 2000
    rpn_post_nms_top_n_test: int = 1000
    rpn_nms_thresh: float = 0.7
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_score_thresh: float = 0.0
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25
    bbox_reg_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0)


class TwoMLPHead(nn.Module):
    def __init__(self, in_features: int, hidden: int = 1024) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_features, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.out_features = hidden

    def forward(self, pooled: Tensor) -> Tensor:  # [K, channels, 7, 7] -> [K, hidden]
        return F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(1)))))


class ResNetTail(nn.Module):
    """The last stage of a ResNet on each RoI, then its mean. He et al. 2016, appendix A."""

    def __init__(self, layer4: nn.Module, out_features: int = 2048) -> None:
        super().__init__()
        self.layer4 = layer4
        self.out_features = out_features

    def forward(self, pooled: Tensor) -> Tensor:  # [K, 1024, 14, 14] -> [K, 2048]
        features: Tensor = self.layer4(pooled)
        return features.mean(dim=(2, 3))


class FastRCNNPredictor(nn.Module):
    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_features, num_classes)
        self.bbox_pred = nn.Linear(in_features, num_classes * 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # [K, features] -> [K, C], [K, C, 4]
        return self.cls_score(features).float(), self.bbox_pred(features).view(len(features), -1, 4).float()


class RoIHeads(nn.Module):
    """Classifies the proposals and refines their boxes. Girshick 2015, sections 2.1 and 2.3."""

    def __init__(self, box_head: nn.Module, num_classes: int, pool_size: int, settings: Settings) -> None:
        super().__init__()
        self.settings, self.pool_size = settings, pool_size
        self.box_head = box_head
        self.box_predictor = FastRCNNPredictor(int(box_head.out_features), num_classes)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor], boxes: Tensor, batch: ImageList) -> tuple[Tensor, Tensor]:
        """Class logits [B, P, C] and codes [B, P, C, 4] of boxes [B, P, 4]."""
        pooled = pool(features, boxes, batch, self.pool_size)
        logits, codes = self.box_predictor(self.box_head(pooled))
        return logits.unflatten(0, boxes.shape[:2]), codes.unflatten(0, boxes.shape[:2])

    def sample(self, boxes: Tensor, counts: Tensor, truth: GroundTruth) -> tuple[Sample, Tensor, Tensor]:
        """Which proposals train the head, their boxes [B, S, 4], and the object of each [B, S]; the objects
        themselves are proposals too."""
        s, device = self.settings, boxes.device
        most = max(len(image["labels"]) for image in truth.images)
        objects = torch.arange(most, device=device).expand(len(boxes), -1)  # [B, most]
        boxes = torch.cat([boxes, truth.take(truth.boxes, objects.minimum(truth.offsets.diff()[:, None]))], dim=1)
        places = torch.arange(boxes.shape[1] - most, device=device)
        real = torch.cat([places < counts[:, None], objects < truth.offsets.diff()[:, None]], dim=1)
        matches, _ = boxops.match_max_iou(
            boxes, truth.boxes, s.box_fg_iou_thresh, s.box_bg_iou_thresh, offsets=truth.offsets, **truth.crowds
        )
        matches = matches.where(real, -2)
        sample = Sample(matches, s.box_batch_size_per_image, s.box_positive_fraction)
        return sample, sample.of(boxes), sample.of(matches)

    def losses(
        self, logits: Tensor, codes: Tensor, sample: Sample, boxes: Tensor, matches: Tensor, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Class and box loss of the sampled boxes [B, S, 4] with their objects [B, S]."""
        labels = truth.take(truth.labels, matches) * sample.positive  # 0: background
        classes = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten().where(sample.real.flatten(), -100), reduction="sum"
        )
        codes = codes.gather(2, labels[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)  # those of the own class
        wanted = torch.where(sample.positive[..., None], truth.take(truth.boxes, matches), boxes)
        # A padded row's box is empty and its code NaN: it is left out, not multiplied by 0.
        wanted = boxops.encode_boxes(wanted, boxes, self.settings.bbox_reg_weights)
        regression = F.smooth_l1_loss(
            codes, wanted.where(sample.positive[..., None], codes), reduction="sum", beta=BETA
        )
        return {"loss_classifier": classes / sample.total, "loss_box_reg": regression / sample.total}

    def detections(
        self, logits: Tensor, codes: Tensor, boxes: Tensor, counts: Tensor, batch: ImageList
    ) -> tuple[Result, Tensor]:
        """The best boxes of each image [B, D, ...] and how many they are [B], from logits [B, P, C], codes
        [B, P, C, 4] and proposals [B, P, 4]."""
        s = self.settings
        places = torch.arange(boxes.shape[1], device=boxes.device)
        scores = logits.softmax(dim=-1) * (places < counts[:, None])[..., None]  # [B, P, C], padding 0
        decoded = [
            boxops.decode_boxes(some[:, 1:], box[:, None], s.bbox_reg_weights, size=size)
            for some, box, size in zip(codes, boxes, batch.image_sizes, strict=True)
        ]
        found, scores, labels, counts = boxops.detect(
            torch.stack(decoded),  # [B, P, C - 1, 4]
            scores[..., 1:],
            s.box_score_thresh,
            s.box_nms_thresh,
            s.box_detections_per_img,
            min_size=1e-2,
        )
        return {"boxes": found, "scores": scores, "labels": labels + 1}, counts


def pool(features: Sequence[Tensor], boxes: Tensor | Sequence[Tensor], batch: ImageList, size: int) -> Tensor:
    """RoIAlign of boxes [B, P, 4], or of a list with those of each image: [B * P, channels, size, size]."""
    scales = [2.0 ** round(math.log2(f.shape[-2] / batch.tensors.shape[-2])) for f in features]
    boxes = list(boxes)
    if len(features) == 1:  # section 3.1 of the C4 models: no levels, and as many samples as the RoI is large
        return boxops.roi_align(features[0], boxes, size, scales[0], 0)
    return boxops.multiscale_roi_align(features, boxes, size, scales, 2)


class FasterRCNN(Detector):
    """Faster R-CNN on any backbone; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, H, W]`` to a dict of features, fine to coarse, each with ``out_channels``
            channels. RoIs are pooled from all but the one named "pool".
        num_classes: with the background, which is 0.
        settings: the numbers of the method.
        box_head: maps pooled RoIs to ``out_features`` features; two linear layers if None.
        pool_size: bins of a RoI along each axis.

    The losses are ``loss_objectness`` and ``loss_rpn_box_reg`` of the proposals, ``loss_classifier`` and
    ``loss_box_reg`` of the head: the joint training of Ren et al. 2015, section 3.2.
    """

    legacy_names: Sequence[tuple[str, str]] = (
        (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
        backbones.LEGACY_FPN,
    )

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        settings: Settings = Settings(),
        *,
        box_head: nn.Module | None = None,
        pool_size: int = 7,
    ) -> None:
        super().__init__(GeneralizedRCNNTransform(settings.min_size, settings.max_size, *IMAGENET))  # type: ignore[arg-type]
        self.backbone = backbone
        channels = int(backbone.out_channels)  # type: ignore[arg-type]
        self.rpn = RegionProposalNetwork(channels, settings)
        head = box_head or TwoMLPHead(channels * pool_size**2)
        self.roi_heads = RoIHeads(head, num_classes, pool_size, settings)

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        truth = GroundTruth.of(targets)
        features, pooled = self.features(batch)
        proposals, counts, losses = self.rpn(features, batch, truth)
        sample, boxes, matches = self.roi_heads.sample(proposals, counts, truth)
        logits, codes = self.roi_heads(pooled, boxes, batch)
        losses |= self.roi_heads.losses(logits, codes, sample, boxes, matches, truth)
        return losses | self.branch_losses(pooled, batch, sample, boxes, matches, truth)

    def padded(self, batch: ImageList) -> tuple[Result, Tensor]:
        found, counts, _ = self.boxes(batch)
        return found, counts

    def boxes(self, batch: ImageList) -> tuple[Result, Tensor, list[Tensor]]:
        """What ``padded`` gives, and the levels that further heads pool from."""
        features, pooled = self.features(batch)
        proposals, counts, _ = self.rpn(features, batch, None)
        logits, codes = self.roi_heads(pooled, proposals, batch)
        return *self.roi_heads.detections(logits, codes, proposals, counts, batch), pooled

    def features(self, batch: ImageList) -> tuple[list[Tensor], list[Tensor]]:
        """The levels that the RPN reads, and those that RoIs are pooled from."""
        levels = self.backbone(batch.tensors)
        return list(levels.values()), [level for name, level in levels.items() if name != "pool"]

    def branch_losses(
        self, pooled: Any, batch: Any, sample: Any, boxes: Any, matches: Any, truth: Any
    ) -> dict[str, Tensor]:
        """What a further head adds: see mask_rcnn.py."""
        return {}


RESNET = {"norm": "frozen", "freeze": 5}  # on pretrained weights: no norm learns, nor conv1 to layer1
MOBILENET = {"norm": "frozen", "freeze": 2}
SMALL: dict[str, Any] = {  # for images of 320 to 640 pixels, on a CPU
    "min_size": 320,
    "max_size": 640,
    "anchor_sizes": ((32,), (64,), (128,), (256,)),
    "rpn_pre_nms_top_n_train": 500,
    "rpn_pre_nms_top_n_test": 500,
    "rpn_post_nms_top_n_train": 500,
    "rpn_post_nms_top_n_test": 300,
    "box_batch_size_per_image": 128,
}


@detector(pretrained=RESNET)
def faster_rcnn_resnet50_fpn(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on ResNet-50 with FPN; loads torchvision's ``fasterrcnn_resnet50_fpn``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    return FasterRCNN(backbones.resnet_fpn(network), num_classes, Settings(**settings))


@detector(pretrained=RESNET)
def faster_rcnn_resnet50_c4(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN as first published: one level of stride 16, and the last stage of ResNet-50 on every RoI."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    numbers = Settings(**{"anchor_sizes": ((32, 64, 128, 256, 512),), **settings})
    head = ResNetTail(network.layer4)  # type: ignore[arg-type]
    return FasterRCNN(backbones.ResNetC4(network), num_classes, numbers, box_head=head, pool_size=14)


@detector(pretrained=MOBILENET)
def faster_rcnn_mobilenet_v2_fpn(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV2 with FPN from stride 8: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    backbone = backbones.mobilenet_v2_fpn(network)
    head = TwoMLPHead(backbone.out_channels * 49, 256)  # type: ignore[arg-type, operator]
    return FasterRCNN(backbone, num_classes, Settings(**(SMALL | settings)), box_head=head)


@detector()
def faster_rcnn_timm_fpn(
    num_classes: int, backbone_weights: Weights, backbone: str = "resnet18", pretrained: bool = False, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on any network of timm with FPN from stride 4."""
    pyramid = backbones.TimmFPN(backbone, pretrained=pretrained, weights=backbone_weights)
    return FasterRCNN(pyramid, num_classes, Settings(**settings))
