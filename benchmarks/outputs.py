"""What networks put out for an image with some dozen objects: the inputs of postprocess.py, before any decoding.

Around each object gather the boxes of many anchors, which say the object's class; the others say nothing, but for
noise, of which a low threshold lets thousands through.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import boxops

from .case import Arrays

COCO, DOTA = 80, 15  # classes
RECORDED = Path(__file__).parent / "yolov3_tiny_coco.npz"
RECORDED_SSD = Path(__file__).parent / "ssd_bccd.npz"
FIELDS = ("boxes", "places", "classes", "scores", "counts", "shape")
SSD_SIDE, SSD_GRIDS, SSD_SHAPES = 300, (38, 19, 10, 5, 3, 1), (4, 6, 6, 6, 4, 4)
IMAGE, STRIDES = (800, 1344), (8, 16, 32, 64, 128)  # RetinaNet's and Faster R-CNN's


def levels(size: Sequence[int]) -> list[int]:
    """How many anchors RetinaNet has on each level."""
    return [-(-size[0] // stride) * -(-size[1] // stride) * 9 for stride in STRIDES]


LEVELS = levels(IMAGE)


def objects(count: int, size: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Centres and sides [count, 4] of boxes of 16 to 250 px, or to half of a smaller image, that lie in the image."""
    sides = np.exp(rng.uniform(np.log(16), np.log(min(250, min(size) / 2)), (count, 2)))
    return np.concatenate([sides / 2 + rng.random((count, 2)) * (np.array(size)[::-1] - sides), sides], axis=1)


def corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def softly(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def cells(side: int, strides: Sequence[int] = (8, 16, 32)) -> np.ndarray:
    """Centres and strides [A, 3] of the cells of YOLO's grids."""
    grids = [np.mgrid[stride / 2 : side : stride, stride / 2 : side : stride] for stride in strides]
    levels = [np.stack([x, y, np.full_like(x, s)], axis=-1) for s, (y, x) in zip(strides, grids, strict=True)]
    return np.concatenate([level.reshape(-1, 3) for level in levels])


def anchor_free(
    boxes: np.ndarray, side: int, classes: int, noise: float, rng: np.random.Generator, spread: float = 0.04
) -> np.ndarray:
    """Rows [A, 5 + classes] of centre, sides, angle and scores, around objects [count, 5] with angles in radians.

    `noise` is the mean logit of a class that is not there; `spread` is the standard deviation of an object's boxes, as
    a share of its sides.
    """
    cell = cells(side)
    away = cell[:, None, :2] - boxes[:, :2]  # [A, count, 2]
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    across = np.stack([away[..., 0] * cos + away[..., 1] * sin, away[..., 1] * cos - away[..., 0] * sin], axis=-1)
    inside = 1 - 2 * abs(across / boxes[:, 2:4]).max(axis=-1)  # 1 in the middle of the object, 0 on its border
    mine, best = inside.argmax(axis=1), inside.max(axis=1)
    lost = np.concatenate([cell[:, :2], cell[:, 2:] * np.exp(rng.normal(1, 0.5, (len(cell), 2)))], axis=1)
    found = boxes[mine, :4] + rng.normal(0, spread, (len(cell), 4)) * boxes[mine][:, [2, 3, 2, 3]]
    turned = boxes[mine, 4:] + rng.normal(0, spread / 2, (len(cell), 1))
    logits = rng.normal(noise, 1.5, (len(cell), classes))
    label = rng.integers(0, classes, len(boxes))[mine]
    logits[np.arange(len(cell)), label] += (best > 0) * (4 + (2 - noise) * best)
    return np.concatenate([np.where(best[:, None] > 0, found, lost), turned, softly(logits)], axis=1)


def yolo(noise: float = -9.6, side: int = 640, count: int = 40) -> Arrays:
    """A prediction [1, 4 + classes, A] as ultralytics' networks give it: 8,400 places of 80 classes.

    Above 0.001 are some 30,000 pairs of box and class.
    """
    rng = np.random.default_rng(0)
    boxes = np.concatenate([objects(count, (side, side), rng), np.zeros((count, 1))], axis=1)
    rows = anchor_free(boxes, side, COCO, noise, rng)
    return (np.ascontiguousarray(np.delete(rows, 4, axis=1).T[None], np.float32),)


def recorded() -> Arrays:
    """Predictions [33, 4 + 80, 2535] of YOLOv3-tiny on 33 images of COCO, as record.py wrote them."""
    with np.load(RECORDED) as file:
        boxes, places, classes, scores, counts, (length, width) = (file[name] for name in FIELDS)
    prediction = np.zeros((len(counts), 4 + width, length), np.float32)
    image = np.repeat(np.arange(len(counts)), counts)
    prediction[image, 4 + classes.astype(int), places] = scores
    at = np.unique(image * length + places)
    prediction.swapaxes(1, 2)[at // length, at % length, :4] = boxes / np.float32(32)
    return (prediction,)


def counts(file: Path) -> list[int]:
    """How many candidates a recorded network left of each image."""
    with np.load(file) as recording:
        return list(recording["counts"].tolist())


def candidates(file: Path) -> Arrays:
    """What a recorded network leaves to NMS: boxes [N, 4], scores [N] and groups [N], a class of an image each."""
    with np.load(file) as recording:
        boxes, classes, scores, counts = (recording[name] for name in ("boxes", "classes", "scores", "counts"))
        boxes = boxes / np.float32(32)
        if "places" in recording:  # the boxes are of places, which may have several classes
            length, image = recording["shape"][0], np.repeat(np.arange(len(counts)), counts)
            _, which = np.unique(image * length + recording["places"], return_inverse=True)
            boxes = corners(boxes)[which]
    return boxes, scores, np.repeat(np.arange(len(counts)), counts) * 256 + classes


def oriented(spread: float = 0.015, side: int = 1024, across: int = 12) -> Arrays:
    """A prediction [1, 4 + classes + 1, A] with the angle last: 21,504 places of 15 classes, cars on a parking lot,
    side by side but apart."""
    rng = np.random.default_rng(0)
    y, x = (np.mgrid[:across, :across].reshape(2, -1) + 0.5) * side / across
    sides = side / across * rng.uniform(0.3, 0.65, (2, len(x)))
    boxes = np.stack([x, y, *sides, rng.uniform(-1.5, 1.5, len(x))], axis=1)
    rows = anchor_free(boxes, side, DOTA, -9.0, rng, spread)
    return (np.ascontiguousarray(np.concatenate([rows[:, :4], rows[:, 5:], rows[:, 4:5]], axis=1).T[None], np.float32),)


def anchored(
    anchors: np.ndarray, size: Sequence[int], classes: int, noise: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Logits [A, classes] and deltas [A, 4] of anchors around 30 objects."""
    real = corners(objects(30, size, rng))
    iou = np.asarray(boxops.box_iou(anchors, real.astype(np.float32)))
    best, at = iou.max(axis=1), iou.argmax(axis=1)
    mine = real[at]
    sides = anchors[:, 2:] - anchors[:, :2]
    shift = (mine[:, :2] + mine[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / sides
    deltas = np.concatenate([shift, np.log((mine[:, 2:] - mine[:, :2]) / sides)], axis=1)
    deltas = np.where(best[:, None] > 0.3, deltas, 0) + rng.normal(0, 0.1, deltas.shape)
    logits = rng.standard_normal((len(anchors), classes), np.float32) + np.float32(noise)
    logits[np.arange(len(anchors)), rng.integers(1, classes, len(real))[at]] += 12 * best
    return logits, deltas


def grid(steps: Sequence[float], shapes: Sequence[np.ndarray], size: Sequence[int]) -> np.ndarray:
    """Anchors of all levels, cell by cell, so many shapes [n, 2] of width and height in a cell of each level."""
    levels = []
    for step, shape in zip(steps, shapes, strict=True):
        y, x = np.mgrid[: np.ceil(size[0] / step), : np.ceil(size[1] / step)]
        centres = (np.stack([x, y], axis=-1).reshape(-1, 1, 2) + 0.5) * step
        levels.append(np.concatenate([centres - shape / 2, centres + shape / 2], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def ratios(side: float, count: int) -> np.ndarray:
    """Widths and heights of `count` boxes of about so many px."""
    shapes = [(1, 1), (1.2, 1.2), (1.41, 0.71), (0.71, 1.41), (1.73, 0.58), (0.58, 1.73)]
    return side * np.array(shapes[:count])


def ssd() -> Arrays:
    """Logits [1, 8732, 91] (0: background), deltas [1, 8732, 4] and anchors of SSD300."""
    rng = np.random.default_rng(0)
    sides = SSD_SIDE * np.linspace(0.1, 0.9, 6)
    shapes = [ratios(side, count) for side, count in zip(sides, SSD_SHAPES, strict=True)]
    anchors = grid([SSD_SIDE / cells for cells in SSD_GRIDS], shapes, (SSD_SIDE, SSD_SIDE))
    logits, deltas = anchored(anchors, (SSD_SIDE, SSD_SIDE), 91, 0, rng)
    logits[:, 0] = rng.normal(8, 1, len(logits))
    return logits[None], (deltas * [10, 10, 5, 5]).astype(np.float32)[None], anchors


def retinanet(size: Sequence[int] = IMAGE) -> Arrays:
    """Logits [1, A, 91], deltas [1, A, 4] and anchors, 201,600 of an image of 800 x 1344 px."""
    shapes = [np.concatenate([ratios(4 * s * 2 ** (k / 3), 4)[[0, 2, 3]] for k in range(3)]) for s in STRIDES]
    anchors = grid(STRIDES, shapes, size)
    logits, deltas = anchored(anchors, size, 91, -6.5, np.random.default_rng(0))
    return logits[None], deltas.astype(np.float32)[None], anchors


def rcnn(images: int = 2, count: int = 1000) -> Arrays:
    """Logits [2, 1000, 91] (0: background), deltas [2, 1000, 91, 4] and proposals [2, 1000, 4]."""
    rng = np.random.default_rng(0)
    real, label = objects(30, IMAGE, rng), rng.integers(1, 91, 30)
    mine, hit = rng.integers(0, 30, (images, count)), rng.random((images, count)) < 0.5
    proposals = real[mine] + rng.normal(0, 0.1, (images, count, 4)) * real[mine][..., [2, 3, 2, 3]]
    deltas = rng.standard_normal((images, count, 91, 4), np.float32) * 0.3
    logits = rng.standard_normal((images, count, 91), np.float32)
    logits[..., 0] += 5
    logits[hit, label[mine[hit]]] += 8
    return logits, deltas, np.stack([corners(boxes) for boxes in proposals]).clip(0, IMAGE[1]).astype(np.float32)


def slices(count: int = 20_000) -> Arrays:
    """Rows [count, 6] of corners, score and class: ten boxes of each object, from overlapping slices of 4000 x 3000."""
    rng = np.random.default_rng(0)
    real = objects(-(-count // 10), (3000, 4000), rng)
    mine = rng.permutation(np.arange(count) % len(real))
    boxes = corners(real[mine] + rng.normal(0, 0.06, (count, 4)) * real[mine][:, [2, 3, 2, 3]]).clip(0)
    label = rng.integers(0, COCO, len(real))[mine]
    return (np.concatenate([boxes, rng.beta(1, 2, (count, 1)), label[:, None]], axis=1).astype(np.float32),)
