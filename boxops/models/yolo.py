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

from .common import Detector, Target, split
from .darknet import Darknet
from .yolo_heads import HEADS, Size


@dataclass(frozen=True)
class Settings:
    """What darknet's detector takes by default; its ``detector test`` shows scores above 0.5 only."""

    score_thresh: float = 0.005
    nms_thresh: float = 0.45
    detections_per_img: int = 100


class Letterbox(nn.Module):
    """Images at the network's size, in their own proportions amid grey: darknet's letterbox_image.

    Its resize_image puts the corners' centres on each other, as ``align_corners`` does; in darknet, rounding can turn
    the last row dark, here it does not.

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
        self.config = {"num_classes": classes[0] + 1}  # with the background, as the other detectors count

    def fold(self) -> YOLO:
        """See :meth:`Darknet.fold`."""
        self.network.fold()
        return self.eval()

    def batch(self, images: Tensor) -> ImageList:
        return self.transform(images.unbind())[0]  # type: ignore[no-any-return]

    def predict(self, batch: ImageList, least: float | None = None) -> tuple[Tensor, Tensor]:
        """Boxes [B, A, 4] in pixels of the batch, and scores [B, A, C]; see :meth:`decode`."""
        return self.decode(self.network(batch.tensors), (batch.tensors.shape[2], batch.tensors.shape[3]), least)

    def decode(self, maps: Sequence[Tensor], size: Size, least: float | None = None) -> tuple[Tensor, Tensor]:
        """The same of the network's outputs; with ``least`` only those boxes that may have a score above it."""
        boxes, scores = [], []
        for head, raw in zip(self.heads, maps, strict=True):
            rows = head.rows(raw)  # [B, A, 5 + C]
            kept = None if least is None else head.likely(rows, least)
            rows = rows if kept is None else rows[:, kept]
            boxes.append(head.boxes(rows, head.grid(raw), size, kept))
            scores.append(head.scores(rows))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)

    def detections(self, batch: ImageList) -> list[dict[str, Tensor]]:
        # Most boxes are of nothing. To leave them out is to wait for the device, which on a CPU costs nothing
        on_cpu = batch.tensors.device.type == "cpu"
        return split(*self.padded(batch, self.settings.score_thresh if on_cpu else None))

    def padded(self, batch: ImageList, least: float | None = None) -> tuple[dict[str, Tensor], Tensor]:
        s = self.settings
        boxes, scores, labels, counts = boxops.detect(
            *self.predict(batch, least), s.score_thresh, s.nms_thresh, s.detections_per_img
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
