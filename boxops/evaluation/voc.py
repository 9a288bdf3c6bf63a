"""Pascal VOC's average precision. Everingham et al. 2010, "The PASCAL VOC Challenge", section 4.2, and its devkit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

import boxops

Row = Mapping[str, Any]
Images = dict[int, list[Row]]


def voc_ap(
    ground_truth: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    image_ids: Collection[int] | None = None,
    iou_threshold: float = 0.5,
    eleven_points: bool = False,
) -> dict[str, float]:
    """VOC's AP of boxes.

    By descending score, a detection is true if its IoU with the best box of its class reaches the threshold and the box
    was not found before. A detection whose best box is difficult (``ignore``, or ``iscrowd``) is not counted.

    Args:
        ground_truth: as in COCO's json. Widths are x2 - x1: where VOC's inclusive corners are read as boxes from
            xmin - 1 to xmax, as ``Voc(one_based=True)`` does, IoUs are the devkit's.
        rows: ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height) of each detection.
        image_ids: the images that count; all of the ground truth if None.
        eleven_points: VOC 2007's mean of the precision at recalls 0, 0.1, ..., 1; else the area under the curve (2010
            and later).

    Returns:
        ``VOC_AP``, the mean over the classes with objects that are not difficult, and ``VOC_AP/NAME`` of each class; -1
        where there is nothing to find.
    """
    counted = set(image_ids) if image_ids is not None else {image["id"] for image in ground_truth["images"]}
    objects, found = _by_class(ground_truth["annotations"], counted), _by_class(rows, counted)
    ap = {
        category["name"]: _class_ap(objects[category["id"]], found[category["id"]], iou_threshold, eleven_points)
        for category in ground_truth["categories"]
    }
    known = [value for value in ap.values() if value >= 0]
    mean = float(np.mean(known)) if known else -1.0
    return {"VOC_AP": mean, **{f"VOC_AP/{name}": value for name, value in ap.items()}}


def _by_class(rows: Sequence[Row], images: set[int]) -> dict[int, Images]:
    classes: dict[int, Images] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["image_id"] in images:
            classes[row["category_id"]][row["image_id"]].append(row)
    return classes


def _class_ap(objects: Images, found: Images, threshold: float, eleven_points: bool) -> float:
    easy = sum(not _difficult(thing) for things in objects.values() for thing in things)
    if not easy:
        return -1.0
    scored = []  # score, the object it finds or None, whether that is difficult
    for image, detections in found.items():
        things = objects.get(image, [])
        best = np.full(len(detections), -1)
        if things:
            iou = boxops.box_iou(_boxes(detections), _boxes(things))
            best = np.where(iou.max(1) >= threshold, iou.argmax(1), -1)
        for row, g in zip(detections, best.tolist(), strict=True):
            scored.append((row["score"], None if g < 0 else (image, g), g >= 0 and _difficult(things[g])))
    scored.sort(key=lambda entry: -entry[0])
    taken, true = set(), []
    for _, thing, difficult in scored:
        if not difficult:
            true.append(thing is not None and thing not in taken)
            taken.add(thing)
    hits = np.cumsum(true)
    return average_precision(hits / easy, hits / np.arange(1, len(true) + 1), eleven_points)


def average_precision(recall: np.ndarray, precision: np.ndarray, eleven_points: bool = False) -> float:
    """AP of a curve of ascending recall, both ``[D]``."""
    if eleven_points:
        return float(np.mean([max(precision[recall >= t], default=0.0) for t in np.arange(11) / 10]))
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]  # the precision at this recall or more
    return float(np.sum(np.diff(recall, prepend=0.0) * best_beyond))


def _difficult(thing: Row) -> bool:
    return bool(thing.get("ignore") or thing.get("iscrowd"))


def _boxes(rows: Sequence[Row]) -> np.ndarray:
    boxes = np.array([row["bbox"] for row in rows], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
