"""R-CNN: a network on every warped proposal, then SVMs and box regressors on its features.

Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation", CVPR 2014
(arXiv 1311.2524v5, whose sections are cited). Shapes: B images, P proposals, K regions of all images, S x S pixels of a
crop, F features, C classes with the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import boxops

from . import backbones, linear, rcnn_stages
from .builders import Weights, detector
from .common import IMAGENET, Detector, GroundTruth, Stage, Target
from .proposals import Proposals
from .roi_heads import Result, Sampling, TwoMLPHead, classifier_head, sample


@dataclass(frozen=True)
class Shared(linear.Settings, Sampling):
    """The hyperparameters that SPP-net has too; those of the SVMs and the regressors: see linear.py."""

    box_fg_iou_thresh: float = 0.5  # section 2.3, as the next three
    box_bg_iou_low: float = 0.0
    box_batch_size_per_image: int = 32  # 128 in steps of 4 images; the paper draws them from all images
    box_positive_fraction: float = 0.25
    score_thresh: float = 0.1
    nms_thresh: float = 0.3
    detections_per_img: int = 100


@dataclass(frozen=True)
class Settings(Shared):
    """The hyperparameters."""

    min_size: int = 600  # proposals are warped from the resized image
    max_size: int = 1000
    crop_size: int = 227  # S
    context: int = 16  # pixels around the proposal in its crop; appendix A
    chunk: int = 64  # crops at a time, in detection


class RCNN(Detector):
    """R-CNN on any network; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps crops ``[K, 3, S, S]`` to a dict with one level of features.
        head: maps these, flat, to F features: the network's fully connected layers.
        num_classes: with the background, which is 0.
        settings: the hyperparameters.
        proposals: gives the boxes to look at.
        pool: what comes between backbone and head.

    Steps train ``loss_classifier``, the softmax of section 2.3. Then come the stages: the features of all proposals on
    the disk, an SVM per class, box regressors per class. While there are no SVMs, as after a step, which makes those
    of other features useless, the softmax detects.

    Scores are the logistic function of the SVMs' margins: 0.5 lies on the plane between object and background, 0.27
    and 0.73 on the margins beside it. They are no probabilities; nothing is fitted to make them such.
    """

    stages: Sequence[Stage] = (
        Stage("features", rcnn_stages.features),
        Stage("svms", rcnn_stages.svms, rcnn_stages.check),
        Stage("regressors", rcnn_stages.regressors),
    )

    def __init__(
        self,
        backbone: nn.Module,
        head: TwoMLPHead,
        num_classes: int,
        settings: Settings = Settings(),
        *,
        proposals: Proposals | None,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__(GeneralizedRCNNTransform(settings.min_size, settings.max_size, *IMAGENET))  # type: ignore[arg-type]
        self.settings, self.proposals = settings, proposals
        self.backbone, self.pool, self.head = backbone, pool or nn.Identity(), head
        self.classifier = nn.Linear(head.out_features, num_classes)
        self.svms = nn.Linear(head.out_features, num_classes - 1)
        self.regressors = nn.Linear(head.in_features, (num_classes - 1) * 4)
        for layer in (self.svms, self.regressors):
            layer.requires_grad_(False)
        self.forget()

    def pooled(self, batch: ImageList, boxes: Sequence[Tensor]) -> Tensor:
        """The pooled features [K, channels, s, s] of regions, of each image [P, 4]: here of their crops."""
        s = self.settings
        wide = [with_context(some, s.crop_size, s.context) for some in boxes]
        crops = boxops.roi_align(batch.tensors, wide, s.crop_size, 1.0, 0, aligned=True)  # [K, 3, S, S]; outside: mean
        crops = crops.contiguous(memory_format=torch.channels_last)  # 2 to 4 times as fast on a CPU
        parts = [crops] if self.training else crops.split(s.chunk)
        return torch.cat([self.pool(self.backbone(part)["0"]) for part in parts])

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        self.forget()
        boxes, labels, total = self.sample(batch, GroundTruth.of(targets))
        logits = self.classifier(self.head(self.pooled(batch, boxes))).float()  # [K, C]
        return {"loss_classifier": F.cross_entropy(logits, labels, reduction="sum") / total}

    def sample(self, batch: ImageList, truth: GroundTruth) -> tuple[list[Tensor], Tensor, Tensor]:
        """Windows to learn, of each image [S, 4], their labels [K] and how many they are. Section 2.3."""
        own = [
            given if len(given) else whole(size, given)
            for given, size in zip(batch.proposals, batch.image_sizes, strict=True)
        ]
        both = [torch.cat([some, image["boxes"].float()]) for some, image in zip(own, truth.images, strict=True)]
        boxes = pad_sequence(both, batch_first=True)  # [B, P, 4]
        counts = torch.tensor([len(some) for some in both], device=boxes.device)
        real = torch.arange(boxes.shape[1], device=boxes.device) < counts[:, None]
        chosen, boxes, matches = sample(boxes, real, truth, self.settings)
        labels = truth.take(truth.labels, matches) * chosen.positive  # 0: background
        windows = [some[there] for some, there in zip(boxes, chosen.real, strict=True)]
        return windows, labels[chosen.real], chosen.total

    def detections(self, batch: ImageList) -> list[Result]:
        images = zip(batch.tensors, batch.image_sizes, batch.proposals, strict=True)
        return [self.detect(ImageList(image[None], [size]), boxes) for image, size, boxes in images]

    def detect(self, image: ImageList, boxes: Tensor) -> Result:
        """What is in one image, of its proposals [P, 4]. Section 2.2, appendix C."""
        s = self.settings
        pooled = self.pooled(image, [boxes])
        features = self.head(pooled)
        scores = self.svms(features).sigmoid() if self.fitted else self.classifier(features).softmax(-1)[:, 1:]
        deltas = self.regressors(pooled.flatten(1)).unflatten(1, (-1, 4))  # [P, C - 1, 4]
        decoded = boxops.decode_boxes(deltas, boxes[:, None], image_size=image.image_sizes[0])
        found, scores, labels, counts = boxops.detect(
            decoded[None], scores[None], s.score_thresh, s.nms_thresh, s.detections_per_img, min_size=1e-2
        )
        count = int(counts)
        return {"boxes": found[0, :count], "scores": scores[0, :count], "labels": labels[0, :count] + 1}

    @property
    def fitted(self) -> bool:
        """Whether there are SVMs."""
        return bool(self.svms.weight.any())

    @torch.no_grad()
    def forget(self) -> None:
        """No SVMs and no regressors: what was fitted to other features is of no use."""
        for parameter in (*self.svms.parameters(), *self.regressors.parameters()):
            parameter.zero_()


def with_context(boxes: Tensor, size: int, context: int) -> Tensor:
    """Boxes [K, 4] so much larger that a crop of size x size pixels has that many of context on each side."""
    sides = boxes[:, 2:] - boxes[:, :2]
    margin = sides * (context / (size - 2 * context))
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def whole(size: tuple[int, int], like: Tensor) -> Tensor:
    return like.new_tensor([[0, 0, size[1], size[0]]])


SMALL: dict[str, Any] = {"min_size": 480, "max_size": 800, "crop_size": 64, "context": 4, "chunk": 32}  # on a CPU
PAPER: dict[str, Any] = {"batch_size": 4, "optimizer": "sgd", "lr": 1e-3, "eval_every": 0}


@detector(Settings(), training=PAPER)
def rcnn_alexnet(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    freeze: int = 0,
    proposals: str = "selective_search_fast",
    max_proposals: int = 2000,
) -> RCNN:
    """R-CNN as published: crops of 227 pixels, AlexNet's convolutions and its fc6 and fc7."""
    network: Any = backbones.classifier("alexnet", None, backbone_weights, freeze)
    return RCNN(
        backbones.alexnet_conv5(network),
        classifier_head(network),
        num_classes,
        settings,
        proposals=Proposals(proposals, max_proposals),
        pool=network.features[12],  # 13 x 13 to 6 x 6
    )


@detector(Settings(crop_size=224, chunk=32), training=PAPER)
def rcnn_vgg16(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    freeze: int = 0,
    proposals: str = "selective_search_fast",
    max_proposals: int = 2000,
) -> RCNN:
    """R-CNN on VGG16, the paper's O-Net (section 3.3): crops of 224 pixels."""
    network: Any = backbones.classifier("vgg16", None, backbone_weights, freeze)
    return RCNN(
        backbones.vgg16_conv5(network),
        classifier_head(network),
        num_classes,
        settings,
        proposals=Proposals(proposals, max_proposals),
        pool=network.features[30],  # 14 x 14 to 7 x 7
    )


@detector(
    Settings(**SMALL),
    short="rcnn",
    pretrained={"norm": "frozen", "freeze": 2},
    training={**PAPER, "lr": 5e-3, "channels_last": True},
)
def rcnn_mobilenet_v2(
    num_classes: int,
    backbone_weights: Weights,
    settings: Settings,
    norm: str = "batch",
    freeze: int = 0,
    proposals: str = "edge_boxes",
    max_proposals: int = 2000,
) -> RCNN:
    """R-CNN on MobileNetV2 up to stride 16, with small crops: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    backbone = backbones.mobilenet_v2_c4(network)
    head = TwoMLPHead(backbone.out_channels * (settings.crop_size // 16) ** 2, 256)
    return RCNN(backbone, head, num_classes, settings, proposals=Proposals(proposals, max_proposals))
