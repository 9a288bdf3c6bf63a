"""Anchors for a data set: k-means over the sizes of its boxes, under 1 - IoU.

Redmon, Farhadi, "YOLO9000", CVPR 2017, section 2, "Dimension Clusters": under Euclidean distance large boxes would err
more than small ones, but what anchors are for is a good IoU, whatever the size. Two boxes are compared as if they had
one centre.

An anchor is the median width and height of its boxes, where darknet takes the means: the average IoU is higher so (of
9 anchors 0.884 against 0.880 on BCCD, 0.636 against 0.626 on 33 images of COCO) and converges in a third of the steps.
Shapes: N boxes, U different sizes among them, k anchors.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np

import boxops
from boxops.data.dataset import DetectionDataset
from boxops.ops.backend import check_integer

STEPS = 300  # most of a restart; some tens do


def box_sizes(data: DetectionDataset, size: tuple[int, int], *, keep_ratio: bool = True) -> np.ndarray:
    """Widths and heights of the boxes as a network sees them; images are not decoded, but their headers are read.

    Args:
        data: any data set; its crowds and difficult objects do not count.
        size: height and width of the network's input in pixels.
        keep_ratio: images are scaled to fit into it, as v2's and v3's are; else they are stretched, as v1's.

    Returns:
        float32 ``[N, 2]`` in pixels of the network, of image after image.

    Raises:
        ValueError: a side of the network is not positive.
    """
    height, width = size
    if min(size) < 1:
        raise ValueError(f"box_sizes: expected a height and width of 1 or more, got {height} and {width}")
    sizes = [np.zeros((0, 2), np.float32)]
    for record in data.records():
        scale = np.array([width / record.width, height / record.height])
        boxes = record.boxes[record.counted]
        sizes.append((boxes[:, 2:] - boxes[:, :2]) * (scale.min() if keep_ratio else scale))
    return np.concatenate(sizes, dtype=np.float32)


def average_iou(sizes: Any, anchors: Any) -> float:
    """The mean over the boxes of the IoU with the best anchor, both around one centre: what figure 2 shows.

    Args:
        sizes: ``[N, 2]`` widths and heights.
        anchors: ``[k, 2]`` widths and heights.

    Raises:
        ValueError: one of them is empty, of another shape, or not positive and finite.
    """
    name = "average_iou"
    return float(_iou(_checked(name, "anchors", anchors), _checked(name, "sizes", sizes)).max(axis=0).mean())


def kmeans_anchors(sizes: Any, k: int, *, restarts: int = 20, seed: int = 0) -> tuple[np.ndarray, float]:
    """The anchors that k-means finds for these boxes.

    Every restart begins with boxes drawn as k-means++ draws them, with probabilities by 1 - IoU to the nearest one so
    far; the best state of all restarts is the result. It depends on the sizes, not on their order.

    Args:
        sizes: ``[N, 2]`` widths and heights, of any real dtype; they are taken as float32.
        k: how many anchors: 5 in YOLO v2, 9 in v3 and 6 in its tiny network.
        restarts: more find better anchors, or the same.
        seed: of the restarts.

    Returns:
        anchors, float64 ``[k, 2]`` widths and heights by area, and their average IoU, see :func:`average_iou`.

    Raises:
        ValueError: sizes are of another shape or not positive and finite, or fewer of them differ than k; k or restarts
            is less than 1, or seed less than 0.
        TypeError: k, restarts or seed is no integer.
    """
    name = "kmeans_anchors"
    for what, value, least in (("k", k, 1), ("restarts", restarts, 1), ("seed", seed, 0)):
        if check_integer(name, what, value) < least:
            raise ValueError(f"{name}: expected {what} of {least} or more, got {value}")
    different, counts = np.unique(_checked(name, "sizes", sizes), axis=0, return_counts=True)
    if len(different) < k:
        raise ValueError(f"{name}: expected at least k = {k} boxes of different sizes, got {len(different)} "
                         f"among {counts.sum()} boxes")  # fmt: skip
    randoms = (np.random.default_rng((seed, restart)) for restart in range(restarts))
    fits = (_fit(different, counts, _begin(different, counts, k, random)) for random in randoms)
    best, anchors = max(fits, key=itemgetter(0))
    return anchors[np.lexsort((anchors[:, 0], anchors.prod(axis=1)))], best


def _checked(name: str, what: str, sizes: Any) -> np.ndarray:
    """[N, 2] as float64 numbers that float32 holds: of these, different ones have an IoU below 1."""
    array = np.asarray(sizes)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise ValueError(f"{name}: expected {what} of shape [N, 2], N >= 1, got {list(array.shape)}")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32).astype(np.float64)
    if len(bad := np.flatnonzero(~((array > 0) & (array < np.inf)).all(axis=1))):
        raise ValueError(f"{name}: expected {what} > 0 and finite, got {array[bad[0]].tolist()} in row {bad[0]}")
    return array


def _iou(sizes1: np.ndarray, sizes2: np.ndarray) -> np.ndarray:
    """[N, M], of boxes around one centre, which is that of boxes with one corner."""
    first, second = (np.concatenate([np.zeros_like(sizes), sizes], axis=1) for sizes in (sizes1, sizes2))
    iou: np.ndarray = boxops.box_iou(first, second)
    return iou


def _begin(sizes: np.ndarray, counts: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """k of the sizes [U, 2], all different: Arthur, Vassilvitskii, "k-means++", SODA 2007."""
    distance, chosen = np.ones(len(sizes)), []
    for _ in range(k):
        weights = counts * distance
        chosen.append(random.choice(len(sizes), p=weights / weights.sum()))
        distance = np.minimum(distance, 1 - _iou(sizes[chosen[-1:]], sizes)[0])
    return sizes[chosen]


def _fit(sizes: np.ndarray, counts: np.ndarray, anchors: np.ndarray) -> tuple[float, np.ndarray]:
    """Lloyd's steps from these anchors: the best average IoU on the way, and its anchors.

    Neither means nor medians are the best centres under IoU, so a step may make it worse; the last is not always best.
    """
    best, result, nearest = 0.0, anchors, None
    for _ in range(STEPS):
        iou = _iou(anchors, sizes)  # [k, U]
        before, nearest, overlap = nearest, iou.argmax(axis=0), iou.max(axis=0)
        average = float((counts * overlap).sum() / counts.sum())
        if average > best:
            best, result = average, anchors
        if before is not None and (before == nearest).all():
            break
        anchors = anchors.copy()
        for j in range(len(anchors)):
            own = nearest == j
            if own.any():
                anchors[j] = np.median(np.repeat(sizes[own], counts[own], axis=0), axis=0)
            else:  # an anchor that lost its boxes goes to the one that is served worst
                worst = overlap.argmin()
                anchors[j], overlap[worst] = sizes[worst], 1.0
    return best, result
