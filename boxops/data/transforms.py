"""Presets of torchvision.transforms.v2 that keep boxes, labels, masks and keypoints in step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from boxops.data.images import Enough

MEAN = (124, 116, 104)  # of ImageNet, as padding
PER_OBJECT = ("labels", "iscrowd", "area", "difficult", "keypoints", "visibility")


class Flip(nn.Module):
    """Mirrors half of the images left to right and renames keypoints: a left eye is a right one in the mirror."""

    def __init__(self, keypoint_flip: Sequence[int] | None = None, p: float = 0.5) -> None:
        super().__init__()
        self.keypoint_flip, self.p = keypoint_flip, p
        self.flip = v2.RandomHorizontalFlip(1.0)

    def forward(self, image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if torch.rand(()) >= self.p:
            return image, target
        image, target = self.flip(image, target)
        if "visibility" in target and self.keypoint_flip is not None:
            points, order = target["keypoints"], list(self.keypoint_flip)
            target["keypoints"] = tv_tensors.wrap(points.as_subclass(Tensor)[:, order], like=points)
            target["visibility"] = target["visibility"][:, order]
        return image, target


class IoUCrop(v2.RandomIoUCrop):
    """Leaves images alone that have no objects, for which torchvision tries in vain, or that are too small to cut."""

    def forward(self, image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if not len(target["boxes"]) or self.min_scale * min(v2.functional.get_size(image)) < 1:
            return image, target
        return super().forward(image, target)


def _per_object(sample: tuple[Any, dict[str, Any]]) -> list[Tensor]:
    return [sample[1][key] for key in PER_OBJECT if key in sample[1]]


def train(
    name: str,
    size: int | tuple[int, int] | None = None,
    keypoint_flip: Sequence[int] | None = None,
    *,
    vertical_flip: bool = False,
    jitter: bool = False,
) -> v2.Compose:
    """A preset for training: (uint8 image, target) to (float32 image in 0..1, target).

    Args:
        name: ``ssd`` (photometric distortion, zoom out, IoU crop, flip: Liu et al. 2016, section 2.2), ``yolo`` (scale
            and translation by up to a fifth, exposure, saturation, flip: Redmon et al. 2016, section 2.2), ``rcnn``
            (flip) or ``none``.
        size: resize to this at the end, as the models do themselves: (height, width), or an integer: the shorter side,
            for ``ssd`` both. None leaves images as they are.
        keypoint_flip: the data set's, needed where it has keypoints.
        vertical_flip: for images without up and down, such as those of cells.
        jitter: for ``rcnn``: brightness, contrast and saturation vary too.

    Raises:
        ValueError: no such preset, or vertical_flip with keypoints: what they are called upside down is not known.
    """
    if vertical_flip and keypoint_flip is not None:
        raise ValueError("transforms: expected vertical_flip for data without keypoints, got keypoint_flip too")
    flips = [Flip(keypoint_flip)] + [v2.RandomVerticalFlip()] * vertical_flip
    zoom_out = v2.RandomZoomOut({tv_tensors.Image: MEAN, "others": 0})
    presets: dict[str, list[nn.Module]] = {
        "ssd": [v2.RandomPhotometricDistort(), zoom_out, IoUCrop(), *flips],
        "yolo": [
            v2.ColorJitter(brightness=0.5, saturation=0.5, hue=0.1),
            v2.RandomAffine(0, translate=(0.2, 0.2), scale=(0.8, 1.2), fill={tv_tensors.Image: MEAN, "others": 0}),
            *flips,
        ],
        "rcnn": [v2.ColorJitter(0.2, 0.2, 0.2)] * jitter + flips,
        "none": [],
    }
    if name not in presets:
        raise ValueError(f"transforms: expected a preset of {', '.join(presets)}, got {name!r}")
    if name == "ssd" and isinstance(size, int):
        size = (size, size)
    sanitize = v2.SanitizeBoundingBoxes(labels_getter=_per_object)  # drops what a crop left empty, and its labels
    resize = [] if size is None else [v2.Resize(size)]
    return v2.Compose([*presets[name], *resize, sanitize, v2.ToDtype(torch.float32, scale=True)])


def enough(resize: Any, name: str) -> Enough:
    """(shorter, longer) side of the images that a preset needs for a model: see :class:`DetectionDataset`.

    Args:
        resize: the model's ``transform``, torchvision's GeneralizedRCNNTransform.
        name: the preset; ``ssd`` cuts parts out, for which a quarter is added: of a photo SSD300 then gets what it had
            of Pascal VOC's, for which it was made.
    """
    part = 1.25 if name == "ssd" else 1.0
    if resize.fixed_size is not None:
        return part * max(resize.fixed_size), float("inf")
    return part * max(resize.min_size), part * resize.max_size


def evaluate() -> v2.Compose:
    """uint8 image to float32 in 0..1; every object stays."""
    return v2.Compose([v2.ToDtype(torch.float32, scale=True)])
