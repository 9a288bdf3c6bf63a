"""Faster R-CNN: a region proposal network and a Fast R-CNN head on shared features, trained together.

Ren et al., "Faster R-CNN", NeurIPS 2015; with FPN: Lin et al., "Feature Pyramid Networks", CVPR 2017. Modules and
numbers have the names of torchvision's, whose checkpoints load as they are. Shapes: B images, A anchors, P proposals,
S of them sampled, C classes with the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from . import backbones
from .common import ADAMW, IMAGENET, Detector, GroundTruth, Target, Weights, detector
from .roi_heads import ConvHead, ResNetTail, Result, RoIHeads, TwoMLPHead
from .rpn import RegionProposalNetwork


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


class FasterRCNN(Detector):
    """Faster R-CNN on any backbone; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, H, W]`` to a dict of features, fine to coarse, each with ``out_channels``
            channels. RoIs are pooled from all but the one named "pool".
        num_classes: with the background, which is 0.
        settings: the numbers of the method.
        box_head: maps pooled RoIs to ``out_features`` features; two linear layers if None.
        pool_size: bins of a RoI along each axis.
        rpn_convs: convolutions of the proposal head.

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
        rpn_convs: int = 1,
    ) -> None:
        super().__init__(GeneralizedRCNNTransform(settings.min_size, settings.max_size, *IMAGENET))  # type: ignore[arg-type]
        self.backbone = backbone
        channels = int(backbone.out_channels)  # type: ignore[arg-type]
        self.rpn = RegionProposalNetwork(channels, settings, rpn_convs)
        head = box_head or TwoMLPHead(channels * pool_size**2)
        self.roi_heads = RoIHeads(head, num_classes, pool_size, settings)

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        truth = GroundTruth.of(targets)
        features, pooled = self.features(batch)
        proposals, counts, losses = self.rpn(features, batch, truth)
        sample, boxes, matches = self.roi_heads.sample(proposals, counts, truth)
        logits, codes = self.roi_heads(pooled, boxes, batch, sample.real)
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
RESNET_V2 = {"freeze": 5}
MOBILENET = {"norm": "frozen", "freeze": 2}
MOBILENET_V3 = {"norm": "frozen", "freeze": 7}
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


@detector(pretrained=RESNET_V2)
def faster_rcnn_resnet50_fpn_v2(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN with batch norm and deeper heads: loads torchvision's ``fasterrcnn_resnet50_fpn_v2``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    backbone = backbones.resnet_fpn(network, norm="batch")
    head = ConvHead(backbone.out_channels)  # type: ignore[arg-type]
    return FasterRCNN(backbone, num_classes, Settings(**settings), box_head=head, rpn_convs=2)


@detector(pretrained=RESNET)
def faster_rcnn_resnet50_c4(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN as first published: one level of stride 16, and the last stage of ResNet-50 on every RoI."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    numbers = Settings(**{"anchor_sizes": ((32, 64, 128, 256, 512),), **settings})
    head = ResNetTail(network.layer4)  # type: ignore[arg-type]
    return FasterRCNN(backbones.resnet_c4(network), num_classes, numbers, box_head=head, pool_size=14)


@detector(pretrained=MOBILENET, training={**ADAMW, "batch_size": 2})
def faster_rcnn_mobilenet_v2_fpn(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV2 with FPN from stride 8: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    backbone = backbones.mobilenet_fpn(network, (6, 13, 18), 128)
    head = TwoMLPHead(backbone.out_channels * 49, 256)  # type: ignore[arg-type, operator]
    return FasterRCNN(backbone, num_classes, Settings(**(SMALL | settings)), box_head=head)


@detector(pretrained=MOBILENET_V3, training={**ADAMW, "batch_size": 2})
def faster_rcnn_mobilenet_v3_large_fpn(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV3-Large with FPN; loads torchvision's ``fasterrcnn_mobilenet_v3_large_fpn``."""
    network = backbones.classifier("mobilenet_v3_large", norm, backbone_weights, freeze)
    numbers = Settings(**{"anchor_sizes": ((32, 64, 128, 256, 512),) * 3, "rpn_score_thresh": 0.05, **settings})
    return FasterRCNN(backbones.mobilenet_fpn(network, (13, 16), 256), num_classes, numbers)


@detector(pretrained=MOBILENET_V3, training={**ADAMW, "batch_size": 2})
def faster_rcnn_mobilenet_v3_large_320_fpn(num_classes: int, backbone_weights: Weights, **options: Any) -> FasterRCNN:
    """The same for images of 320 to 640 pixels; loads torchvision's ``fasterrcnn_mobilenet_v3_large_320_fpn``."""
    sizes = {"min_size": 320, "max_size": 640, "rpn_pre_nms_top_n_test": 150, "rpn_post_nms_top_n_test": 150}
    model = faster_rcnn_mobilenet_v3_large_fpn(num_classes, backbone_weights=backbone_weights, **(sizes | options))
    return cast(FasterRCNN, model)


@detector()
def faster_rcnn_timm_fpn(
    num_classes: int, backbone_weights: Weights, backbone: str = "resnet18", **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on any network of timm with FPN from stride 4; "DEFAULT" are timm's weights of it."""
    pyramid = backbones.TimmFPN(backbone, weights=backbone_weights)
    return FasterRCNN(pyramid, num_classes, Settings(**settings))
