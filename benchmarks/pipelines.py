"""Pipelines: what an RPN, an R-CNN head and SSD do with their output, against torchvision's code for it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .boxes import crowd
from .case import Arrays, Case, Rival, numpy, whole
from .machine import rival

torch = rival("torch")
tv = rival("torchvision.ops")
rpn = rival("torchvision.models.detection.rpn")

IMAGE = (800, 1333)
STRIDES = (4, 8, 16, 32, 64)
GRIDS = [(800 // stride, 1344 // stride) for stride in STRIDES]
LEVELS = [height * width * 3 for height, width in GRIDS]
TOP, IOU = 1000, 0.7


def pyramid() -> np.ndarray:
    """Anchors of 8 strides' size and three shapes in every cell."""
    levels = []
    for stride, (height, width) in zip(STRIDES, GRIDS, strict=True):
        y, x = np.mgrid[:height, :width] * float(stride)
        sides = 8 * stride * np.array([[0.71, 1.41], [1, 1], [1.41, 0.71]])
        shapes = np.concatenate([-sides, sides], axis=1) / 2
        levels.append((np.stack([x, y, x, y], axis=-1)[:, :, None] + shapes).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def trained(images: int) -> Arrays:
    """Logits and deltas of an RPN that has learnt: boxes gather about 30 objects an image."""
    rng, anchors = np.random.default_rng(0), pyramid()
    size, centre = anchors[:, 2:] - anchors[:, :2], (anchors[:, 2:] + anchors[:, :2]) / 2
    logits, deltas = [], []
    for _ in range(images):
        objects = crowd(30, 800.0, int(rng.integers(1 << 30)))
        iou = reference.box_iou(anchors, objects)
        match, best = objects[iou.argmax(axis=1)], iou.max(axis=1)
        shift = ((match[:, 2:] + match[:, :2]) / 2 - centre) / size
        offsets = np.concatenate([shift, np.log((match[:, 2:] - match[:, :2]) / size)], axis=1)
        deltas.append(np.where(best[:, None] > 0.3, offsets, 0) + rng.normal(0, 0.1, offsets.shape))
        logits.append(12 * best - 8 + rng.normal(0, 1.5, len(best)))
    return np.stack(logits).astype(np.float32), np.stack(deltas).astype(np.float32), anchors


def one_anchor() -> Arrays:
    return np.zeros((1, 1), np.float32), np.zeros((1, 1, 4), np.float32), crowd(1)


def image_by_image(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """What is real of each image. Equal scores may be in another order, so boxes are sorted too."""
    theirs = list(zip(*theirs, strict=True)) if isinstance(theirs, tuple) else theirs

    def parts(boxes: Any, scores: Any, *labels: Any) -> list[Any]:
        boxes, scores = numpy(boxes), numpy(scores)
        return [boxes[np.lexsort((*boxes.T, -scores))], scores, *(np.sort(numpy(some)) for some in labels)]

    *fields, counts = ours
    kept = [[field[image][:count] for field in fields] for image, count in enumerate(counts.tolist())]
    return [parts(*some) for some in theirs], [parts(*some) for some in kept]


def filtered(logits: Any, deltas: Any, anchors: Any, levels: list[int]) -> Any:
    """torchvision's: all anchors decoded, then filter_proposals."""
    tops = {"training": TOP, "testing": TOP}
    network = rpn.RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, tops, tops, IOU)
    proposals = network.box_coder.decode(deltas.flatten(0, 1), [anchors] * len(logits)).view(len(logits), -1, 4)
    return network.filter_proposals(proposals, logits, [IMAGE] * len(logits), levels)


def proposals(label: str, images: int, levels: list[int], make: Any, goal: float) -> Case:
    return Case(
        "generate_proposals",
        label,
        images * sum(levels),
        make=make,
        ours=lambda *arrays: boxops.generate_proposals(*arrays, levels, [IMAGE] * images, TOP, TOP, IOU),
        reference=lambda *arrays: reference.generate_proposals(*arrays, levels, [IMAGE] * images, TOP, TOP, IOU),
        rivals={"torchvision": Rival(lambda *arrays: filtered(*arrays, levels), answer=image_by_image)},
        check=whole,
        goal=("torchvision", goal),
        tolerance=1e-5,  # exp
        graph=True,
        heavy=images > 1,
    )


def head(images: int, n: int, classes: int, own: bool, sure: float, side: float) -> Arrays:
    """Boxes about 30 objects an image, and a softmax over the background and the classes."""
    rng = np.random.default_rng(0)
    objects = crowd(30, side).clip(0, side)[np.arange(n) % 30]
    boxes = objects[:, None] + rng.normal(0, 8, (images, n, classes if own else 1, 4))
    logits = rng.normal(0, 1, (images, n, classes + 1))
    logits[..., 0] += sure
    hit = rng.random((images, n)) < 0.3
    logits[hit, rng.integers(1, classes + 1, hit.sum())] += sure + 3
    scores = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return (boxes if own else boxes[:, :, 0]).astype(np.float32), scores.astype(np.float32)


def roi_heads(boxes: Any, scores: Any, score_threshold: float = 0.05, most: int = 100) -> list[Any]:
    """RoIHeads.postprocess_detections of torchvision, after softmax, decoding and clipping."""
    results = []
    for some, score in zip(boxes, scores[..., 1:], strict=True):
        label = torch.arange(score.shape[1], device=score.device).expand_as(score).reshape(-1)
        some, score = some.reshape(-1, 4), score.reshape(-1)
        keep = torch.where(score > score_threshold)[0]
        some, score, label = some[keep], score[keep], label[keep]
        keep = tv.remove_small_boxes(some, 1e-2)
        some, score, label = some[keep], score[keep], label[keep]
        keep = tv.batched_nms(some, score, label, 0.5)[:most]
        results.append((some[keep], score[keep], label[keep]))
    return results


def ssd(boxes: Any, scores: Any) -> list[Any]:
    """SSD.postprocess_detections of torchvision, after softmax, decoding and clipping."""
    results = []
    for box, all_scores in zip(boxes, scores[..., 1:], strict=True):
        found = []
        for label in range(all_scores.shape[1]):
            keep = all_scores[:, label] > 0.01
            score, at = all_scores[keep, label].topk(min(400, int(keep.sum())))
            found.append((box[keep][at], score, torch.full_like(score, label, dtype=torch.int64)))
        some, score, labels = map(torch.cat, zip(*found, strict=True))
        keep = tv.batched_nms(some, score, labels, 0.45)[:200]
        results.append((some[keep], score[keep], labels[keep]))
    return results


def detect(label: str, make: Any, n: int, rival: Any, **options: Any) -> Case:
    return Case(
        "detect",
        label,
        n,
        make=make,
        ours=lambda boxes, scores: boxops.detect(boxes, scores[..., 1:], **options),
        reference=lambda boxes, scores: reference.detect(boxes, scores[..., 1:], **options),
        rivals={"torchvision": Rival(rival, answer=image_by_image)},
        check=whole,
        graph=True,
        heavy=n > 100_000,
    )


ssd_head = partial(head, 1, 8732, 90, False)
as_ssd = partial(detect, n=785_880, rival=ssd, score_threshold=0.01, iou_threshold=0.45, max_output=200)
CASES = [
    proposals("1 anchor", 1, [1], one_anchor, 1),
    proposals(f"1 x {sum(LEVELS):,}", 1, LEVELS, partial(trained, 1), 3),
    proposals(f"2 x {sum(LEVELS):,}", 2, LEVELS, partial(trained, 2), 3),
    detect("1 box", partial(head, 1, 1, 1, True, 0, 100), 1, roi_heads, min_size=1e-2),
    detect("R-CNN 2 x 1,000 x 90", partial(head, 2, 1000, 90, True, 5, 800), 180_000, roi_heads, min_size=1e-2),
    as_ssd("SSD 1 x 8,732 x 90", partial(ssd_head, 7, 300), topk_per_class=400),
    as_ssd("SSD untrained 1 x 8,732 x 90", partial(ssd_head, 0, 300), topk_per_class=400),
]
