"""ILSVRC's classification and localization of one object. Russakovsky et al. 2015, "ImageNet Large Scale Visual
Recognition Challenge", section 4.1 and 4.2, here of the detection of the highest score alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

import boxops

Row = Mapping[str, Any]


def localization(
    ground_truth: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    image_ids: Collection[int] | None = None,
    iou_threshold: float = 0.5,
) -> dict[str, float]:
    """How often an image's detection of the highest score has the class of its object, and how well it lies.

    Args:
        ground_truth: as in COCO's json, one object an image.
        rows: ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height) of each detection; of an image
            the one of the highest score counts, the first of several. Without one, class and box are wrong.
        image_ids: the images that count; all of the ground truth if None.

    Returns:
        Over the images: ``LOC_correct``, the share in which the class is right and the IoU at least the threshold (1 -
        ILSVRC's localization error); ``LOC_accuracy``, the share in which the class is right; ``LOC_IoU``, the mean IoU
        of detection and object, whatever the classes. Then each of them over the images of each class, as
        ``LOC_correct/NAME``; -1 where there are none.

    Raises:
        ValueError: an image has no object, several, or one that does not count (``iscrowd``, ``ignore``).
    """
    counted = sorted(set(image_ids) if image_ids is not None else {image["id"] for image in ground_truth["images"]})
    objects: dict[int, list[Row]] = {image: [] for image in counted}
    for annotation in ground_truth["annotations"]:
        if annotation["image_id"] in objects and not annotation.get("ignore") and not annotation.get("iscrowd"):
            objects[annotation["image_id"]].append(annotation)
    for image, own in objects.items():
        if len(own) != 1:
            raise ValueError(f"localization: expected one object in each image, got {len(own)} in image {image}: "
                             "one_object=true gives data of one object an image")  # fmt: skip
    best: dict[int, Row] = {}
    for row in rows:
        image = row["image_id"]
        if image in objects and (image not in best or row["score"] > best[image]["score"]):
            best[image] = row
    nothing = {"category_id": None, "bbox": [0.0] * 4}
    things, found = [objects[image][0] for image in counted], [best.get(image, nothing) for image in counted]
    labels = np.array([thing["category_id"] for thing in things])
    right = np.array([a["category_id"] == b["category_id"] for a, b in zip(things, found, strict=True)], bool)
    iou = boxops.box_iou(_boxes(found), _boxes(things), fmt="xywh", paired=True)
    values = {"correct": right & (iou >= iou_threshold), "accuracy": right, "IoU": iou}
    metrics = {f"LOC_{name}": _mean(value) for name, value in values.items()}
    for category in ground_truth["categories"]:
        own = labels == category["id"]
        metrics |= {f"LOC_{name}/{category['name']}": _mean(value[own]) for name, value in values.items()}
    return metrics


def _boxes(rows: Sequence[Row]) -> np.ndarray:
    return np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else -1.0
