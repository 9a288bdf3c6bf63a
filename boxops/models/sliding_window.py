"""A sliding window: a classifier with a background class on crops of all positions, sizes and aspect ratios, then NMS.

The oldest detector, here with a convolutional network: its boxes are as coarse as its grid. ``naive`` evaluation is a
forward pass for each crop; ``dense`` slides the whole network over the image, with the same result: Sermanet et al.,
"OverFeat", ICLR 2014, section 3.5. Shapes: B images, A windows, S of them sampled, K crops, C classes with the
background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import boxops

from . import backbones
from .builders import ADAMW, Weights, detector
from .common import IMAGENET, Detector, GroundTruth, Target
from .rpn import Sample


@dataclass(frozen=True)
class Settings:
    """The hyperparameters."""

    min_size: int | Sequence[int] = 480
    max_size: int = 640
    sizes: Sequence[float] = (120, 151, 190, 240)  # of windows: square roots of their areas, in pixels
    aspect_ratios: Sequence[float] = (2 / 3, 1, 3 / 2)  # height over width
    head_size: int = 3  # cells a side that the first fully connected layer reads
    hidden: int = 256  # its outputs
    dropout: float = 0.5
    evaluation: str = "dense"  # or naive
    naive_batch: int = 64  # crops that go through the network at a time
    fg_iou_thresh: float = 0.6
    bg_iou_thresh: float = 0.4
    batch_size_per_image: int = 32
    positive_fraction: float = 0.25
    score_thresh: float = 0.05
    nms_thresh: float = 0.3
    detections_per_img: int = 100

    def __post_init__(self) -> None:
        if self.evaluation not in ("dense", "naive"):
            raise ValueError(f"evaluation: expected dense or naive, got {self.evaluation!r}")
        for name in ("sizes", "aspect_ratios"):
            values = getattr(self, name)
            if not values or not all(0 < value < math.inf for value in values):
                raise ValueError(f"{name}: expected positive numbers, got {values!r}")


class Level(NamedTuple):
    """The image resized so that windows of one size and ratio are the network's."""

    size: tuple[int, int]  # (height, width)
    grid: tuple[int, int]  # windows (down, across)


class SlidingWindow(Detector):
    """A sliding window detector on any network without padding; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[K, 3, H, W]`` to a dict of one level of features, ``[K, out_channels, h, w]``, by
            convolutions and pooling, one after another and none of them padded: what a cell says of its part of the
            image must not depend on what is around.
        num_classes: with the background, which is 0.
        settings: the hyperparameters.

    The classifier's fully connected layers are convolutions, of head_size x head_size and 1 x 1 cells. ``window`` is
    the side of the crop from which they make one cell, ``stride`` the step from a crop to the next. To see windows of
    another size or shape, the image is resized. What the last windows see beyond the image is of the mean colour, so
    that an image of any size, however small, has a window. The loss is ``loss_classifier``: softmax.

    Raises:
        ValueError: a layer of the backbone pads, rounds up or is not square.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, settings: Settings = Settings()) -> None:
        s = settings
        super().__init__(GeneralizedRCNNTransform(s.min_size, s.max_size, *IMAGENET, size_divisible=1))  # type: ignore[arg-type]
        self.settings, self.backbone = s, backbone
        channels = int(backbone.out_channels)  # type: ignore[arg-type]
        self.head = nn.Sequential(
            nn.Conv2d(channels, s.hidden, s.head_size),
            nn.ReLU(inplace=True),
            nn.Dropout(s.dropout),
            nn.Conv2d(s.hidden, num_classes, 1),
        )
        self.window, self.stride = receptive_field(backbone, self.head)

    def classify(self, images: Tensor) -> Tensor:
        """Class logits of every window of images [K, 3, H, W]: [K, C, h, w], of crops [K, C, 1, 1]."""
        (features,) = self.backbone(images).values()
        logits: Tensor = self.head(features)
        return logits.float()

    def levels(self, size: tuple[int, int]) -> list[Level]:
        """Of an image of size (height, width), as the network gets it: one for each size and ratio of windows."""
        levels = []
        for side, ratio in product(self.settings.sizes, self.settings.aspect_ratios):
            scales = self.window / (side * ratio**0.5), self.window / (side / ratio**0.5)
            high, wide = (max(1, round(length * scale)) for length, scale in zip(size, scales, strict=True))
            down, across = (math.ceil(max(0, length - self.window) / self.stride) + 1 for length in (high, wide))
            levels.append(Level((high, wide), (down, across)))
        return levels

    def windows(self, size: tuple[int, int], like: Tensor) -> Tensor:
        """All windows of an image of size (height, width), [A, 4] corners in its pixels: level by level, row by row."""
        boxes = []
        for (high, wide), grid in self.levels(size):
            y, x = size[0] / high, size[1] / wide
            priors, strides = [(self.window * x, self.window * y)], (self.stride * y, self.stride * x)
            cells = boxops.cell_anchors(grid, priors, strides, like=like)  # around the middle of cells of one stride
            boxes.append(cells + (self.window - self.stride) / 2 * like.new_tensor([x, y, x, y]))
        return boxops.clip_boxes_to_image(torch.cat(boxes), size)

    def resize(self, image: Tensor, level: Level) -> Tensor:
        """The image [3, H, W] as the level has it, filled up with the mean colour to what its windows see."""
        image = F.interpolate(image[None], level.size, mode="bilinear", antialias=True)[0]
        bottom, right = ((n - 1) * self.stride + self.window - k for n, k in zip(level.grid, level.size, strict=True))
        return F.pad(image, (0, right, 0, bottom))

    def crops(self, image: Tensor, at: Tensor) -> Tensor:
        """The windows of a resized image that ``at`` [K] numbers, row by row: [K, 3, window, window]."""
        every = image.unfold(1, self.window, self.stride).unfold(2, self.window, self.stride)  # [3, down, across, ...]
        return every[:, at // every.shape[2], at % every.shape[2]].transpose(0, 1)

    def logits(self, image: Tensor) -> Tensor:
        """Of all windows of an image [3, H, W]: [A, C]."""
        found = []
        for level in self.levels((image.shape[-2], image.shape[-1])):
            resized = self.resize(image, level)
            if self.settings.evaluation == "dense":
                found.append(self.classify(resized[None])[0].flatten(1).T)
            else:
                every = torch.arange(math.prod(level.grid), device=image.device).split(self.settings.naive_batch)
                found += [self.classify(self.crops(resized, some)).flatten(1) for some in every]
        return torch.cat(found)

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        s, truth = self.settings, GroundTruth.of(targets)
        windows = self.all_windows(batch)
        matches, _ = boxops.match_max_iou(
            windows, truth.boxes, s.fg_iou_thresh, s.bg_iou_thresh, offsets=truth.offsets, **truth.crowds
        )
        matches = matches.where(boxops.box_area(windows) > 0, -2)  # [B, A]
        sample = Sample(matches, s.batch_size_per_image, s.positive_fraction)
        labels = truth.take(truth.labels, sample.of(matches)) * sample.positive  # [B, S], 0: background
        crops = torch.cat([self.sampled(image, at) for image, at in zip(unpadded(batch), sample.at, strict=True)])
        classes = labels.where(sample.real, -100).flatten()
        loss = F.cross_entropy(self.classify(crops).flatten(1), classes, reduction="sum")
        return {"loss_classifier": loss / sample.total}

    def sampled(self, image: Tensor, at: Tensor) -> Tensor:
        """The windows of an image [3, H, W] that ``at`` [S] numbers through all levels: [S, 3, window, window]."""
        crops = image.new_empty(len(at), 3, self.window, self.window)
        for level in self.levels((image.shape[-2], image.shape[-1])):
            here = (at >= 0) & (at < math.prod(level.grid))
            if here.any():
                crops[here] = self.crops(self.resize(image, level), at[here])
            at = at - math.prod(level.grid)
        return crops

    def all_windows(self, batch: ImageList) -> Tensor:
        """Those of each image, filled up with empty ones: [B, A, 4]."""
        return pad_sequence([self.windows(size, batch.tensors) for size in batch.image_sizes], batch_first=True)

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        s = self.settings
        scores = pad_sequence([self.logits(image) for image in unpadded(batch)], batch_first=True).softmax(dim=-1)
        boxes, scores, labels, counts = boxops.detect(
            self.all_windows(batch),
            scores[..., 1:],
            s.score_thresh,
            s.nms_thresh,
            s.detections_per_img,
            min_size=1e-3,  # no empty ones
        )
        return {"boxes": boxes, "scores": scores, "labels": labels + 1}, counts


def unpadded(batch: ImageList) -> list[Tensor]:
    """The images of a batch, each [3, H, W]: a window beyond an image is none."""
    return [image[:, :high, :wide] for image, (high, wide) in zip(batch.tensors, batch.image_sizes, strict=True)]


def receptive_field(*networks: nn.Module) -> tuple[int, int]:
    """How many pixels a side a cell of the output sees, and how many pixels there are from a cell to the next.

    Of networks that are convolutions and pooling, one after another.
    """
    window = stride = 1
    for layer in (layer for network in networks for layer in network.modules()):
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            sides = [pair(getattr(layer, name, 1)) for name in ("kernel_size", "stride", "dilation")]
            pads = layer.padding not in (0, (0, 0)) or getattr(layer, "ceil_mode", False)
            if pads or any(y != x for y, x in sides):
                raise ValueError(f"expected square layers without padding, got {layer}")
            kernel, step, dilation = (y for y, _ in sides)
            window += dilation * (kernel - 1) * stride
            stride *= step
    return window, stride


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


@detector(Settings(), short="sliding_window", pretrained={"freeze": 6}, training={**ADAMW, "epochs": 6})
def sliding_window_alexnet(
    num_classes: int, backbone_weights: Weights, settings: Settings, convs: int = 3, freeze: int = 0
) -> SlidingWindow:
    """A sliding window with the first 3, 4 or 5 convolutions of AlexNet: learns on a CPU."""
    network = backbones.classifier("alexnet", None, backbone_weights, freeze)
    return SlidingWindow(backbones.alexnet_valid(network, convs), num_classes, settings)
