"""Weighted boxes fusion: bound by holding boxes against the clusters of their label."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import around, crowd, label
from .case import Arrays, Case, Rival, numpy, whole
from .machine import rival
from .nms import AROUND

torch = rival("torch")
ensemble = rival("ensemble_boxes")

MODELS = 3


def models(n: int, classes: int) -> Arrays:
    """The boxes, the scores and the labels of each model, which see the same objects, in [0, 1] as the rival asks."""
    rng, objects = np.random.default_rng(0), crowd(n, 1000.0) / 1300
    boxes = [(objects + rng.normal(0, 2e-3, objects.shape)).clip(0, 1).astype(np.float32) for _ in range(MODELS)]
    labels = rng.integers(0, classes, n)
    return *boxes, *(rng.random(n, np.float32) for _ in range(MODELS)), *[labels] * MODELS


def models_around(n: int, classes: int) -> Arrays:
    rng = np.random.default_rng(0)
    boxes = [((around(n, seed=model) + 200) / 1400).clip(0, 1) for model in range(MODELS)]
    labels = np.arange(n) % classes
    return *boxes, *(rng.random(n, np.float32) for _ in range(MODELS)), *[labels] * MODELS


def lists(function: Callable[..., Any], *arrays: Any) -> Any:
    return function(arrays[:MODELS], arrays[MODELS : 2 * MODELS], arrays[2 * MODELS :])


def ensemble_fusion(*arrays: Any) -> Any:
    return lists(ensemble.weighted_boxes_fusion, *(np.asarray(a.cpu() if hasattr(a, "cpu") else a) for a in arrays))


def rounded(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """As sets: equal scores may be in another order, and one cluster may be another."""

    def rows(boxes: Any, scores: Any, labels: Any) -> set[tuple[float, ...]]:
        parts = [numpy(boxes), numpy(scores)[:, None], numpy(labels)[:, None]]
        return set(map(tuple, np.concatenate(parts, axis=1).astype(np.float64).round(3).tolist()))

    return rows(*theirs), rows(*ours)


def fusion(n: int, classes: int, goal: float = 10.0, scene: str = "", make: Any = models) -> Case:
    return Case(
        "weighted_boxes_fusion",
        label(n) if n == 1 else f"{MODELS} x {n:,}{scene}, {classes} label{'s' * (classes > 1)}",
        n,
        make=partial(make, n, classes),
        ours=partial(lists, boxops.weighted_boxes_fusion),
        reference=partial(lists, reference.weighted_boxes_fusion),
        rivals={"ensemble-boxes": Rival(ensemble_fusion, answer=rounded)},
        check=whole,
        goal=("ensemble-boxes", goal),
        heavy=n > 500,
        variant=f"{classes} labels{scene}",
    )


CASES = [
    fusion(1, 1, 1),
    fusion(200, 1),
    fusion(2_000, 1),
    fusion(2_000, 80),
    *(fusion(n, 20, scene=f" {AROUND}", make=models_around) for n in (200, 1_000, 5_000)),
]
