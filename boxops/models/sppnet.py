"""SPP-net: the convolutions once on the image, a pyramid of pooled bins for each proposal; then as R-CNN.

He et al., "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition", ECCV 2014 (arXiv
1406.4729v4, whose sections are cited). Shapes: B images, P proposals, K regions of all images, F = 50 times channels
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

import boxops

from . import backbones, rcnn
from .builders import Weights, detector
from .proposals import Proposals
from .rcnn import RCNN
from .roi_heads import TwoMLPHead, scale_of


@dataclass(frozen=True)
class Settings(rcnn.Shared):
    """The hyperparameters, and those of R-CNN's SVMs and regressors."""

    scales: Sequence[int] = (480, 576, 688, 864, 1200)  # shorter sides of the image, in pixels; section 4.1
    max_size: int = 2000  # the longer side at the largest scale
    region_size: int = 224  # a region is seen at the scale where its area is nearest to this one's square
    bins: Sequence[int] = (6, 3, 2, 1)  # along both axes, of each level of the pyramid: 50 in all
    box_bg_iou_low: float = 0.1  # section 4.1

    def __post_init__(self) -> None:
        for name in ("scales", "bins"):
            numbers = getattr(self, name)
            if not numbers or min(numbers) < 1:
                raise ValueError(f"{name}: expected numbers of 1 or more, got {numbers!r}")

    def of_size(self, size: int) -> dict[str, Any]:
        """The options for images of about that shorter side: it becomes the middle scale."""
        middle = self.scales[len(self.scales) // 2]
        scales = tuple(round(scale * size / middle) for scale in self.scales)
        return {"scales": scales, "max_size": 2 * max(scales)}

    @property
    def min_size(self) -> int:
        """Of the transform: the other scales are made from the largest."""
        return max(self.scales)


class SPPNet(RCNN):
    """SPP-net on any network of convolutions; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, H, W]`` to a dict with one level of features. It does not learn: section 4.1
            trains the fully connected layers alone.
        head: maps the pooled features ``[K, F]`` to those of the SVMs.
        num_classes, settings, proposals: as for :class:`RCNN`.

    Training and detection are those of :class:`RCNN`: softmax, then SVMs and regressors.
    """

    settings: Settings  # type: ignore[assignment]

    def __init__(
        self,
        backbone: nn.Module,
        head: TwoMLPHead,
        num_classes: int,
        settings: Settings = Settings(),
        *,
        proposals: Proposals | None,
    ) -> None:
        super().__init__(backbone, head, num_classes, settings, proposals=proposals)  # type: ignore[arg-type]
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> SPPNet:
        super().train(mode)
        self.backbone.eval()  # norms, too, stay as they are
        return self

    def pooled(self, batch: ImageList, boxes: Sequence[Tensor]) -> Tensor:
        """The pyramids [K, F] of regions, of each image [P, 4]; the image is computed once for each scale in use."""
        bins = self.settings.bins
        scales = self.nearest_scale(torch.cat([*boxes]))  # [K]
        width = int(self.backbone.out_channels) * sum(n * n for n in bins)  # type: ignore[arg-type]
        pooled = batch.tensors.new_zeros(len(scales), width)
        for i, scale in enumerate(self.settings.scales):
            here = scales == i
            if not here.any():
                continue
            images = at_scale(batch.tensors, scale / self.settings.min_size)
            shrunk = images.shape[-1] / batch.tensors.shape[-1], images.shape[-2] / batch.tensors.shape[-2]
            factors = pooled.new_tensor([*shrunk, *shrunk])
            parts = here.split([len(some) for some in boxes])
            chosen = [some[part] * factors for some, part in zip(boxes, parts, strict=True)]
            features = self.backbone(images)["0"]
            pooled[here] = pyramid(features, chosen, bins, scale_of(features, images)).to(pooled)
        return pooled

    def nearest_scale(self, boxes: Tensor) -> Tensor:
        """Which of the scales each box [K, 4] of the largest one is seen at, [K]. Section 4.1."""
        s = self.settings
        factors = boxes.new_tensor([scale / s.min_size for scale in s.scales])
        areas = boxops.box_area(boxes)[:, None] * factors**2  # [K, scales]
        return (areas - s.region_size**2).abs().argmin(dim=1)


def at_scale(images: Tensor, factor: float) -> Tensor:
    """Images [B, 3, H, W] that many times as large."""
    if factor == 1:
        return images
    size = [max(round(side * factor), 1) for side in images.shape[-2:]]
    return F.interpolate(images, size, mode="bilinear", align_corners=False)


def pyramid(features: Tensor, boxes: Sequence[Tensor], bins: Sequence[int], scale: float) -> Tensor:
    """The largest values in n x n bins, n of ``bins``, of each image's boxes [P, 4] on its features: [K, F].

    Bin i of w cells in n goes from floor(i w / n) to ceil((i + 1) w / n), and a box has the cells whose
    middles lie in it, rounded: appendix A. RoI pooling has one more, the last, which is therefore taken off.
    """
    last = boxes[0].new_tensor([0, 0, 1 / scale, 1 / scale])
    cells = [some - last for some in boxes]
    return torch.cat([boxops.roi_pool(features, cells, n, scale).flatten(1) for n in bins], dim=1)


SMALL: dict[str, Any] = {"scales": (320, 480, 640), "max_size": 1067, "region_size": 112}  # for a CPU


@detector(Settings(), training=rcnn.PAPER)
def sppnet_alexnet(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    hidden: int = 4096,
    proposals: str = "selective_search_fast",
    max_proposals: int = 2000,
) -> SPPNet:
    """SPP-net on AlexNet's five convolutions; the paper's ZF-5 is of their size. ``hidden``: features of fc6, fc7."""
    backbone = backbones.alexnet_conv5(backbones.classifier("alexnet", None, backbone_weights))
    return build(backbone, num_classes, hidden, Proposals(proposals, max_proposals), settings)


@detector(Settings(), training=rcnn.PAPER)
def sppnet_vgg16(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    hidden: int = 4096,
    proposals: str = "selective_search_fast",
    max_proposals: int = 2000,
) -> SPPNet:
    """SPP-net on VGG16, of which Fast R-CNN has numbers (its section 4)."""
    backbone = backbones.vgg16_conv5(backbones.classifier("vgg16", None, backbone_weights))
    return build(backbone, num_classes, hidden, Proposals(proposals, max_proposals), settings)


@detector(Settings(**SMALL), short="sppnet", pretrained={"norm": "frozen"}, training={**rcnn.PAPER, "lr": 5e-3})
def sppnet_mobilenet_v2(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    norm: str = "batch",
    hidden: int = 512,
    proposals: str = "edge_boxes",
    max_proposals: int = 2000,
) -> SPPNet:
    """SPP-net on MobileNetV2 up to stride 16: learns on a CPU."""
    backbone = backbones.mobilenet_v2_c4(backbones.classifier("mobilenet_v2", norm, backbone_weights))
    return build(backbone, num_classes, hidden, Proposals(proposals, max_proposals), settings)


def build(
    backbone: backbones.OneLevel, num_classes: int, hidden: int, proposals: Proposals, settings: Settings
) -> SPPNet:
    head = TwoMLPHead(backbone.out_channels * sum(n * n for n in settings.bins), hidden)
    return SPPNet(backbone, head, num_classes, settings, proposals=proposals)
