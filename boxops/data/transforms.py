"""Transforms of torchvision.transforms.v2 by name, which keep boxes, labels, masks and keypoints in step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from boxops.data.images import Enough
from boxops.data.mixing import FILL, Mix, Mixup, Mosaic

PER_OBJECT = ("labels", "iscrowd", "area", "difficult", "keypoints", "visibility", "weights")
RECIPES = {
    "rcnn": ("flip",),
    "ssd": ("colour", "expand", "crop", "flip"),  # Liu et al. 2016, section 2.2
    "yolo": ("exposure", "shift", "flip"),  # Redmon et al. 2016, section 2.2
    "none": (),
}
USUAL = "rcnn"  # of `boxops train`, where none is named
PARTS = ("mosaic", "colour", "jitter", "exposure", "expand", "crop", "shift", "flip")  # in the order of their turns
UNMOVED = ("colour", "jitter", "exposure", "flip")  # those after which an image is still whole


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


def parts(names: str) -> list[str]:
    """The single transforms of recipes and single ones, joined by commas, in the order of their turns.

    Args:
        names: of recipes: ``rcnn`` (flip), ``ssd`` (colour, expand, crop, flip), ``yolo`` (exposure, shift, flip),
            ``none``; and of single transforms:
            ``mosaic``: four images in one, see :class:`boxops.data.mixing.Mosaic`.
            ``colour``: brightness, contrast, saturation, hue and the order of the channels, strongly.
            ``jitter``: brightness, contrast and saturation by a fifth.
            ``exposure``: brightness and saturation by a half, hue by a tenth.
            ``expand``: half of the images with sides of down to a quarter, amid grey.
            ``crop``: SSD's: a part that holds the centre of an object, with an IoU of 0.1 or more, ..., 0.9, or any.
            ``shift``: scale and translation by up to a fifth.
            ``flip``: half of the images left to right.

    Raises:
        ValueError: a name is unknown, or there is more than ``none``.
    """
    asked = [name.strip() for name in names.split(",")]
    for name in asked:
        if name not in (*RECIPES, *PARTS):
            raise ValueError(f"augment: expected names of {', '.join([*RECIPES, *PARTS])}, got {name!r}")
    if "none" in asked and len(asked) > 1:
        raise ValueError(f"augment: expected none alone, got {names!r}")
    chosen = {part for name in asked for part in RECIPES.get(name, (name,))}
    return [part for part in PARTS if part in chosen]


def augment(data: Any, names: str, *, mixup: float = 0.0, vertical_flip: bool = False, jitter: bool = False) -> None:
    """Gives a data set its ``transform`` and its ``mixing``, for training.

    Args:
        data: a :class:`boxops.data.DetectionDataset`.
        names, vertical_flip, jitter: as for :func:`train`; mosaic may be one of the names.
        mixup: alpha of :class:`boxops.data.mixing.Mixup`, which comes before the transforms and after mosaic; 0: none.

    Raises:
        ValueError: see :func:`parts`, :func:`train` and :class:`boxops.data.mixing.Mixup`.
    """
    single = [part for part in parts(names) if part != "mosaic"]
    mixing: list[Mix] = [Mosaic()] * ("mosaic" in parts(names))
    data.mixing = mixing + ([Mixup(mixup)] if mixup else [])
    data.transform = train(
        ",".join(single) or "none", keypoint_flip=data.keypoint_flip, vertical_flip=vertical_flip, jitter=jitter
    )


def train(
    names: str,
    size: int | tuple[int, int] | None = None,
    keypoint_flip: Sequence[int] | None = None,
    *,
    vertical_flip: bool = False,
    jitter: bool = False,
) -> v2.Compose:
    """Transforms for training: (uint8 image, target) to (float32 image in 0..1, target).

    Args:
        names: as :func:`parts` takes them, without mosaic.
        size: resize to this at the end, as the models do themselves: (height, width), or an integer: the shorter side,
            for ``ssd`` both. None leaves images as they are.
        keypoint_flip: the data set's, needed where it has keypoints.
        vertical_flip: for images without up and down, such as those of cells.
        jitter: as by its name.

    Raises:
        ValueError: see :func:`parts`; mosaic, which needs a data set, see :func:`augment`; or vertical_flip with
            keypoints: what they are called upside down is not known.
    """
    if vertical_flip and keypoint_flip is not None:
        raise ValueError("transforms: expected vertical_flip for data without keypoints, got keypoint_flip too")
    chosen = parts(names) if not jitter else parts(f"{names},jitter")
    if "mosaic" in chosen:
        raise ValueError("augment: expected transforms of one image, got mosaic, which augment(data, ...) takes")
    modules: dict[str, nn.Module] = {
        "colour": v2.RandomPhotometricDistort(),
        "jitter": v2.ColorJitter(0.2, 0.2, 0.2),
        "exposure": v2.ColorJitter(brightness=0.5, saturation=0.5, hue=0.1),
        "expand": v2.RandomZoomOut(FILL),
        "crop": IoUCrop(),
        "shift": v2.RandomAffine(0, translate=(0.2, 0.2), scale=(0.8, 1.2), fill=FILL),
        "flip": Flip(keypoint_flip),
    }
    moved = [modules[part] for part in chosen] + [v2.RandomVerticalFlip()] * vertical_flip
    if names == "ssd" and isinstance(size, int):
        size = (size, size)
    sanitize = v2.SanitizeBoundingBoxes(labels_getter=_per_object)  # drops what a crop left empty, and its labels
    resize = [] if size is None else [v2.Resize(size)]
    return v2.Compose([*moved, *resize, sanitize, v2.ToDtype(torch.float32, scale=True)])


def enough(resize: Any, names: str) -> Enough:
    """(shorter, longer) side of the images that a model needs: see :class:`DetectionDataset`.

    Args:
        resize: the model's ``transform``, torchvision's GeneralizedRCNNTransform.
        names: of the transforms; ``crop`` cuts parts out, for which a quarter is added: of a photo SSD300 then
            gets what it had of Pascal VOC's, for which it was made.
    """
    part = 1.25 if "crop" in parts(names) else 1.0
    if resize.fixed_size is not None:
        return part * max(resize.fixed_size), float("inf")
    return part * max(resize.min_size), part * resize.max_size


def evaluate() -> v2.Compose:
    """uint8 image to float32 in 0..1; every object stays."""
    return v2.Compose([v2.ToDtype(torch.float32, scale=True)])
