"""Faster R-CNN: a region proposal network and a Fast R-CNN head on shared features, trained together.

Ren et al., "Faster R-CNN", NeurIPS 2015; with FPN: Lin et al., "Feature Pyramid Networks", CVPR 2017. Modules and
numbers have the names of torchvision's, whose checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from . import backbones, fast_rcnn, rpn
from .builders import Weights, detector
from .fast_rcnn import MOBILENET, SMALL_PAIRS, FastRCNN
from .roi_heads import ConvHead, ResNetTail, TwoMLPHead


@dataclass(frozen=True)
class Settings(fast_rcnn.Settings, rpn.Settings):
    """The hyperparameters, with torchvision's names and values."""

    min_size: int | Sequence[int] = 800
    max_size: int = 1333
    box_pool: str = "align"
    box_bg_iou_low: float = 0.0
    box_batch_size_per_image: int = 512
    box_beta: float = rpn.BETA


class FasterRCNN(FastRCNN):
    """Faster R-CNN on any backbone: :class:`FastRCNN` with a network that proposes boxes; see :class:`Detector` for
    what goes in and comes out.

    Args:
        backbone, num_classes, settings: as for :class:`FastRCNN`, like ``box_head`` and ``pool_size``.
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
        rpn_convs: int = 1,
        **options: Any,
    ) -> None:
        network = rpn.RegionProposalNetwork(int(backbone.out_channels), settings, rpn_convs)  # type: ignore[arg-type]
        super().__init__(backbone, num_classes, settings, rpn=network, **options)


RESNET = {"norm": "frozen", "freeze": 5}  # on pretrained weights: no norm learns, nor conv1 to layer1
RESNET_V2 = {"freeze": 5}
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


@detector(Settings(), pretrained=RESNET)
def faster_rcnn_resnet50_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> FasterRCNN:
    """Faster R-CNN on ResNet-50 with FPN; loads torchvision's ``fasterrcnn_resnet50_fpn``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    return FasterRCNN(backbones.resnet_fpn(network), num_classes, settings)


@detector(Settings(), pretrained=RESNET_V2)
def faster_rcnn_resnet50_fpn_v2(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> FasterRCNN:
    """Faster R-CNN with batch norm and deeper heads: loads torchvision's ``fasterrcnn_resnet50_fpn_v2``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    backbone = backbones.resnet_fpn(network, norm="batch")
    head = ConvHead(backbone.out_channels)  # type: ignore[arg-type]
    return FasterRCNN(backbone, num_classes, settings, box_head=head, rpn_convs=2)


@detector(Settings(anchor_sizes=((32, 64, 128, 256, 512),)), pretrained=RESNET)
def faster_rcnn_resnet50_c4(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> FasterRCNN:
    """Faster R-CNN as first published: one level of stride 16, and the last stage of ResNet-50 on every RoI."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    head = ResNetTail(network.layer4)  # type: ignore[arg-type]
    return FasterRCNN(backbones.resnet_c4(network), num_classes, settings, box_head=head, pool_size=14)


@detector(Settings(**SMALL), short="faster_rcnn", pretrained=MOBILENET, training=SMALL_PAIRS)
def faster_rcnn_mobilenet_v2_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV2 with FPN from stride 8: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    backbone = backbones.mobilenet_fpn(network, (6, 13, 18), 128)
    head = TwoMLPHead(backbone.out_channels * 49, 256)  # type: ignore[arg-type, operator]
    return FasterRCNN(backbone, num_classes, settings, box_head=head)


V3: dict[str, Any] = {"anchor_sizes": ((32, 64, 128, 256, 512),) * 3, "rpn_score_thresh": 0.05}
V3_320: dict[str, Any] = {
    "min_size": 320,
    "max_size": 640,
    "rpn_pre_nms_top_n_test": 150,
    "rpn_post_nms_top_n_test": 150,
}


@detector(Settings(**V3), pretrained=MOBILENET_V3, training=SMALL_PAIRS)
def faster_rcnn_mobilenet_v3_large_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV3-Large with FPN; loads torchvision's ``fasterrcnn_mobilenet_v3_large_fpn``."""
    network = backbones.classifier("mobilenet_v3_large", norm, backbone_weights, freeze)
    return FasterRCNN(backbones.mobilenet_fpn(network, (13, 16), 256), num_classes, settings)


@detector(Settings(**V3, **V3_320), pretrained=MOBILENET_V3, training=SMALL_PAIRS)
def faster_rcnn_mobilenet_v3_large_320_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> FasterRCNN:
    """The same for images of 320 to 640 pixels; loads torchvision's ``fasterrcnn_mobilenet_v3_large_320_fpn``."""
    network = backbones.classifier("mobilenet_v3_large", norm, backbone_weights, freeze)
    return FasterRCNN(backbones.mobilenet_fpn(network, (13, 16), 256), num_classes, settings)


@detector(Settings())
def faster_rcnn_timm_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, backbone: str = "resnet18"
) -> FasterRCNN:
    """Faster R-CNN on any network of timm with FPN from stride 4; "DEFAULT" are timm's weights of it."""
    pyramid = backbones.TimmFPN(backbone, weights=backbone_weights)
    return FasterRCNN(pyramid, num_classes, settings)


# On one level of features, with the backbones and heads of Fast R-CNN: for comparisons with what came before.
ONE_LEVEL: dict[str, Any] = {"min_size": 600, "max_size": 1000, "anchor_sizes": ((32, 64, 128, 256, 512),)}
SMALL_ONE_LEVEL = {**SMALL, **fast_rcnn.SMALL, "anchor_sizes": ((32, 64, 128, 256),)}


@detector(Settings(**ONE_LEVEL), pretrained=fast_rcnn.VGG16, training=fast_rcnn.PAIRS)
def faster_rcnn_vgg16(
    num_classes: int, backbone_weights: Weights, settings: Settings, freeze: int = 0, hidden: int = 4096
) -> FasterRCNN:
    """Faster R-CNN on VGG16, as first published, but for RoIAlign."""
    return FasterRCNN(num_classes=num_classes, settings=settings, **fast_rcnn.vgg16(backbone_weights, freeze, hidden))


@detector(Settings(**ONE_LEVEL), pretrained=fast_rcnn.ALEXNET, training=fast_rcnn.PAIRS)
def faster_rcnn_alexnet(
    num_classes: int, backbone_weights: Weights, settings: Settings, freeze: int = 0, hidden: int = 4096
) -> FasterRCNN:
    """Faster R-CNN on AlexNet's five convolutions and two linear layers."""
    return FasterRCNN(num_classes=num_classes, settings=settings, **fast_rcnn.alexnet(backbone_weights, freeze, hidden))


@detector(Settings(**SMALL_ONE_LEVEL), pretrained=MOBILENET, training=SMALL_PAIRS)
def faster_rcnn_mobilenet_v2(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    norm: str = "batch",
    freeze: int = 0,
    hidden: int = 512,
) -> FasterRCNN:
    """Faster R-CNN on one level of MobileNetV2: learns on a CPU."""
    parts = fast_rcnn.mobilenet_v2(backbone_weights, norm, freeze, hidden)
    return FasterRCNN(num_classes=num_classes, settings=settings, **parts)
