"""Pairwise measures, bound by writing the matrix; the same pair by pair; and the losses, with their gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import crowd, label
from .case import Arrays, Case, Rival, Wrong, same, some_rows, whole
from .machine import rival

torch = rival("torch")
tv = rival("torchvision.ops")
pb = rival("powerboxes")
coco = rival("pycocotools.mask")


def two(n: int) -> Arrays:
    return crowd(n, seed=1), crowd(n, seed=2)


def neighbours(n: int) -> Arrays:
    """Predictions a few percent off their targets: pairs as a loss sees them."""
    target = crowd(n, seed=1)
    size = np.tile(target[:, 2:] - target[:, :2], 2)
    noise = np.random.default_rng(2).normal(0, 0.05, target.shape)
    return (target + noise * size).astype(np.float32), target


def distance(function: Callable[..., Any]) -> Rival:
    """powerboxes gives 1 - IoU, in float64. Its DIoU and CIoU are others: 1 for all pairs that do not overlap."""
    return Rival(function, answer=lambda theirs, ours: (1 - theirs, ours))


def coco_boxes(boxes1: Any, boxes2: Any) -> Any:
    """pycocotools takes float64 corners and sizes, and has the crowds, whose IoU is our IoA, second."""
    sizes = [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1).astype(np.float64) for b in (boxes1, boxes2)]
    return sizes[1], sizes[0], np.ones(len(boxes1), np.uint8)


def intersection(boxes1: Any, boxes2: Any) -> Any:
    low = torch.maximum(boxes1[..., :2], boxes2[..., :2])
    high = torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def eager_ioa(boxes1: Any, boxes2: Any) -> Any:
    return intersection(boxes1[:, None], boxes2[None]) / eager_area(boxes2)


def eager_paired_iou(boxes1: Any, boxes2: Any) -> Any:
    inter = intersection(boxes1, boxes2)
    return inter / (eager_area(boxes1) + eager_area(boxes2) - inter)


def eager_area(boxes: Any) -> Any:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise(
    op: str,
    ours: Callable[..., Any],
    slow: Callable[..., Any],
    goals: Mapping[int, float],
    **rivals: Rival | Callable[..., Any],
) -> list[Case]:
    """`goals`: for each N, how many times faster than the first rival it must be at least."""
    return [
        Case(
            op,
            "1 x 1 box" if n == 1 else f"{n:,} x {n:,}",
            n,
            make=partial(two, n),
            ours=ours,
            reference=slow,
            rivals=rivals,
            check=whole if n <= 1000 else some_rows,
            goal=(next(iter(rivals)), goal),
            limit="fill",
            heavy=n > 1000,
        )
        for n, goal in goals.items()
    ]


def gradient(case: Case, arrays: Arrays, result: Any) -> str:
    """The reference has no gradient: torchvision's autograd in float64 is the oracle."""
    if not tv:
        raise Wrong("cannot tell: the oracle of the gradient is torchvision, which is absent")
    exact = case.rivals["torchvision"](*(torch.as_tensor(array).double() for array in arrays))
    same(result, exact.to(result.dtype), tolerance := max(case.tolerance, 8 * torch.finfo(result.dtype).eps))
    return f"all values within {tolerance:.0e} of torchvision's float64 gradient"


def losses(op: str) -> list[Case]:
    """Forward alone, and forward with the gradient of the predictions."""

    def backward(module: Any, boxes1: Any, boxes2: Any) -> Any:
        boxes1 = boxes1.detach().requires_grad_()
        return torch.autograd.grad(getattr(module, op)(boxes1, boxes2, reduction="sum"), boxes1)[0]

    def case(n: int, suffix: str, call: Callable[..., Any], **more: Any) -> Case:
        return Case(
            op,
            label(n, "pair") + suffix,
            n,
            make=partial(neighbours, n),
            ours=partial(call, boxops),
            reference=partial(call, reference),
            rivals={"torchvision": partial(call, tv)},
            variant=suffix,
            **more,
        )

    forward = lambda module, boxes1, boxes2: getattr(module, op)(boxes1, boxes2)  # noqa: E731
    return [
        *(case(n, "", forward, check=whole) for n in (1, 100_000)),
        *(case(n, " + backward", backward, check=gradient, tolerance=1e-4, tensors_only=True) for n in (1, 100_000)),
    ]


CASES = [
    *pairwise(
        "box_iou",
        lambda boxes1, boxes2: boxops.box_iou(boxes1, boxes2),
        lambda boxes1, boxes2: reference.box_iou(boxes1, boxes2),
        {1: 1, 100: 1, 1000: 1, 5000: 12},
        torchvision=lambda boxes1, boxes2: tv.box_iou(boxes1, boxes2),
        powerboxes=distance(lambda boxes1, boxes2: pb.parallel_iou_distance(boxes1, boxes2)),
    ),
    Case(
        "box_iou",
        "100,000 pairs",
        100_000,
        make=partial(neighbours, 100_000),
        ours=lambda boxes1, boxes2: boxops.box_iou(boxes1, boxes2, paired=True),
        reference=lambda boxes1, boxes2: reference.box_iou(boxes1, boxes2, paired=True),
        rivals={"torch": eager_paired_iou},
        check=whole,
        goal=("torch", 1.0),
        variant="paired",
    ),
    *pairwise(
        "generalized_box_iou",
        lambda boxes1, boxes2: boxops.generalized_box_iou(boxes1, boxes2),
        lambda boxes1, boxes2: reference.generalized_box_iou(boxes1, boxes2),
        {1: 1, 100: 1, 1000: 1, 5000: 35},
        torchvision=lambda boxes1, boxes2: tv.generalized_box_iou(boxes1, boxes2),
        powerboxes=distance(lambda boxes1, boxes2: pb.parallel_giou_distance(boxes1, boxes2)),
    ),
    *pairwise(
        "distance_box_iou",
        lambda boxes1, boxes2: boxops.distance_box_iou(boxes1, boxes2),
        lambda boxes1, boxes2: reference.distance_box_iou(boxes1, boxes2),
        {1: 1, 100: 1, 2000: 1},
        torchvision=lambda boxes1, boxes2: tv.distance_box_iou(boxes1, boxes2),
    ),
    *pairwise(
        "complete_box_iou",
        lambda boxes1, boxes2: boxops.complete_box_iou(boxes1, boxes2),
        lambda boxes1, boxes2: reference.complete_box_iou(boxes1, boxes2),
        {1: 1, 100: 1, 2000: 1},
        torchvision=lambda boxes1, boxes2: tv.complete_box_iou(boxes1, boxes2),
    ),
    *pairwise(
        "box_ioa",
        lambda boxes1, boxes2: boxops.box_ioa(boxes1, boxes2),
        lambda boxes1, boxes2: reference.box_ioa(boxes1, boxes2),
        {1: 1, 2000: 1},
        torch=eager_ioa,
        pycocotools=Rival(
            lambda boxes1, boxes2, crowd: coco.iou(boxes1, boxes2, crowd),
            given=coco_boxes,
            answer=lambda theirs, ours: (theirs.T, ours),
        ),
    ),
    *losses("generalized_box_iou_loss"),
    *losses("distance_box_iou_loss"),
    *losses("complete_box_iou_loss"),
]
