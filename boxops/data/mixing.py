"""Samples made of several: mixup and mosaic. The data set applies them before its transform, see ``mixing`` of
:class:`boxops.data.DetectionDataset`; a sample is what a transform is given, a uint8 image and its target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

MEAN = (124, 116, 104)  # of ImageNet
FILL = {tv_tensors.Image: MEAN, "others": 0}  # what lies beyond an image

Target = dict[str, Any]
Sample = tuple[Any, Target]
Mix = Callable[[Sample, Callable[[], Sample]], Sample]
Size = tuple[int, int]  # height, width


class Mixup:
    """Two images in one, with the objects of both: Zhang et al., "Bag of Freebies for Training Object Detection Neural
    Networks", 2019, section 3.1.

    Both keep their size and lie at the top left of a canvas that holds either, ``lambda`` of the first over
    ``1 - lambda`` of one drawn from the data set; where only one of them lies, the other is grey. ``lambda`` is drawn
    from Beta(alpha, alpha). The target gets ``weights`` float32 ``[G]``, what each object counts in the losses: the
    weight of its image.

    Args:
        alpha: above 0; the paper's best is 1.5. The smaller, the nearer lambda is to 0 or 1.

    Raises:
        ValueError: alpha is not a finite number above 0.
    """

    def __init__(self, alpha: float = 1.5) -> None:
        if not 0 < alpha < float("inf"):
            raise ValueError(f"mixup: expected a number above 0, got {alpha}")
        self.alpha = alpha

    def __call__(self, sample: Sample, draw: Callable[[], Sample]) -> Sample:
        """The mixed sample; ``draw()`` gives another one of the data set."""
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        return self.mix(sample, draw(), share)

    @staticmethod
    def mix(first: Sample, second: Sample, share: float) -> Sample:
        """``share`` of the first over 1 - share of the second."""
        size = tuple(max(sides) for sides in zip(first[0].shape[-2:], second[0].shape[-2:], strict=True))
        placed = [place(sample, (size[0], size[1])) for sample in (first, second)]
        parts = (share, 1 - share)
        image = sum(part * image.as_subclass(Tensor).float() for part, (image, _) in zip(parts, placed, strict=True))
        for part, (_, target) in zip(parts, placed, strict=True):
            target["weights"] = part * target.get("weights", torch.ones(len(target["boxes"])))
        mixed = image.round().to(first[0].dtype)  # type: ignore[union-attr]
        return tv_tensors.wrap(mixed, like=first[0]), joined([target for _, target in placed])


class Mosaic:
    """Four images around a point: Bochkovskiy et al., "YOLOv4", 2020, section 3.3.

    The canvas has the first image's size, the point lies in its inner 0.6 x 0.6. Each quarter is a window of its image,
    anywhere in it and at its own scale; what an image does not fill is grey. As in SSD's crops, an object is kept if
    its centre lies in the window, and cut off there.
    """

    margin = 0.2

    def __call__(self, sample: Sample, draw: Callable[[], Sample]) -> Sample:
        """The mosaic; ``draw()`` gives another sample of the data set."""
        height, width = sample[0].shape[-2:]
        if min(height, width) < 2:
            return sample
        y, x = (
            min(max(int(side * (self.margin + (1 - 2 * self.margin) * float(torch.rand(())))), 1), side - 1)
            for side in (height, width)
        )
        return self.put([sample, draw(), draw(), draw()], (y, x))

    @staticmethod
    def put(samples: Sequence[Sample], point: tuple[int, int]) -> Sample:
        """Top left, top right, bottom left and bottom right of that (y, x)."""
        (height, width), (y, x) = samples[0][0].shape[-2:], point
        rows, columns = ((0, y), (y, height - y)), ((0, x), (x, width - x))
        places = [(row, column) for row in rows for column in columns]
        pieces, targets = [], []
        for sample, ((top, high), (left, wide)) in zip(samples, places, strict=True):
            piece = window(sample, (high, wide))
            pieces.append(piece[0])
            targets.append(place(piece, (height, width), (top, left))[1])
        image = torch.cat([torch.cat(pieces[:2], dim=-1), torch.cat(pieces[2:], dim=-1)], dim=-2)
        return tv_tensors.wrap(image, like=samples[0][0]), joined(targets)


def place(sample: Sample, size: Size, at: tuple[int, int] = (0, 0)) -> Sample:
    """The sample on a grey canvas of that size, its corner at (top, left)."""
    (height, width), (top, left) = sample[0].shape[-2:], at
    pad = v2.Pad([left, top, size[1] - width - left, size[0] - height - top], fill=FILL)
    placed: Sample = pad(*sample)
    return placed


def window(sample: Sample, size: Size) -> Sample:
    """A window of that size anywhere in the image, or with the image anywhere in it, and the objects whose centres are
    in it."""
    height, width = sample[0].shape[-2:]
    room = max(size[0], height), max(size[1], width)
    at = [int(torch.randint(some - own + 1, ())) for some, own in zip(room, (height, width), strict=True)]
    image, target = place(sample, room, (at[0], at[1]))
    top, left = (int(torch.randint(some - own + 1, ())) for some, own in zip(room, size, strict=True))
    corner, sides = torch.tensor([left, top]), torch.tensor([size[1], size[0]])
    boxes = target["boxes"].as_subclass(Tensor)
    kept = _inside((boxes[:, :2] + boxes[:, 2:]) / 2 - corner, sides)
    if "visibility" in target:  # points beyond the window would come to lie in another image
        points = target["keypoints"].as_subclass(Tensor) - corner
        target = {**target, "visibility": target["visibility"] * _inside(points, sides)}

    def crop(value: Any) -> Any:
        return v2.functional.crop(value, top, left, *size) if isinstance(value, tv_tensors.TVTensor) else value

    cropped = {key: crop(value) for key, value in target.items()}
    of_objects = {key: _like(value[kept], value) for key, value in cropped.items() if isinstance(value, Tensor)}
    return crop(image), {**cropped, **of_objects}


def _inside(points: Tensor, sides: Tensor) -> Tensor:  # [..., 2] -> [...]
    return ((points >= 0) & (points < sides)).all(dim=-1)


def joined(targets: Sequence[Target]) -> Target:
    """One target with the objects of all, whose images are of one size; what else there is is the first's."""
    first = targets[0]
    if "proposals" in first:
        raise ValueError("mixing: expected data without proposals, which are of whole images, got data with them")
    objects = {key: torch.cat([target[key].as_subclass(Tensor) for target in targets])
               for key, value in first.items() if isinstance(value, Tensor)}  # fmt: skip
    return {**first, **{key: _like(value, first[key]) for key, value in objects.items()}}


def _like(value: Tensor, like: Any) -> Any:
    return tv_tensors.wrap(value, like=like) if isinstance(like, tv_tensors.TVTensor) else value
