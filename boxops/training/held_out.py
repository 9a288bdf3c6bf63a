"""What a run does after an epoch with the images it does not learn from: metrics, and pictures of detections."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms.v2 import functional as F

from boxops.draw import draw_detections, grid

Measure = Callable[[nn.Module, Any], dict[str, float]]


class HeldOut:
    """``HeldOut(data, measure, out)(model, epoch)`` gives metrics and draws ``out/samples/epoch_001.jpg``.

    Args:
        data: a data set with :func:`boxops.data.transforms.evaluate`; one of its images is saved as ``out/image.jpg``.
        measure: ``measure(model, data) -> {name: number}``, such as :func:`boxops.evaluation.evaluate`.
        out: the run's folder.
        pictures: how many images to draw detections on, beside their ground truth.
    """

    def __init__(self, data: Any, measure: Measure, out: str | Path, pictures: int = 4) -> None:
        self.data, self.measure, self.out = data, measure, Path(out)
        count = min(pictures, len(data))
        self.chosen = [i * len(data) // count for i in range(count)]

    def save_image(self) -> None:
        """Once, for `boxops detect`: of the chosen images one with many objects."""
        self.out.mkdir(parents=True, exist_ok=True)
        image, _ = max((self.data[i] for i in self.chosen or [0]), key=lambda sample: len(sample[1]["boxes"]))
        F.to_pil_image(image).save(self.out / "image.jpg", quality=95)

    def __call__(self, model: nn.Module, epoch: int) -> dict[str, float]:
        metrics = self.measure(model, self.data)
        if self.chosen:
            file = self.out / "samples" / f"epoch_{epoch + 1:03}.jpg"
            try:
                file.parent.mkdir(exist_ok=True)
                self.draw(model).save(file, quality=90)
            except OSError as error:  # a full disk: the metrics count more
                print(f"{file}: not written, {error.strerror or error}", file=sys.stderr)
        return metrics

    @torch.no_grad()
    def draw(self, model: nn.Module) -> Any:
        device = next(model.parameters()).device
        rows = []
        for index in self.chosen:
            image, target = self.data[index]
            (found,) = model([image.to(device)])
            truth = draw_detections(image, target, self.data.classes, title="ground truth")
            rows.append([truth, draw_detections(image, found, self.data.classes, title="detections")])
        return grid(rows)
