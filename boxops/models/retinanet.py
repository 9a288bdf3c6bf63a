"""RetinaNet: all anchors of a feature pyramid classified and refined at once, by a loss that easy ones do not drown.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. Modules and settings have the names of torchvision's,
whose checkpoints load as they are. Shapes: B images, A anchors, N candidates of them, C classes with the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import Conv2dNormActivation

import boxops

from . import backbones
from .builders import ADAMW, Weights, detector
from .common import IMAGENET, Detector, GroundTruth, Target
from .dense import Branch, candidates, focal_loss, suppress
from .sizes import resize


def octaves(*sizes: int) -> tuple[tuple[int, ...], ...]:
    """Three sizes of anchors on each level, a third of an octave apart; section 4, "Anchors"."""
    return tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in sizes)


@dataclass(frozen=True)
class Settings:
    """The hyperparameters, with torchvision's names and values."""

    min_size: int | Sequence[int] = 800
    max_size: int = 1333
    multi_scale: bool = False  # learn at 10 to 19 thirteenths of them, see sizes.py
    anchor_sizes: Sequence[Sequence[float]] = octaves(32, 64, 128, 256, 512)
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    fg_iou_thresh: float = 0.5
    bg_iou_thresh: float = 0.4
    alpha: float = 0.25
    gamma: float = 2.0
    box_loss: str = "l1"  # of the deltas, or "giou" of the boxes
    score_thresh: float = 0.05
    topk_candidates: int = 1000
    nms_thresh: float = 0.5
    detections_per_img: int = 300


class RetinaNet(Detector):
    """RetinaNet on any backbone; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, H, W]`` to a dict of features, fine to coarse, each with ``out_channels``
            channels.
        num_classes: with the background, which is 0. As in torchvision each class, the background too, has a score of
            its own, and training pushes the background's to 0.
        settings: the hyperparameters.
        norm: makes a norm of so many channels after each convolution of the head; None: there is none.

    The losses are ``classification`` (focal) and ``bbox_regression``, both per matched anchor of an image, and then the
    mean of the images: section 4.1. Anchors count with the weights of their objects.
    """

    weighted = True
    legacy_names: Sequence[tuple[str, str]] = (
        backbones.LEGACY_FPN,
        *((rf"^(head\.\w+\.conv)\.{2 * i}\.(weight|bias)$", rf"\1.{i}.0.\2") for i in range(4)),
    )

    def __init__(
        self, backbone: nn.Module, num_classes: int, settings: Settings = Settings(), *, norm: Any = None
    ) -> None:
        s = settings
        super().__init__(resize(s.min_size, s.max_size, *IMAGENET, multi_scale=s.multi_scale))
        if s.box_loss not in ("l1", "giou"):
            raise ValueError(f"expected box_loss to be l1 or giou, got {s.box_loss!r}")
        anchors = {len(sizes) * len(s.aspect_ratios) for sizes in s.anchor_sizes}
        if len(anchors) != 1:
            raise ValueError(f"expected anchor_sizes with as many sizes on every level, got {s.anchor_sizes}")
        self.settings, self.backbone, self.per_cell = s, backbone, anchors.pop()
        channels = int(backbone.out_channels)  # type: ignore[arg-type]

        def branch(**outputs: int) -> Branch:
            convs = (Conv2dNormActivation(channels, channels, 3, norm_layer=norm) for _ in range(4))
            return Branch(nn.Sequential(*convs), channels, self.per_cell, **outputs)

        heads = {"classification_head": branch(cls_logits=num_classes), "regression_head": branch(bbox_reg=4)}
        self.head = nn.ModuleDict(heads)

    def predict(self, batch: ImageList) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Class logits [B, A, C], deltas [B, A, 4], the anchors [A, 4], and how many of them each level has."""
        s, features = self.settings, list(self.backbone(batch.tensors).values())
        (logits,), (deltas,) = (self.head[name](features) for name in ("classification_head", "regression_head"))
        grids = [(f.shape[-2], f.shape[-1]) for f in features]
        image_size = (batch.tensors.shape[-2], batch.tensors.shape[-1])
        ratios = [s.aspect_ratios] * len(grids)
        anchors = boxops.grid_anchors(image_size, grids, s.anchor_sizes, ratios, like=deltas)
        return logits, deltas, anchors, [height * width * self.per_cell for height, width in grids]

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        s, truth = self.settings, GroundTruth.of(targets)
        logits, deltas, anchors, _ = self.predict(batch)
        matches, _ = boxops.match_max_iou(
            anchors, truth.boxes, s.fg_iou_thresh, s.bg_iou_thresh, True, offsets=truth.offsets, **truth.crowds
        )  # [B, A]: an object of the image, -1 the background, -2 neither
        positive = matches >= 0
        boxes = truth.take(truth.boxes, matches).where(positive[..., None], anchors)  # deltas 0 where nothing is learnt
        if s.box_loss == "giou":
            regression = boxops.generalized_box_iou_loss(boxops.decode_boxes(deltas, anchors), boxes)
        else:
            regression = F.l1_loss(deltas, boxops.encode_boxes(boxes, anchors), reduction="none").sum(dim=-1)
        classes = focal_loss(logits, matches, truth, s.alpha, s.gamma)
        weights = truth.weigh(matches) * positive
        matched = weights.sum(dim=1).clamp(min=1)
        return {
            "classification": (classes.sum(dim=1) / matched).mean(),
            "bbox_regression": ((regression * weights).sum(dim=1) / matched).mean(),
        }

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        s = self.settings
        logits, deltas, anchors, levels = self.predict(batch)
        at, labels, best = candidates(logits, levels, s.topk_candidates)
        deltas = deltas[torch.arange(len(at), device=at.device)[:, None], at]  # [B, N, 4]
        boxes = boxops.decode_boxes(deltas, anchors[at], image_size=batch.image_sizes)
        scores = best.sigmoid()
        return suppress(boxes, scores, labels, s.score_thresh, s.nms_thresh, s.detections_per_img)


@detector(Settings(), pretrained={"norm": "frozen", "freeze": 5})
def retinanet_resnet50_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> RetinaNet:
    """RetinaNet on ResNet-50 with FPN; loads torchvision's ``retinanet_resnet50_fpn``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    return RetinaNet(backbones.resnet_fpn_p6p7(network), num_classes, settings)


@detector(Settings(box_loss="giou"), pretrained={"norm": "frozen", "freeze": 5})
def retinanet_resnet50_fpn_v2(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> RetinaNet:
    """RetinaNet with group norm in its head and a GIoU loss; loads torchvision's ``retinanet_resnet50_fpn_v2``."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    backbone = backbones.resnet_fpn_p6p7(network, from_c5=True)
    return RetinaNet(backbone, num_classes, settings, norm=partial(nn.GroupNorm, 32))


SMALL: dict[str, Any] = {"min_size": 320, "max_size": 640, "anchor_sizes": octaves(32, 64, 128, 256)}  # on a CPU


@detector(Settings(**SMALL), short="retinanet", pretrained={"norm": "frozen", "freeze": 2}, training=ADAMW)
def retinanet_mobilenet_v2_fpn(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> RetinaNet:
    """RetinaNet on MobileNetV2 with FPN from stride 8: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    backbone = backbones.mobilenet_fpn(network, (6, 13, 18), 128)
    return RetinaNet(backbone, num_classes, settings, norm=partial(nn.GroupNorm, 32))
