"""Reference detectors on boxops' kernels: one readable file each, torchvision's checkpoints load unchanged.

``create(name, **options)`` builds any of them by its name; ``MODELS`` has them all.
"""

from __future__ import annotations

from typing import Any

from .builders import MODELS, SHORT
from .checkpoint import load_weights, read
from .common import Detector, Padded
from .darknet import Darknet
from .detr import DETR, detr_mobilenet_v2, detr_resnet50, detr_resnet50_dc5, detr_resnet101, detr_resnet101_dc5
from .fast_rcnn import FastRCNN, fast_rcnn_alexnet, fast_rcnn_mobilenet_v2, fast_rcnn_vgg16, truncate_svd
from .faster_rcnn import (
    FasterRCNN,
    faster_rcnn_alexnet,
    faster_rcnn_mobilenet_v2,
    faster_rcnn_mobilenet_v2_fpn,
    faster_rcnn_mobilenet_v3_large_320_fpn,
    faster_rcnn_mobilenet_v3_large_fpn,
    faster_rcnn_resnet50_c4,
    faster_rcnn_resnet50_fpn,
    faster_rcnn_resnet50_fpn_v2,
    faster_rcnn_timm_fpn,
    faster_rcnn_vgg16,
)
from .fcos import FCOS, fcos_mobilenet_v2_fpn, fcos_resnet50_fpn
from .localizer import Localizer, localizer_alexnet, localizer_mobilenet_v2
from .mask_rcnn import (
    MaskRCNN,
    keypoint_rcnn_resnet50_fpn,
    mask_rcnn_mobilenet_v2_fpn,
    mask_rcnn_resnet50_fpn,
    mask_rcnn_resnet50_fpn_v2,
)
from .pix2seq import Pix2Seq, pix2seq_mobilenet_v2, pix2seq_resnet50
from .rcnn import RCNN, rcnn_alexnet, rcnn_mobilenet_v2, rcnn_vgg16
from .retinanet import RetinaNet, retinanet_mobilenet_v2_fpn, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from .sliding_window import SlidingWindow, sliding_window_alexnet
from .sppnet import SPPNet, sppnet_alexnet, sppnet_mobilenet_v2, sppnet_vgg16
from .ssd import SSD, ssd300_mobilenet_v2, ssd300_vgg16, ssdlite320_mobilenet_v3_large
from .weights import categories, torchvision_name
from .yolo import YOLO, darknet_yolo, yolo_v1, yolo_v2, yolo_v3

__all__ = [
    "DETR",
    "FCOS",
    "MODELS",
    "RCNN",
    "SHORT",
    "SSD",
    "YOLO",
    "Darknet",
    "Detector",
    "FastRCNN",
    "FasterRCNN",
    "Localizer",
    "MaskRCNN",
    "Padded",
    "Pix2Seq",
    "RetinaNet",
    "SPPNet",
    "SlidingWindow",
    "categories",
    "create",
    "darknet_yolo",
    "detr_mobilenet_v2",
    "detr_resnet50",
    "detr_resnet50_dc5",
    "detr_resnet101",
    "detr_resnet101_dc5",
    "fast_rcnn_alexnet",
    "fast_rcnn_mobilenet_v2",
    "fast_rcnn_vgg16",
    "faster_rcnn_alexnet",
    "faster_rcnn_mobilenet_v2",
    "faster_rcnn_mobilenet_v2_fpn",
    "faster_rcnn_mobilenet_v3_large_320_fpn",
    "faster_rcnn_mobilenet_v3_large_fpn",
    "faster_rcnn_resnet50_c4",
    "faster_rcnn_resnet50_fpn",
    "faster_rcnn_resnet50_fpn_v2",
    "faster_rcnn_timm_fpn",
    "faster_rcnn_vgg16",
    "fcos_mobilenet_v2_fpn",
    "fcos_resnet50_fpn",
    "full_name",
    "keypoint_rcnn_resnet50_fpn",
    "load_weights",
    "localizer_alexnet",
    "localizer_mobilenet_v2",
    "mask_rcnn_mobilenet_v2_fpn",
    "mask_rcnn_resnet50_fpn",
    "mask_rcnn_resnet50_fpn_v2",
    "pix2seq_mobilenet_v2",
    "pix2seq_resnet50",
    "rcnn_alexnet",
    "rcnn_mobilenet_v2",
    "rcnn_vgg16",
    "read",
    "retinanet_mobilenet_v2_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "sliding_window_alexnet",
    "sppnet_alexnet",
    "sppnet_mobilenet_v2",
    "sppnet_vgg16",
    "ssd300_mobilenet_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
    "truncate_svd",
    "yolo_v1",
    "yolo_v2",
    "yolo_v3",
]


def full_name(name: str) -> str:
    """The name in MODELS of a detector: of its short name, or as torchvision spells it (fasterrcnn_resnet50_fpn)."""
    return ({torchvision_name(known): known for known in MODELS} | SHORT).get(name, name)


def create(name: str, *num_classes: int, **options: Any) -> Detector:
    """The detector of that name, long, short or torchvision's; ``create(**model.config)`` builds a model like it.

    Raises:
        ValueError: the name is unknown.
        TypeError: an option is.
    """
    builder = MODELS.get(full_name(name))
    if builder is None:
        raise ValueError(f"expected a model among {', '.join([*SHORT, *MODELS])}, got {name!r}")
    return builder(*num_classes, **options)
