"""Notices a run that has gone wrong without an error: detections that do not depend on the image, losses that rise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from boxops import box_iou

IMAGES = 8  # fewer say nothing
SAME_IOU, SAME_SHARE = 0.9, 0.9  # boxes are the same if so many lie so close to their median
RISE, STEPS = 1.25, 8  # losses rise if an epoch of so many steps has so many times the least mean of those before
HELP = "a lower lr, a lower backbone_lr or a longer warmup may help"


class Collapse:
    """What a run's losses and detections say about it; it warns and stops nothing.

    Args:
        data: the data learnt from; where all its objects lie in one place, detections may do so too.
        say: is called with one line for each warning.
    """

    def __init__(self, data: Any, say: Callable[[str], None]) -> None:
        self.data, self.say = data, say
        self.losses: list[float] = []  # of this epoch
        self.least = float("inf")  # mean of an epoch

    def add_step(self, losses: dict[str, float]) -> None:
        self.losses.append(sum(losses.values()))

    def end_epoch(self, epoch: int) -> None:
        if len(self.losses) >= STEPS:
            mean = sum(self.losses) / len(self.losses)
            if mean > RISE * self.least:
                self.say(f"warning: the loss rises, from {self.least:.3g} to {mean:.3g} in epoch {epoch + 1}; {HELP}")
            self.least = min(self.least, mean)
        self.losses = []

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Looks at all that the model, called inside, detects."""
        tops: list[list[float]] = []  # of each image with detections the highest-scoring box, over its width and height
        images = 0

        def look(_: nn.Module, inputs: tuple[Any, ...], detections: Any) -> None:
            nonlocal images
            if not inputs or not isinstance(detections, list):
                return
            for image, found in zip(inputs[0], detections, strict=True):
                images += 1
                if len(found["scores"]):
                    height, width = image.shape[-2:]
                    box = found["boxes"][found["scores"].argmax()].float().cpu()
                    tops.append((box / box.new_tensor([width, height, width, height])).tolist())

        handle = model.register_forward_hook(look)
        try:
            yield
        finally:
            handle.remove()
        if images < IMAGES:
            return
        if not tops:
            self.say(f"warning: no detections in any of {images} held-out images; more epochs, or {HELP}")
        elif len(tops) >= IMAGES and same(torch.tensor(tops)) and not same(self._truth()):
            box = ", ".join(f"{side:.2f}" for side in torch.tensor(tops).median(dim=0).values.tolist())
            self.say("warning: detections do not depend on the image: the surest box of nearly all "
                     f"{images} is ({box}) of its width and height; {HELP}")  # fmt: skip

    def _truth(self) -> Tensor:
        """The largest object of each image, as the detections."""
        rows: list[Sequence[float]] = []
        for record in self.data.records():
            if len(record.boxes):
                boxes = torch.as_tensor(record.boxes).float() / torch.tensor([record.width, record.height] * 2)
                rows.append(boxes[(boxes[:, 2:] - boxes[:, :2]).prod(dim=1).argmax()].tolist())
        return torch.tensor(rows).reshape(-1, 4)


def same(boxes: Tensor) -> bool:
    """Whether boxes [N, 4] are nearly all (nearly) the same."""
    if not len(boxes):
        return False
    ious = box_iou(boxes, boxes.median(dim=0, keepdim=True).values)
    return float((ious >= SAME_IOU).float().mean()) >= SAME_SHARE
