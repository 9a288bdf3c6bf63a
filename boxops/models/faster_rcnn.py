"""Faster R-CNN: a region proposal network and a Fast R-CNN head on shared features, trained together.

Ren et al., "Faster R-CNN", NeurIPS 2015; with FPN: Lin et al., "Feature Pyramid Networks", CVPR 2017. Modules and
numbers have the names of torchvision's, whose checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from . import backbones, fast_rcnn, rpn
from .common import Weights, detector
from .fast_rcnn import MOBILENET, SMALL_PAIRS, FastRCNN
from .roi_heads import ConvHead, ResNetTail, TwoMLPHead


@dataclass(frozen=True)
class Settings(fast_rcnn.Settings, rpn.Settings):
    """The numbers of the method, with torchvision's names and values."""

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


@detector(pretrained=MOBILENET, training=SMALL_PAIRS)
def faster_rcnn_mobilenet_v2_fpn(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV2 with FPN from stride 8: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    backbone = backbones.mobilenet_fpn(network, (6, 13, 18), 128)
    head = TwoMLPHead(backbone.out_channels * 49, 256)  # type: ignore[arg-type, operator]
    return FasterRCNN(backbone, num_classes, Settings(**(SMALL | settings)), box_head=head)


@detector(pretrained=MOBILENET_V3, training=SMALL_PAIRS)
def faster_rcnn_mobilenet_v3_large_fpn(
    num_classes: int, backbone_weights: Weights, norm: str = "batch", freeze: int = 0, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on MobileNetV3-Large with FPN; loads torchvision's ``fasterrcnn_mobilenet_v3_large_fpn``."""
    network = backbones.classifier("mobilenet_v3_large", norm, backbone_weights, freeze)
    numbers = Settings(**{"anchor_sizes": ((32, 64, 128, 256, 512),) * 3, "rpn_score_thresh": 0.05, **settings})
    return FasterRCNN(backbones.mobilenet_fpn(network, (13, 16), 256), num_classes, numbers)


@detector(pretrained=MOBILENET_V3, training=SMALL_PAIRS)
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


# On one level of features, with the backbones and heads of Fast R-CNN: for comparisons with what came before.
ONE_LEVEL = {"min_size": 600, "max_size": 1000, "anchor_sizes": ((32, 64, 128, 256, 512),)}
SMALL_ONE_LEVEL = {**SMALL, **fast_rcnn.SMALL, "anchor_sizes": ((32, 64, 128, 256),)}


@detector(pretrained=fast_rcnn.VGG16, training=fast_rcnn.PAIRS)
def faster_rcnn_vgg16(
    num_classes: int, backbone_weights: Weights, freeze: int = 0, hidden: int = 4096, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on VGG16, as first published, but for RoIAlign."""
    numbers = Settings(**{**ONE_LEVEL, **settings})
    return FasterRCNN(num_classes=num_classes, settings=numbers, **fast_rcnn.vgg16(backbone_weights, freeze, hidden))


@detector(pretrained=fast_rcnn.ALEXNET, training=fast_rcnn.PAIRS)
def faster_rcnn_alexnet(
    num_classes: int, backbone_weights: Weights, freeze: int = 0, hidden: int = 4096, **settings: Any
) -> FasterRCNN:
    """Faster R-CNN on AlexNet's five convolutions and two linear layers."""
    numbers = Settings(**{**ONE_LEVEL, **settings})
    return FasterRCNN(num_classes=num_classes, settings=numbers, **fast_rcnn.alexnet(backbone_weights, freeze, hidden))


@detector(pretrained=MOBILENET, training=SMALL_PAIRS)
def faster_rcnn_mobilenet_v2(
    num_classes: int,
    backbone_weights: Weights,
    norm: str = "batch",
    freeze: int = 0,
    hidden: int = 512,
    **settings: Any,
) -> FasterRCNN:
    """Faster R-CNN on one level of MobileNetV2: learns on a CPU."""
    parts = fast_rcnn.mobilenet_v2(backbone_weights, norm, freeze, hidden)
    return FasterRCNN(num_classes=num_classes, settings=Settings(**{**SMALL_ONE_LEVEL, **settings}), **parts)
