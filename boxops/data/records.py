"""What the formats hand to the data set, and the records that it keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boxops.data import segmentation
from boxops.data.checks import check_keypoints, clip, numbers


@dataclass(frozen=True)
class Problem:
    """Something bad in the data: the file, the place in it, and what was expected and what came."""

    file: str
    place: str
    text: str

    def __str__(self) -> str:
        return ", ".join(part for part in (self.file, self.place) if part) + f": {self.text}"


class BadData(ValueError):
    """Data that cannot be used; ``problem`` says where and why."""

    def __init__(self, problem: Problem | str) -> None:
        super().__init__(str(problem))
        self.problem = problem if isinstance(problem, Problem) else Problem("", "", problem)


@dataclass(slots=True)
class Object:
    """One annotation as a format read it; only the label is checked."""

    label: int  # 1..C
    box: Any  # x1, y1, x2, y2 in pixels
    id: int = 0  # 0: the data set numbers it
    iscrowd: bool = False
    difficult: bool = False
    area: float | None = None  # None: the box's
    segmentation: Any = None  # as in COCO
    keypoints: Any = None  # x, y, visibility of each of K, one after another; None: none is labelled


class Window(NamedTuple):
    """The part of an upright image that a sample shows, in pixels."""

    x1: int
    y1: int
    x2: int
    y2: int
    whole: tuple[int, int]  # width and height of the image


@dataclass(slots=True)
class Record:
    """One image and its G objects, all checked, in arrays: workers share these, and a large set has millions."""

    path: Path | None
    id: int
    width: int
    height: int
    boxes: np.ndarray  # float32 [G, 4] xyxy, inside the image
    labels: np.ndarray  # int64 [G]
    ids: np.ndarray  # int64 [G]
    iscrowd: np.ndarray  # int64 [G]
    difficult: np.ndarray  # bool [G]
    area: np.ndarray  # float32 [G]
    segmentations: list[bytes]  # json of each, empty without masks
    keypoints: np.ndarray | None  # float32 [G, K, 3]
    window: Window | None = None  # the image is this part of the file's; all else is in its frame

    @property
    def counted(self) -> np.ndarray:
        """bool [G]: all objects but crowds and what VOC calls difficult."""
        counted: np.ndarray = (self.iscrowd == 0) & ~self.difficult
        return counted


def pack(
    path: Path | None,
    image_id: int,
    size: tuple[int, int],
    objects: Sequence[Object],
    keypoints: int | None,
    masks: bool,
) -> Record:
    """The record of an image of size (width, height) and its checked objects."""
    boxes = np.array([o.box for o in objects], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [side.prod() if o.area is None else o.area for o, side in zip(objects, sides, strict=True)]
    return Record(
        path,
        image_id,
        *size,
        boxes=boxes,
        labels=np.array([o.label for o in objects], np.int64),
        ids=np.array([o.id for o in objects], np.int64),
        iscrowd=np.array([o.iscrowd for o in objects], np.int64),
        difficult=np.array([o.difficult for o in objects], bool),
        area=np.array(areas, np.float32),
        segmentations=[json.dumps(o.segmentation).encode() for o in objects] if masks else [],
        keypoints=None
        if keypoints is None
        else np.array([o.keypoints for o in objects], np.float32).reshape(-1, keypoints, 3),
    )


ARRAYS = ("boxes", "labels", "ids", "iscrowd", "difficult", "area")  # of a record, [G, ...]


def take(record: Record, objects: np.ndarray) -> Record:
    """The record with these of its objects, int64 [K], alone."""
    arrays = {name: getattr(record, name)[objects] for name in ARRAYS}
    masks = [record.segmentations[g] for g in objects] if record.segmentations else []
    keypoints = None if record.keypoints is None else record.keypoints[objects]
    return replace(record, **arrays, segmentations=masks, keypoints=keypoints)


def check(thing: Object, size: tuple[int, int], keypoints: int | None, masks: bool) -> float:
    """Checks the object in place and clips its box; by how many pixels this was outside of the image."""
    width, height = size
    thing.box, outside = clip(thing.box, width, height)
    if thing.area is not None:
        (thing.area,) = numbers([thing.area], 1, " for the area")
    if masks:
        segmentation.check(thing.segmentation, height, width)
    if keypoints is not None:
        thing.keypoints = check_keypoints(thing.keypoints, keypoints)
    return outside


def to_coco(
    records: Sequence[Record], classes: list[str], category_ids: list[int], keypoint_names: list[str] | None
) -> dict[str, Any]:
    """What COCO's json of the records would hold."""
    points = {} if keypoint_names is None else {"keypoints": keypoint_names, "skeleton": []}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        name = str(record.path or record.id)
        images.append({"id": record.id, "width": record.width, "height": record.height, "file_name": name})
        for g, (x1, y1, x2, y2) in enumerate(record.boxes.tolist()):
            annotation = {
                "id": int(record.ids[g]) or len(annotations) + 1,  # 0 means unmatched to COCO's evaluation
                "image_id": record.id,
                "category_id": category_ids[record.labels[g] - 1],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(record.area[g]),
                "iscrowd": int(record.iscrowd[g]),
                "ignore": int(record.difficult[g]),
            }
            if record.segmentations:
                annotation["segmentation"] = json.loads(record.segmentations[g])
            if record.keypoints is not None:
                annotation["keypoints"] = record.keypoints[g].ravel().tolist()
                annotation["num_keypoints"] = int((record.keypoints[g, :, 2] > 0).sum())
            annotations.append(annotation)
    categories = [{"id": i, "name": name, **points} for i, name in zip(category_ids, classes, strict=True)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}
