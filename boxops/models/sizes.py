"""Random shapes: in training each batch has a size of its own, alike in all processes.

Redmon, Farhadi, "YOLO9000", CVPR 2017, section 2, "Multi-Scale Training"; Zhang et al., "Bag of Freebies for Training
Object Detection Neural Networks", 2019, section 3.6.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

STRIDE = 32  # of the coarsest map of darknet's detectors
Size = tuple[int, int]  # height, width


def scales(size: Size) -> list[Size]:
    """From 10 to 19 thirteenths of a size, multiples of 32: 320 to 608 for 416; YOLO9000, section 2."""
    sides = [[max(round(side * k / 13 / STRIDE), 1) * STRIDE for k in range(10, 20)] for side in size]
    return list(zip(*sides, strict=True))


def draw(count: int) -> int:
    """Which of so many sizes a batch has. Of Python's random numbers, not torch's, whose seed differs from process to
    process: a :class:`boxops.training.Trainer` seeds Python's alike in all of them at each step, and so must others."""
    return random.randrange(count)


class MultiScale(GeneralizedRCNNTransform):
    """torchvision's, in training with a shorter side for each batch: one of :func:`scales` of ``min_size``.

    The longer side is at most as many times it as ``max_size`` is of ``min_size``. A batch is as large as its images
    are then, filled up to multiples of 32.

    Raises:
        ValueError: there are several ``min_size``, of which torchvision draws one for each image.
    """

    def __init__(self, min_size: int | Sequence[int], max_size: int, *options: Any) -> None:
        super().__init__(min_size, max_size, *options)  # type: ignore[arg-type]
        if len(self.min_size) > 1:
            raise ValueError(f"multi_scale: expected one min_size with it, got {self.min_size}")
        base = self.min_size[0]
        sides = sorted({side for side, _ in scales((base, base))})
        self.each = nn.ModuleList(
            GeneralizedRCNNTransform(side, round(side * max_size / base), *options) for side in sides
        )

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        if not self.training:
            return super().forward(images, targets)
        return self.each[draw(len(self.each))](images, targets)  # type: ignore[no-any-return]


def resize(
    min_size: int | Sequence[int], max_size: int, *options: Any, multi_scale: bool = False
) -> GeneralizedRCNNTransform:
    """torchvision's transform, or :class:`MultiScale`."""
    kind = MultiScale if multi_scale else GeneralizedRCNNTransform
    return kind(min_size, max_size, *options)  # type: ignore[arg-type]
