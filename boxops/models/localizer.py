"""Classification and localization: what the one object of an image is, and where, "treated as a regression problem".

The lecture's first step from classification to detection. Sermanet et al., "OverFeat", ICLR 2014, section 4, which won
ILSVRC 2013's localization; Szegedy et al., "Deep Neural Networks for Object Detection", NeurIPS 2013, section 3.
Shapes: B images, C classes with the background, which no image is, M channels and S x S cells of the head's map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import boxops

from . import backbones
from .builders import ADAMW, Weights, detector
from .common import IMAGENET, Detector, GroundTruth, Target


@dataclass(frozen=True)
class Settings:
    """The hyperparameters; those of MobileNetV2 on 2 cores."""

    size: int = 128  # the input's side in pixels
    grid: int = 4  # S: the backbone's map is pooled to so many cells a side, as AlexNet's to 6; of 128 pixels it has 4
    channels: int = 64  # M
    hidden: int = 512
    box_weight: float = 20.0  # of the L2 loss: squares of fractions of the image are small beside a softmax loss


class Head(nn.Module):
    """One hidden layer for both questions, then a linear one for each: class scores, and one box whatever the class.

    The hidden layer reads the cells one by one: an average over them (MobileNetV2's own) does not say where things are.
    """

    def __init__(self, channels: int, classes: int, settings: Settings) -> None:
        super().__init__()
        s = settings
        self.cells = nn.Sequential(
            nn.AdaptiveAvgPool2d(s.grid),  # [B, channels, S, S]
            nn.Conv2d(channels, s.channels, 1, bias=False),
            nn.BatchNorm2d(s.channels),
            nn.ReLU(inplace=True),
            nn.Flatten(),  # [B, M * S * S]
            nn.Linear(s.channels * s.grid**2, s.hidden),
            nn.ReLU(inplace=True),
        )
        self.classes, self.box = nn.Linear(s.hidden, classes), nn.Linear(s.hidden, 4)
        # The first guess is the same for all: in the middle, half as wide and high as the image. Random ones make the
        # first steps so large that hidden units die.
        nn.init.zeros_(self.box.weight)
        nn.init.constant_(self.box.bias, 0.5)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.cells(features)
        return self.classes(hidden).float(), self.box(hidden).float()


class Localizer(Detector):
    """Class and box of the one object of an image; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, size, size]`` to a dict of one feature map, with ``out_channels``.
        num_classes: with the background, which is 0 and never the answer.
        settings: the hyperparameters.

    The losses are ``classification`` (softmax) and ``bbox_regression``, the squared error of (x, y, width, height) in
    fractions of the image, x and y of the centre, summed over the four: means over the images.

    Every image gives one detection; its score is the class's probability, and says nothing of the box.

    Raises:
        ValueError: in training, an image has no object or several.
    """

    metric = "localization"

    def __init__(self, backbone: nn.Module, num_classes: int, settings: Settings = Settings()) -> None:
        size = (settings.size, settings.size)
        super().__init__(GeneralizedRCNNTransform(*size, *IMAGENET, size_divisible=1, fixed_size=size))
        self.settings, self.backbone = settings, backbone
        self.head = Head(backbone.out_channels, num_classes - 1, settings)  # type: ignore[arg-type]

    def predict(self, batch: ImageList) -> tuple[Tensor, Tensor]:
        """Class logits [B, C - 1], and boxes [B, 4] as cxcywh, as fractions of the image's sides."""
        (features,) = self.backbone(batch.tensors).values()
        logits, boxes = self.head(features)
        return logits, boxes

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        s, truth = self.settings, GroundTruth.of(targets)
        for i, image in enumerate(truth.images):
            if len(image["boxes"]) != 1:
                raise ValueError(
                    f"expected one object in each image, got {len(image['boxes'])} in image {i}: open_dataset(..., "
                    "one_object=True), or --data-option one_object=true, gives data of one object an image"
                )
        logits, boxes = self.predict(batch)
        target_boxes = boxops.box_convert(truth.boxes / s.size, "xyxy", "cxcywh")
        return {
            "bbox_regression": s.box_weight * F.mse_loss(boxes, target_boxes, reduction="none").sum(dim=1).mean(),
            "classification": F.cross_entropy(logits, truth.labels - 1),
        }

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        logits, boxes = self.predict(batch)
        scores, classes = logits.softmax(dim=1).max(dim=1, keepdim=True)  # [B, 1]
        corners = boxops.box_convert(boxes.clamp(min=0) * self.settings.size, "cxcywh", "xyxy")
        corners = boxops.clip_boxes_to_image(corners, (self.settings.size, self.settings.size))
        found = {"boxes": corners[:, None], "scores": scores, "labels": classes + 1}
        return found, classes.new_ones(len(classes))


TRAINING: dict[str, Any] = {**ADAMW, "batch_size": 16, "lr": 1e-3, "backbone_lr": 0.5, "epochs": 15}


@detector(Settings(), short="localizer", training=TRAINING, needs=("one_object",))
def localizer_mobilenet_v2(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> Localizer:
    """A localizer on MobileNetV2: learns on a CPU."""
    network: Any = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    return Localizer(backbones.OneLevel(network.features, 1280), num_classes, settings)


@detector(Settings(size=224, grid=6), training=TRAINING, needs=("one_object",))
def localizer_alexnet(num_classes: int, backbone_weights: Weights, settings: Settings, freeze: int = 0) -> Localizer:
    """A localizer on AlexNet's convolutions."""
    network: Any = backbones.classifier("alexnet", None, backbone_weights, freeze)
    return Localizer(backbones.OneLevel(network.features, 256), num_classes, settings)
