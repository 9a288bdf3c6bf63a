"""YOLO: every cell of a coarse grid predicts boxes, the objectness of each, and classes, in one pass.

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

from .builders import ADAMW, Weights, detector
from .checkpoint import fetched, is_checkpoint, load_weights
from .common import Detector, GroundTruth, Target, split
from .darknet import Darknet
from .darknet_files import Section, parse_cfg, read_cfg
from .sizes import STRIDE, draw, scales
from .yolo_heads import HEADS, Size
from .yolo_networks import TINY, changed, start_head, with_classes


@dataclass(frozen=True)
class Settings:
    """What is not in the cfg, with darknet's own values; its ``detector test`` shows scores above 0.5 only."""

    score_thresh: float = 0.005
    nms_thresh: float = 0.45
    detections_per_img: int = 100
    cfg: str | Path | None = None  # a file; without it the version's tiny network
    lines: Sequence[str] | None = None  # of a cfg, as checkpoints have it
    size: int | None = None  # of the network's images, square; the cfg's
    label_smoothing: float = 0.0  # of the objects' classes, see labels.py
    multi_scale: bool | None = None  # learn at sides of 10/13 to 19/13 of it (v2, section 2); as the cfg's ``random``
    cutoff: int | None = None  # how many layers backbone_weights fill; as many as that file has


class Letterbox(nn.Module):
    """Images at the network's size, in their own proportions amid grey: darknet's letterbox_image.

    Its resize_image puts the corners' centres on each other, as ``align_corners`` does; in darknet, rounding can turn
    the last row dark, here it does not.

    Args:
        size: of the network.
        keep_ratio: else images are stretched, as v1's are.
        sizes: in training one of them, drawn for each batch, see sizes.py.
    """

    def __init__(self, size: Size, keep_ratio: bool = True, sizes: Sequence[Size] = ()) -> None:
        super().__init__()
        self.size, self.keep_ratio, self.sizes = size, keep_ratio, list(sizes)
        # How large images need to be, as torchvision's GeneralizedRCNNTransform has it
        largest = max(max(some) for some in [size, *sizes])
        self.fixed_size = None if keep_ratio else (size[1], size[0])
        self.min_size, self.max_size = (largest,), largest

    def inner(self, original: Size, size: Size) -> Size:
        """The size of an image within the network's."""
        (height, width), (h, w) = size, original
        if not self.keep_ratio:
            return size
        if width * h < height * w:
            return max(h * width // w, 1), width
        return height, max(w * height // h, 1)

    def forward(
        self, images: Sequence[Tensor], targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """The batch, with the sizes of the images in it, and the targets in its pixels."""
        size = self.size
        if self.training and self.sizes:
            size = self.sizes[draw(len(self.sizes))]
        batch = images[0].new_full((len(images), images[0].shape[0], *size), 0.5)
        sizes = [self.inner((image.shape[1], image.shape[2]), size) for image in images]
        moved = []
        for i, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
            top, left = (size[0] - h) // 2, (size[1] - w) // 2
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

    The losses are ``bbox_regression``, ``objectness`` and ``classification``, sums per image; their weights stand in
    the cfg, and all terms of an object count with its own. (darknet's v2 also draws all boxes to their anchors for the
    first 12,800 images; this one does not.)

    Args:
        network: of a cfg; images are 3 channels.
        settings: the hyperparameters.
        sizes: of the network's images in training, for each batch one of them; of none, the cfg's.

    Raises:
        ValueError: the network has no heads, or heads of several kinds or with different classes.
    """

    weighted = True
    sections: Sequence[Section]  # of the cfg, with its own classes

    def __init__(self, network: Darknet, settings: Settings = Settings(), sizes: Sequence[Size] = ()) -> None:
        channels, *size = network.shape
        layers = [network.layers[i] for i in network.heads]
        place, kinds = layers[0].section.place, {layer.section.kind for layer in layers}
        if channels != 3 or not kinds <= set(HEADS) or len(kinds) > 1:
            raise ValueError(f"{place}: expected a detector of images with 3 channels, got one with {channels} "
                             f"and {kinds} at the end")  # fmt: skip
        super().__init__(Letterbox((size[0], size[1]), keep_ratio="detection" not in kinds, sizes=sizes))
        self.network, self.settings = network, settings
        self.heads = [HEADS[layer.section.kind](layer.section, layer.shape) for layer in layers]
        classes = [head.classes for head in self.heads]
        if len(set(classes)) > 1:
            raise ValueError(f"{place}: expected the same classes of all heads, got {classes}")
        self.config = {"num_classes": classes[0] + 1}  # with the background, as the other detectors count

    def load(self, source: str | Path, fine_tune: bool = False) -> None:
        """darknet's weights too; ``fine_tune`` then reads them as the cfg has them, and takes what fits."""

        def load(file: Path) -> None:
            if is_checkpoint(file):
                super(YOLO, self).load(file, fine_tune)
            elif fine_tune:
                given = Darknet(self.sections)
                given.load(file)
                load_weights(self.network, given.state_dict(), fine_tune=True, source=source)
            else:
                self.network.load(file)

        fetched(source, load)

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        size, truth = (batch.tensors.shape[2], batch.tensors.shape[3]), GroundTruth.of(targets)
        of_heads = [
            head.losses(raw, size, truth, self.settings.label_smoothing)
            for head, raw in zip(self.heads, self.network(batch.tensors), strict=True)
        ]
        sums = {name: torch.stack([losses[name] for losses in of_heads]).sum() for name in of_heads[0]}
        return {name: loss / len(targets) for name, loss in sums.items()}

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


def build(kind: str, num_classes: int | None, backbone_weights: Weights, settings: Settings) -> YOLO:
    """The YOLO whose heads are of this kind; see :class:`Settings`. The layer before each head is of the classes."""
    s = settings
    lines = TINY[kind] if s.lines is None else s.lines
    sections = parse_cfg(lines, "cfg") if s.cfg is None else read_cfg(s.cfg)
    found = {section.kind for section in sections if section.kind in HEADS}
    if found != {kind}:
        got = f"{', '.join(sorted(found)) or 'none'}"
        raise ValueError(f"{s.cfg or 'cfg'}: expected heads [{kind}], got {got}: yolo_v1 has [detection], yolo_v2 "
                         "[region], yolo_v3 [yolo]")  # fmt: skip
    own = with_classes(sections, num_classes)
    if s.size is not None:
        if s.size % STRIDE:
            raise ValueError(f"size: expected a multiple of {STRIDE}, got {s.size}")
        own[0] = changed(own[0], width=s.size, height=s.size)
    network = Darknet(own)
    random = any(section.flag("random") for section in own if section.kind in ("region", "yolo"))
    several = random if s.multi_scale is None else s.multi_scale
    if several and kind == "detection":
        raise ValueError("multi_scale: expected false for YOLO v1, whose connected layers know one size, got true")
    model = YOLO(network, s, scales((network.shape[1], network.shape[2])) if several else ())
    for i, head in zip(network.heads, model.heads, strict=True):
        start_head(network, i, head)
    if backbone_weights is not None:
        fetched(backbone_weights, lambda file: network.load(file, s.cutoff, start=True))
    model.sections = sections
    model.options = {**model.config, "cfg": None, "lines": network.lines}
    return model


TRAINING = {**ADAMW, "batch_size": 8}


# Adam moves all weights by as much: thousands of them make one output of v1
@detector(Settings(), num_classes=None, training={**TRAINING, "lr": 2e-4})
def yolo_v1(num_classes: int | None, backbone_weights: Weights, settings: Settings) -> YOLO:
    """YOLO v1, Redmon et al. 2016: darknet's cfg with [detection], or a tiny one; of the numbers see Settings."""
    return build("detection", num_classes, backbone_weights, settings)


@detector(Settings(), num_classes=None, training=TRAINING)
def yolo_v2(num_classes: int | None, backbone_weights: Weights, settings: Settings) -> YOLO:
    """YOLO v2, Redmon and Farhadi 2017: darknet's cfg with [region], or yolov2-tiny's layers."""
    return build("region", num_classes, backbone_weights, settings)


@detector(Settings(), num_classes=None, training=TRAINING)
def yolo_v3(num_classes: int | None, backbone_weights: Weights, settings: Settings) -> YOLO:
    """YOLO v3, Redmon and Farhadi 2018: darknet's cfg with [yolo], or yolov3-tiny's layers."""
    return build("yolo", num_classes, backbone_weights, settings)


BUILDERS = {"detection": yolo_v1, "region": yolo_v2, "yolo": yolo_v3}


def darknet_yolo(cfg: str | Path, weights: Weights = None, **settings: Any) -> Detector:
    """The detector of darknet's files, of whichever version they are, in evaluation.

    Args:
        cfg: of YOLO v1, v2 or v3.
        weights: a .weights file of it; without one, the weights are those before training.
        settings: fields of :class:`Settings`.

    Raises:
        ValueError: see :class:`Darknet`, :meth:`Darknet.load` and :class:`YOLO`.
        OSError: a file cannot be read.
    """
    kinds = [section.kind for section in read_cfg(cfg) if section.kind in HEADS]
    if not kinds:
        raise ValueError(f"{cfg}: expected a section of {', '.join(HEADS)}, got none")
    return BUILDERS[kinds[-1]](cfg=cfg, weights=weights, **settings).eval()
