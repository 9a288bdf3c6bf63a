"""NMS: bound by arithmetic on crowded boxes, not by the few bytes it moves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import boxops
from boxops import reference

from . import outputs, specialists
from .boxes import OBJECTS, around, crowd, label
from .case import Arrays, Case, Rival, Wrong, numpy, sets, whole
from .machine import rival
from .outputs import RECORDED, RECORDED_SSD

torch = rival("torch")
tv = rival("torchvision.ops")
pb = rival("powerboxes")
ls = rival("lsnms")

IOU = 0.5
KEEP = 300  # what a detector keeps of an image
AROUND = f"around {OBJECTS} objects"


def scored(n: int, side: float) -> Arrays:
    return crowd(n, side), np.random.default_rng(1).random(n, np.float32)


def around_objects(n: int) -> Arrays:
    return around(n), np.random.default_rng(1).random(n, np.float32)


def objects_of_classes(n: int, classes: int = 80) -> Arrays:
    """A box has the class of its object, but for one of eight."""
    rng = np.random.default_rng(2)
    own = np.arange(n) % OBJECTS % classes
    return *around_objects(n), np.where(rng.random(n) < 1 / 8, rng.integers(0, classes, n), own)


def classified(n: int, side: float = 1333.0, classes: int = 80) -> Arrays:
    return *scored(n, side), np.random.default_rng(2).integers(0, classes, n)


def of_network(n: int, file: Path) -> Arrays:
    """The first n boxes that a recorded network left to NMS, with their scores and groups: a class of an image each."""
    boxes, scores, groups = outputs.candidates(file)
    return boxes[:n], scores[:n], groups[:n]


def of_image(file: Path) -> Arrays:
    """Those of the first image, of all classes."""
    boxes, scores, _ = of_network(outputs.counts(file)[0], file)
    return boxes, scores


def batch(images: int, n: int, side: float = 1333.0) -> Arrays:
    boxes, scores = scored(images * n, side)
    return boxes.reshape(images, n, 4), scores.reshape(images, n)


def greedy(case: Case, arrays: Arrays, result: Any, count: int = 1000, iou: Any = reference.box_iou) -> str:
    """Proves the result where the reference would take minutes.

    There is one list only, by falling score, in which no box is suppressed by a kept one before it, and all others are.
    A wrong list breaks this for some boxes; it is asked of `count` of them.
    """
    boxes, scores, *groups = arrays
    keep, n = numpy(result), len(boxes)
    rank = np.empty(n, np.int64)
    rank[np.lexsort((np.arange(n), -scores))] = np.arange(n)
    if keep.dtype != np.int64 or not (np.diff(rank[keep]) > 0).all():
        raise Wrong("the kept indices are not int64 by falling score, ties to the lower index")
    kept = np.zeros(n, bool)
    kept[keep] = True
    threshold = np.float64(IOU) if boxes.dtype == np.float64 else np.float32(IOU)
    for some in np.array_split(np.random.default_rng(0).choice(n, min(n, count), replace=False), 50):
        hit = iou(boxes[some], boxes[keep]) > threshold
        hit &= rank[keep] < rank[some, None]
        for group in groups:
            hit &= group[keep] == group[some, None]
        wrong = some[hit.any(axis=1) == kept[some]]
        if len(wrong):
            raise Wrong(f"box {wrong[0]} is {'kept' if kept[wrong[0]] else 'dropped'}, the greedy rule says otherwise")
    return f"the greedy rule, on {min(n, count):,} of {n:,} boxes"


def batch_around(images: int, n: int) -> Arrays:
    boxes = np.stack([around(n, seed=image) for image in range(images)])
    return boxes, np.random.default_rng(1).random((images, n), np.float32)


def looped(boxes: Any, scores: Any, iou_threshold: float, max_output: int) -> tuple[Any, Any]:
    """What one writes without nms_padded: torchvision image by image, padded."""
    indices = torch.full((len(boxes), max_output), -1, device=boxes.device)
    counts = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
    for image, (some, score) in enumerate(zip(boxes, scores, strict=True)):
        keep = tv.nms(some, score, iou_threshold)[:max_output]
        indices[image, : len(keep)] = keep
        counts[image] = len(keep)
    return indices, counts


def in_float64(boxes: Any, scores: Any, *classes: Any) -> Any:
    return boxes.astype(np.float64), scores.astype(np.float64), *classes


def powerboxes_nms(n: int) -> Rival:
    """Its tree where boxes are many; takes no other scores than float64."""

    def call(boxes: Any, scores: Any) -> Any:
        return (pb.nms if n < 1000 else pb.rtree_nms)(boxes, scores, IOU, 0.0)

    return Rival(call, given=lambda boxes, scores: (boxes, scores.astype(np.float64)), answer=sets)


def lsnms_nms(boxes: Any, scores: Any, classes: Any = None) -> Any:
    return ls.nms(boxes, scores, IOU, 0.0, class_ids=classes)


def nms(n: int, scene: str = "", make: Any = None, goal: tuple[str, float] = ("torchvision", 1.0)) -> Case:
    rivals = {"powerboxes": powerboxes_nms(n), "lsnms": Rival(lsnms_nms, given=in_float64, answer=sets)}
    rivals |= specialists.nms(n, IOU)
    if n <= 20_000:  # then it takes 20 s
        rivals["torchvision"] = Rival(lambda boxes, scores: tv.nms(boxes, scores, IOU), answer=sets)
    scene = scene or "on 1,000 px"
    return Case(
        "nms",
        label(n) if n == 1 else f"{n:,} {scene}",
        n,
        make=make or partial(scored, n, 1000.0),
        ours=lambda boxes, scores: boxops.nms(boxes, scores, IOU),
        reference=lambda boxes, scores: reference.nms(boxes, scores, IOU),
        rivals=rivals,
        check=whole if n <= 1000 else greedy,
        goal=goal,
        heavy=n > 5000,
        variant=scene,
    )


def nms_around(n: int, goal: float) -> Case:
    return nms(n, AROUND, partial(around_objects, n), ("torchvision", goal))


def batched(n: int, goal: float, scene: str = "in 80 classes", make: Any = classified) -> Case:
    return Case(
        "batched_nms",
        label(n) if n == 1 else f"{n:,} {scene}",
        n,
        make=partial(make, n),
        ours=lambda boxes, scores, classes: boxops.batched_nms(boxes, scores, classes, IOU),
        reference=lambda boxes, scores, classes: reference.batched_nms(boxes, scores, classes, IOU),
        rivals={
            "torchvision": Rival(lambda boxes, scores, idxs: tv.batched_nms(boxes, scores, idxs, IOU), answer=sets),
            "lsnms": Rival(lsnms_nms, given=in_float64, answer=sets),
        },
        check=whole if n <= 1000 else greedy,
        goal=("torchvision", goal),
        variant=scene,
    )


def padded(images: int, n: int, scene: str = "", make: Any = batch) -> Case:
    return Case(
        "nms_padded",
        label(n) if n == 1 else f"{images} x {n:,}{scene}, {KEEP} kept",
        n,
        make=partial(make, images, n),
        ours=lambda boxes, scores: boxops.nms_padded(boxes, scores, IOU, KEEP),
        reference=lambda boxes, scores: reference.nms_padded(boxes, scores, IOU, KEEP),
        rivals={"torchvision": lambda boxes, scores: looped(boxes, scores, IOU, KEEP)},
        check=whole,
        graph=True,
        heavy=n > 1000,
        variant=scene,
    )


CROWDS = (1_000, 5_000, 20_000)
CASES = [  # what detectors put out before boxes that are spread out
    nms(1),
    nms(outputs.counts(RECORDED_SSD)[0], "of SSD on BCCD", partial(of_image, RECORDED_SSD), ("torchvision", 15)),
    nms_around(100, 3),
    *(nms_around(n, 15) for n in CROWDS),
    nms(100),
    nms(1_000, goal=("torchvision", 8)),
    nms(5_000),
    nms(20_000, goal=("torchvision", 50)),
    nms(100_000, "on 10,000 px", partial(scored, 100_000, 10_000.0), ("powerboxes", 10)),
    batched(1, 1),
    batched(sum(outputs.counts(RECORDED_SSD)), 4, "of SSD, 8 images of BCCD", partial(of_network, file=RECORDED_SSD)),
    batched(sum(outputs.counts(RECORDED)), 4, "of YOLOv3-tiny, 33 images of COCO", partial(of_network, file=RECORDED)),
    *(batched(n, 4, f"{AROUND} in 80 classes", objects_of_classes) for n in CROWDS),
    batched(20_000, 6),
    padded(1, 1),
    *(padded(2, n, f" {AROUND}", batch_around) for n in CROWDS),
    padded(8, 4_000),
]
