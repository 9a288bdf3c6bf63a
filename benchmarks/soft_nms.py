"""Soft NMS: bound by the pairs that overlap."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import label
from .case import Case, Rival, sets, whole
from .machine import rival
from .nms import AROUND, CROWDS, around_objects, scored

torch = rival("torch")
ensemble = rival("ensemble_boxes.ensemble_boxes_nms")

IOU, SIGMA, SCORE = 0.3, 0.5, 0.001


def ensemble_soft_nms(boxes: Any, scores: Any, method: int) -> Any:
    arrays = (np.array(x.cpu() if torch and isinstance(x, torch.Tensor) else x) for x in (boxes, scores))
    return ensemble.cpu_soft_nms_float(*arrays, IOU, SIGMA, SCORE, method)  # it changes its arguments


def looped(boxes: Any, scores: Any) -> tuple[Any, Any]:
    """What one writes in torch."""
    scores, indices, decayed = scores.clone(), [], []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for _ in range(len(boxes)):
        best = scores.argmax()
        if scores[best] <= SCORE:
            break
        indices.append(best), decayed.append(scores[best])
        low, high = torch.maximum(boxes[:, :2], boxes[best, :2]), torch.minimum(boxes[:, 2:], boxes[best, 2:])
        inter = (high - low).clamp(min=0).prod(1)
        iou = inter / (area + area[best] - inter)
        scores = scores * torch.exp(-iou * iou / SIGMA)
        scores[best] = 0
    return torch.stack(indices), torch.stack(decayed)


def soft(n: int, method: str = "gaussian", side: float = 1000.0, goal: float = 10.0, around: bool = False) -> Case:
    number = {"linear": 1, "gaussian": 2}[method]
    rivals: dict[str, Any] = {"ensemble-boxes": Rival(partial(ensemble_soft_nms, method=number), answer=sets)}
    if method == "gaussian" and n <= 100:  # then seconds
        rivals["torch"] = looped
    return Case(
        "soft_nms",
        f"{label(n)}{f' {AROUND}' * around}, {method}",
        n,
        make=partial(around_objects, n) if around else partial(scored, n, side),
        ours=lambda boxes, scores: boxops.soft_nms(boxes, scores, IOU, method=method),
        reference=lambda boxes, scores: reference.soft_nms(boxes, scores, IOU, method=method),
        rivals=rivals if n <= 5000 else {},
        check=whole,
        goal=("ensemble-boxes", goal),
        heavy=n > 1000,
        variant=f"{method}{f', {AROUND}' * around}",
    )


CASES = [
    soft(1, goal=1),
    soft(100),
    soft(1_000),
    soft(1_000, "linear"),
    soft(5_000),
    soft(5_000, "linear"),
    soft(20_000, side=10_000.0),
    *(soft(n, around=True) for n in CROWDS),
]
