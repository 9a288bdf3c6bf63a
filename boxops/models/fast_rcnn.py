"""Fast R-CNN: one pass of the backbone over the image, one RoI-pooled head on all proposals, one training for both.

Girshick, "Fast R-CNN", ICCV 2015. Faster R-CNN is this with proposals of its own, see faster_rcnn.py. Shapes: B images,
P proposals, S of them sampled, C classes with the background.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.image_list import ImageList

from . import backbones, roi_heads
from .builders import ADAMW, MODELS, SGD, Weights, detector
from .common import IMAGENET, Detector, GroundTruth, Target
from .proposals import Proposals
from .roi_heads import LowRank, Result, RoIHeads, TwoMLPHead, classifier_head
from .rpn import Sample
from .sizes import resize


@dataclass(frozen=True)
class Settings(roi_heads.Settings):
    """The hyperparameters, with torchvision's names where it has them; those of the head: see roi_heads.py."""

    min_size: int | Sequence[int] = 600
    max_size: int = 1000
    multi_scale: bool = False  # learn at 10 to 19 thirteenths of them, see sizes.py


class GivenProposals(nn.Module):
    """In the place of Faster R-CNN's network: the proposals that came with the images, and nothing to learn."""

    def forward(
        self, features: Sequence[Tensor], batch: ImageList, truth: GroundTruth | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Proposals [B, P, 4], padded by 0, how many of them are real [B], and no losses."""
        given: list[Tensor] = batch.proposals  # type: ignore[attr-defined]
        counts = torch.tensor([len(boxes) for boxes in given], device=batch.tensors.device)
        boxes = pad_sequence([*given, counts.new_zeros(1, 4).float()], batch_first=True)[:-1]  # P is 1 or more
        return boxes, counts, {}


class FastRCNN(Detector):
    """Fast R-CNN on any backbone; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, H, W]`` to a dict of features, fine to coarse, each with ``out_channels``
            channels. RoIs are pooled from all but the one named "pool"; RoI pooling is of one level.
        num_classes: with the background, which is 0.
        settings: the hyperparameters.
        proposals: gives the boxes of an image whose target has none.
        rpn: proposes boxes otherwise: of features, batch and ground truth (or None) it makes boxes ``[B, P, 4]``, how
            many are real ``[B]``, and its losses.
        box_head: maps pooled RoIs to ``out_features`` features; two linear layers if None.
        pool_size: bins of a RoI along each axis.

    The losses are ``loss_classifier`` (softmax) and ``loss_box_reg`` (smooth L1), both per sampled RoI: equations 1 to
    3, with lambda = 1. RoIs count with the weights of their objects.
    """

    weighted = True

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        settings: Settings = Settings(),
        *,
        proposals: Proposals | None = None,
        rpn: nn.Module | None = None,
        box_head: nn.Module | None = None,
        pool_size: int = 7,
    ) -> None:
        s = settings
        super().__init__(resize(s.min_size, s.max_size, *IMAGENET, multi_scale=s.multi_scale))
        self.backbone, self.proposals = backbone, proposals
        self.rpn = rpn or GivenProposals()
        head = box_head or TwoMLPHead(int(backbone.out_channels) * pool_size**2)  # type: ignore[arg-type]
        self.roi_heads = RoIHeads(head, num_classes, pool_size, settings)

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        truth = GroundTruth.of(targets)
        features, pooled = self.features(batch)
        proposals, counts, losses = self.rpn(features, batch, truth)
        sample, boxes, matches = self.roi_heads.sample(proposals, counts, truth)
        logits, deltas = self.roi_heads(pooled, boxes, batch, sample.real)
        losses |= self.roi_heads.losses(logits, deltas, sample, boxes, matches, truth)
        return losses | self.branch_losses(pooled, batch, sample, boxes, matches, truth)

    def padded(self, batch: ImageList) -> tuple[Result, Tensor]:
        found, counts, _ = self.boxes(batch)
        return found, counts

    def boxes(self, batch: ImageList) -> tuple[Result, Tensor, list[Tensor]]:
        """What ``padded`` gives, and the levels that further heads pool from."""
        features, pooled = self.features(batch)
        proposals, counts, _ = self.rpn(features, batch, None)
        logits, deltas = self.roi_heads(pooled, proposals, batch)
        return *self.roi_heads.detections(logits, deltas, proposals, counts, batch), pooled

    def features(self, batch: ImageList) -> tuple[list[Tensor], list[Tensor]]:
        """All levels, and those that RoIs are pooled from."""
        levels = self.backbone(batch.tensors)
        return list(levels.values()), [level for name, level in levels.items() if name != "pool"]

    def branch_losses(
        self,
        pooled: Sequence[Tensor],
        batch: ImageList,
        sample: Sample,
        boxes: Tensor,
        matches: Tensor,
        truth: GroundTruth,
    ) -> dict[str, Tensor]:
        """What a further head adds: see mask_rcnn.py. Of the levels that RoIs are pooled from, the sampled boxes
        [B, S, 4], and the object of each [B, S]."""
        return {}


@torch.no_grad()
def truncate_svd(model: FastRCNN, ranks: Sequence[int]) -> None:
    """Makes each of the head's two large layers two small ones, by the largest singular values. Section 3.1.

    A layer of u outputs and v inputs, W = U S V^T, becomes S_t V_t^T without bias and U_t with the layer's own: of
    t (u + v) instead of u v numbers. A checkpoint written with ``model.config`` builds the small layers.

    Args:
        model: of one of this file's builders.
        ranks: t of fc6 and of fc7, of 1 to the lesser of the layer's inputs and outputs. The paper's: 1024 and 256.

    Raises:
        ValueError: the head is another one, or has been truncated; a rank is out of range.
    """
    head = model.roi_heads.box_head
    if not (isinstance(head, TwoMLPHead) and isinstance(head.fc6, nn.Linear) and isinstance(head.fc7, nn.Linear)):
        raise ValueError(f"expected a detector with the linear layers fc6 and fc7, got {type(head).__name__}")
    name = model.config["name"]
    if "svd" not in inspect.signature(MODELS[name]).parameters:
        raise ValueError(f"expected a detector whose builder has the option svd, got {name}")
    layers = [LowRank.of(layer, rank) for layer, rank in zip((head.fc6, head.fc7), ranks, strict=True)]
    head.fc6, head.fc7 = layers
    model.config["svd"] = [*ranks]


# What builders of detectors on one level of features share: backbone, head and bins. Section 2.2: the last pooling
# becomes RoI pooling, and the network's own linear layers are the head.


def alexnet(weights: Weights, freeze: int, hidden: int, ranks: Sequence[int] | None = None) -> dict[str, Any]:
    network = backbones.classifier("alexnet", None, weights, freeze)
    head = classifier_head(network, hidden, ranks)
    return {"backbone": backbones.alexnet_conv5(network), "box_head": head, "pool_size": 6}


def vgg16(weights: Weights, freeze: int, hidden: int, ranks: Sequence[int] | None = None) -> dict[str, Any]:
    network = backbones.classifier("vgg16", None, weights, freeze)
    head = classifier_head(network, hidden, ranks)
    return {"backbone": backbones.vgg16_conv5(network), "box_head": head, "pool_size": 7}


def mobilenet_v2(
    weights: Weights, norm: str, freeze: int, hidden: int, ranks: Sequence[int] | None = None
) -> dict[str, Any]:
    network = backbones.classifier("mobilenet_v2", norm, weights, freeze)
    head = TwoMLPHead(96 * 7 * 7, hidden, ranks)
    return {"backbone": backbones.mobilenet_v2_c4(network), "box_head": head, "pool_size": 7}


ALEXNET = {"freeze": 3}  # conv1 and its pooling do not learn; section 4.5
VGG16 = {"freeze": 10}  # nor what lies before conv3_1
MOBILENET = {"norm": "frozen", "freeze": 2}
PAIRS = {**SGD, "batch_size": 2, "lr": 1e-3}
SMALL_PAIRS = {**ADAMW, "batch_size": 2}
SMALL: dict[str, Any] = {"min_size": 480, "max_size": 800}  # for a CPU


@detector(Settings(), pretrained=VGG16, training=PAIRS)
def fast_rcnn_vgg16(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    freeze: int = 0,
    hidden: int = 4096,
    svd: Sequence[int] | None = None,
    proposals: str = "selective_search_fast",
    max_proposals: int = 2000,
) -> FastRCNN:
    """Fast R-CNN on VGG16, the paper's.

    ``hidden`` are the features of fc6 and fc7; ``svd`` the ranks of both, as :func:`truncate_svd` makes them.
    """
    parts = vgg16(backbone_weights, freeze, hidden, svd)
    given = Proposals(proposals, max_proposals)
    return FastRCNN(num_classes=num_classes, settings=settings, proposals=given, **parts)


@detector(Settings(), pretrained=ALEXNET, training=PAIRS)
def fast_rcnn_alexnet(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    freeze: int = 0,
    hidden: int = 4096,
    svd: Sequence[int] | None = None,
    proposals: str = "selective_search_fast",
    max_proposals: int = 2000,
) -> FastRCNN:
    """Fast R-CNN on AlexNet, the paper's S; for ``hidden`` and ``svd`` see :func:`fast_rcnn_vgg16`."""
    parts = alexnet(backbone_weights, freeze, hidden, svd)
    given = Proposals(proposals, max_proposals)
    return FastRCNN(num_classes=num_classes, settings=settings, proposals=given, **parts)


@detector(Settings(**SMALL), short="fast_rcnn", pretrained=MOBILENET, training=SMALL_PAIRS)
def fast_rcnn_mobilenet_v2(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    norm: str = "batch",
    freeze: int = 0,
    hidden: int = 512,
    svd: Sequence[int] | None = None,
    proposals: str = "edge_boxes",
    max_proposals: int = 2000,
) -> FastRCNN:
    """Fast R-CNN on MobileNetV2: learns on a CPU; for ``hidden`` and ``svd`` see :func:`fast_rcnn_vgg16`."""
    parts = mobilenet_v2(backbone_weights, norm, freeze, hidden, svd)
    given = Proposals(proposals, max_proposals)
    return FastRCNN(num_classes=num_classes, settings=settings, proposals=given, **parts)
