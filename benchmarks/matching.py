"""Matching anchors to ground truth: bound by the IoUs of pairs that may overlap. The rivals make the A x G matrix."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import crowd
from .case import Arrays, Case, Rival, whole
from .machine import rival

torch = rival("torch")
tv = rival("torchvision.ops")
matcher = rival("torchvision.models.detection._utils")

HIGH, LOW, IOU = 0.7, 0.3, 0.5
IMAGE = 1000


def grid(n: int) -> np.ndarray:
    """Nine anchors per place, three sizes by three shapes, row by row over an image as wide as it is high."""
    side = round((n / 9) ** 0.5)
    y, x = np.divmod(np.arange(side * side), side)
    centre = np.stack([x, y], axis=1)[:, None] * (IMAGE / side)
    sides = np.array([(s * r, s / r) for s in (32, 64, 128) for r in (0.5**0.5, 1, 2**0.5)])
    return np.concatenate([centre - sides / 2, centre + sides / 2], axis=2).reshape(-1, 4).astype(np.float32)


def scene(anchors: str, n: int, boxes: int, images: int = 1) -> Arrays:
    """Anchors, ground truth, and its offsets unless there is one image."""
    truths = crowd(boxes * images, seed=1)
    made = grid(n) if anchors == "grid" else crowd(n)
    return (made, truths) if images == 1 else (made, truths, np.arange(images + 1) * boxes)


def matrix(n: int, boxes: int) -> Arrays:
    return (reference.box_iou(crowd(n), crowd(boxes, seed=1)).astype(np.float32),)


def torchvision_matcher(anchors: Any, boxes: Any, offsets: Any = None) -> Any:
    match = matcher.Matcher(HIGH, LOW, True)
    if offsets is None:
        return match(tv.box_iou(boxes, anchors))
    return torch.stack([match(tv.box_iou(some, anchors)) for some in boxes.split(offsets.diff().tolist())])


def struck(iou: Any) -> Any:
    """The bipartite rule as the lecture writes it: argmax, then strike row and column. For arrays and tensors."""
    matches = [-1] * len(iou)
    for _ in range(min(iou.shape)):
        row, column = divmod(int(iou.argmax()), iou.shape[1])
        matches[row] = column
        iou[row], iou[:, column] = -1, -1
    return matches


def looped(anchors: Any, boxes: Any) -> Any:
    return struck(tv.box_iou(anchors, boxes))


def looped_numpy(anchors: Any, boxes: Any) -> Any:
    return struck(reference.box_iou(anchors, boxes))


def matches(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Which box each anchor has; the rivals give no IoUs."""
    return theirs[0] if isinstance(theirs, tuple) else theirs, ours[0] if isinstance(ours, tuple) else ours


def text(anchors: str, n: int, boxes: int, images: int = 1) -> str:
    if n == 1:
        return "1 anchor"
    return f"{f'{images} images, ' if images > 1 else ''}{n:,} anchors ({anchors}) x {boxes}"


def max_iou(anchors: str, n: int, boxes: int, goal: float, images: int = 1) -> Case:
    def call(module: Any, a: Any, g: Any, offsets: Any = None) -> Any:
        return module.match_max_iou(a, g, HIGH, LOW, True, offsets=offsets)

    return Case(
        "match_max_iou",
        text(anchors, n, boxes, images),
        n,
        make=partial(scene, anchors, n, boxes, images),
        ours=partial(call, boxops),
        reference=partial(call, reference),
        rivals={"torchvision": Rival(torchvision_matcher, answer=matches)},
        check=whole,
        goal=("torchvision", goal),
        graph=True,
        heavy=n > 50_000,
        variant=anchors,
    )


def greedy(anchors: str, n: int, boxes: int, goal: tuple[str, float]) -> Case:
    return Case(
        "match_greedy",
        text(anchors, n, boxes),
        n,
        make=partial(scene, anchors, n, boxes),
        ours=lambda a, g: boxops.match_greedy(a, g),
        reference=lambda a, g: reference.match_greedy(a, g),
        rivals={"torch": Rival(looped, answer=matches), "NumPy": Rival(looped_numpy, answer=matches)},
        check=whole,
        goal=goal,
        graph=True,
        heavy=n > 50_000,
        variant=anchors,
    )


def greedy_matrix(n: int, boxes: int, goal: tuple[str, float]) -> Case:
    return Case(
        "match_greedy_matrix",
        text("random", n, boxes),
        n,
        make=partial(matrix, n, boxes),
        ours=lambda iou: boxops.match_greedy_matrix(iou),
        reference=lambda iou: reference.match_greedy_matrix(iou),
        rivals={
            "torch": Rival(lambda iou: struck(iou.clone()), answer=matches),
            "NumPy": Rival(lambda iou: struck(iou.copy()), answer=matches),
        },
        check=whole,
        goal=goal,
        graph=True,
        heavy=n > 50_000,
    )


CASES = [
    max_iou("random", 1, 1, 1),
    max_iou("random", 1_000, 20, 1),
    max_iou("random", 200_000, 50, 30),
    max_iou("grid", 200_000, 50, 30),
    max_iou("grid", 20_000, 20, 10, images=8),
    greedy("random", 1, 1, ("torch", 1.0)),
    greedy("random", 1_000, 20, ("torch", 5.0)),
    greedy("random", 200_000, 50, ("NumPy", 50.0)),
    greedy("grid", 200_000, 50, ("NumPy", 50.0)),
    greedy_matrix(1, 1, ("NumPy", 1.0)),
    greedy_matrix(200_000, 50, ("NumPy", 10.0)),
]
