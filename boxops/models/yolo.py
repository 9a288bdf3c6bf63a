"""YOLO: every cell of a coarse grid gives boxes, how sure it is of each, and their classes, in one pass.

v1: Redmon et al., "You Only Look Once", CVPR 2016. v2: Redmon, Farhadi, "YOLO9000", CVPR 2017. v3: Redmon, Farhadi,
"YOLOv3: An Incremental Improvement", 2018. The networks are darknet's own, with darknet's weights.
Shapes: B images, H x W cells, P boxes in each, A of them in all, C classes without a background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

import boxops

from .common import Detector, Target
from .darknet import Darknet, Shape
from .darknet_files import Section
from .dense import Branch

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Settings:
    """What darknet's detector takes by default; its ``detector test`` shows scores above 0.5 only."""

    score_thresh: float = 0.005
    nms_thresh: float = 0.45
    detections_per_img: int = 100


class Letterbox(nn.Module):
    """Images at the network's size, in their own proportions amid grey: darknet's letterbox_image.

    Its resize_image puts the corners' centres on each other, as ``align_corners`` does; in darknet, rounding can turn the
    last row dark, here it does not.

    Args:
        size: of the network.
        keep_ratio: else images are stretched, as v1's are.
    """

    def __init__(self, size: Size, keep_ratio: bool = True) -> None:
        super().__init__()
        self.size, self.keep_ratio = size, keep_ratio

    def inner(self, original: Size) -> Size:
        """The size of an image within the network's."""
        (height, width), (h, w) = self.size, original
        if not self.keep_ratio:
            return self.size
        if width * h < height * w:
            return max(h * width // w, 1), width
        return height, max(w * height // h, 1)

    def forward(
        self, images: Sequence[Tensor], targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """The batch, with the sizes of the images in it, and the targets in its pixels."""
        batch = images[0].new_full((len(images), images[0].shape[0], *self.size), 0.5)
        sizes = [self.inner((image.shape[1], image.shape[2])) for image in images]
        moved = []
        for i, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
            top, left = (self.size[0] - h) // 2, (self.size[1] - w) // 2
            inner = F.interpolate(image[None], (h, w), mode="bilinear", align_corners=True)[0]
            batch[i, :, top : top + h, left : left + w] = inner
            if targets is not None:
                y, x = h / image.shape[1], w / image.shape[2]
                boxes = targets[i]["boxes"]
                boxes = boxes * boxes.new_tensor([x, y, x, y]) + boxes.new_tensor([left, top, left, top])
                moved.append({**targets[i], "boxes": boxes})
        return ImageList(batch, sizes), None if targets is None else moved


class Head:
    """v3's, and what v2's shares with it: what a section of the cfg says of the numbers that the network has for it.

    Args:
        section: [yolo], [region] or [detection].
        shape: of the map before it.

    Raises:
        ValueError: the section's numbers do not fit each other, or the map; with file and line.
    """

    coding = "yolo_v3"

    def __init__(self, section: Section, shape: Shape) -> None:
        self.section, self.classes, self.num = section, section.integer("classes", 20), section.integer("num", 1)
        self.columns = 5 + self.classes
        self.setup(shape)

    def setup(self, shape: Shape) -> None:
        """v3: anchors in pixels, of which ``mask`` names those of this map; parse_yolo."""
        mask = self.section.integers("mask") or list(range(self.num))
        if not all(0 <= k < self.num for k in mask):
            raise self.section.error(f"mask of 0 to {self.num - 1}, as num says", mask, "mask")
        anchors = self.pairs()
        self.anchors = [anchors[k] for k in mask]
        self.check(shape[0], len(mask) * self.columns, f"{len(mask)} boxes of 5 + {self.classes} channels")

    def check(self, values: int, expected: int, what: str) -> None:
        if values != expected:
            raise self.section.error(f"{expected} before it, {what}", values)

    def pairs(self) -> list[tuple[float, float]]:
        """Width and height of each anchor; by default 0.5, as in darknet."""
        flat = self.section.numbers("anchors") or [0.5] * (2 * self.num)
        if len(flat) != 2 * self.num or min(flat) <= 0:
            raise self.section.error(f"anchors as {2 * self.num} numbers > 0 for num = {self.num}", flat, "anchors")
        return list(zip(flat[::2], flat[1::2], strict=True))

    def grid(self, raw: Tensor) -> Size:
        return raw.shape[2], raw.shape[3]

    def priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        """Width and height in pixels of the boxes around each cell."""
        return self.anchors

    def rows(self, raw: Tensor) -> Tensor:
        """[B, A, 5 + C], cells row by row, their boxes inner: codes x, y, w, h, objectness and classes, all raw."""
        return Branch.rows([raw], self.columns)

    def boxes(self, rows: Tensor, grid: Size, size: Size) -> Tensor:
        """[B, A, 4] corners in pixels of a batch of that size."""
        stride = size[0] / grid[0], size[1] / grid[1]
        anchors = boxops.cell_anchors(grid, self.priors(grid, size), stride, like=rows)
        return boxops.decode_boxes(rows[..., :4], anchors, coding=self.coding, stride=stride, clip=None)

    def scores(self, rows: Tensor) -> Tensor:
        """[B, A, C], objectness times class: a logistic for each; v3, section 2.2."""
        return rows[..., 4:5].sigmoid() * rows[..., 5:].sigmoid()


class Region(Head):
    """v2's: anchors in cells, and one softmax over the classes; section 2 of its paper, region_layer.c."""

    def setup(self, shape: Shape) -> None:
        if self.section.integer("coords", 4) != 4:
            raise self.section.error("coords = 4", self.section.options["coords"], "coords")
        self.softmax, self.background = self.section.flag("softmax"), self.section.flag("background")
        self.anchors = self.pairs()
        self.check(shape[0], self.num * self.columns, f"{self.num} boxes of 5 + {self.classes} channels")

    def priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        return [(w * size[1] / grid[1], h * size[0] / grid[0]) for w, h in self.anchors]

    def scores(self, rows: Tensor) -> Tensor:
        objectness, classes = rows[..., 4:5], rows[..., 5:]
        objectness = objectness if self.background else objectness.sigmoid()
        return objectness * (classes.softmax(dim=-1) if self.softmax else classes.sigmoid())


class Detection(Head):
    """v1's: sides as shares of the image, and one set of classes for all boxes of a cell; detection_layer.c."""

    coding = "yolo_v1"

    def setup(self, shape: Shape) -> None:
        s, self.side = self.section, self.section.integer("side", 7)
        if s.integer("coords", 1) != 4:
            raise s.error("coords = 4", s.options.get("coords", 1), "coords")
        self.softmax, self.sqrt, cells = s.flag("softmax"), s.flag("sqrt"), self.side**2
        self.parts = [cells * self.classes, cells * self.num, cells * self.num * 4]
        said = f"{cells} cells of {self.classes} classes and {self.num} boxes of 5"
        self.check(shape[0] * shape[1] * shape[2], sum(self.parts), said)

    def grid(self, raw: Tensor) -> Size:
        return self.side, self.side

    def rows(self, raw: Tensor) -> Tensor:
        # The classes of all cells, the objectness of all boxes, the codes of all boxes
        classes, objectness, codes = raw.flatten(1).float().split(self.parts, dim=1)
        classes = classes.unflatten(1, (-1, 1, self.classes)).expand(-1, -1, self.num, -1)  # [B, cells, num, C]
        objectness, codes = objectness.unflatten(1, (-1, self.num, 1)), codes.unflatten(1, (-1, self.num, 4))
        return torch.cat([codes, objectness, classes], dim=3).flatten(1, 2)

    def priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        return [(size[1], size[0])] * self.num  # the whole image

    def boxes(self, rows: Tensor, grid: Size, size: Size) -> Tensor:
        if not self.sqrt:  # the codes are the sides, not their roots
            rows = torch.cat([rows[..., :2], rows[..., 2:4].clamp(min=0).sqrt()], dim=-1)
        return super().boxes(rows, grid, size)

    def scores(self, rows: Tensor) -> Tensor:
        classes = rows[..., 5:].softmax(dim=-1) if self.softmax else rows[..., 5:]
        return rows[..., 4:5] * classes


HEADS: dict[str, type[Head]] = {"yolo": Head, "region": Region, "detection": Detection}


class YOLO(Detector):
    """YOLO v1, v2 or v3, as the network's heads are; see :class:`Detector` for what goes in and comes out.

    Args:
        network: of a cfg; images are 3 channels.
        settings: the numbers of the method.

    Raises:
        ValueError: the network has no heads, or its heads have different classes.
    """

    def __init__(self, network: Darknet, settings: Settings = Settings()) -> None:
        channels, *size = network.shape
        layers = [network.layers[i] for i in network.heads]
        place, kinds = layers[0].section.place, {layer.section.kind for layer in layers}
        if channels != 3 or not kinds <= set(HEADS):
            raise ValueError(f"{place}: expected a detector of images with 3 channels, got one with {channels} "
                             f"and {kinds} at the end")  # fmt: skip
        super().__init__(Letterbox((size[0], size[1]), keep_ratio="detection" not in kinds))
        self.network, self.settings = network, settings
        self.heads = [HEADS[layer.section.kind](layer.section, layer.shape) for layer in layers]
        classes = [head.classes for head in self.heads]
        if len(set(classes)) > 1:
            raise ValueError(f"{place}: expected the same classes of all heads, got {classes}")
        self.num_classes = classes[0] + 1  # with the background, as the other detectors count

    def predict(self, batch: ImageList) -> tuple[Tensor, Tensor]:
        """Boxes [B, A, 4] in pixels of the batch, and scores [B, A, C]."""
        size = (batch.tensors.shape[2], batch.tensors.shape[3])
        boxes, scores = [], []
        for head, raw in zip(self.heads, self.network(batch.tensors), strict=True):
            rows = head.rows(raw)  # [B, A, 5 + C]
            boxes.append(head.boxes(rows, head.grid(raw), size))
            scores.append(head.scores(rows))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        s = self.settings
        boxes, scores, labels, counts = boxops.detect(
            *self.predict(batch), s.score_thresh, s.nms_thresh, s.detections_per_img
        )
        # Into the image amid the grey; halves of pixels stay, as in correct_yolo_boxes
        height, width = batch.tensors.shape[2:]
        inner = [
            boxops.clip_boxes_to_image(found - found.new_tensor([width - w, height - h] * 2) / 2, (h, w))
            for found, (h, w) in zip(boxes, batch.image_sizes, strict=True)
        ]
        return {"boxes": torch.stack(inner), "scores": scores, "labels": labels + 1}, counts


def darknet_yolo(cfg: str | Path, weights: str | Path | None = None, **settings: Any) -> YOLO:
    """The detector of darknet's files, in evaluation.

    Args:
        cfg: of YOLO v1, v2 or v3.
        weights: a .weights file of it; without one, the weights are those before training.
        settings: numbers of :class:`Settings`.

    Raises:
        ValueError: see :class:`Darknet`, :meth:`Darknet.load` and :class:`YOLO`.
        OSError: a file cannot be read.
    """
    model = YOLO(Darknet(cfg), Settings(**settings))
    if weights is not None:
        model.network.load(weights)
    return model.eval()
