"""COCO json: boxes, masks, keypoints and crowds."""

from __future__ import annotations

import itertools
import json
import reprlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from boxops.data import segmentation
from boxops.data.checks import Id, class_list, identity, integer, label_of, numbered, numbers
from boxops.data.dataset import DetectionDataset, Transform
from boxops.data.places import annotation_file, find_images, image_folders
from boxops.data.records import BadData, Object, Problem

KEYS = ("images", "annotations", "categories")


class Coco(DetectionDataset):
    """A json file of ``images``, ``annotations`` and ``categories`` (Lin et al. 2014; cocodataset.org, data format).

    Args:
        root: the folder, or the file; with ``annotations`` it may be None.
        annotations: the file; by default the json in root, or in a folder there, whose name or folder has the split's
            as a word: ``annotations/instances_val2017.json`` (``person_keypoints`` with keypoints), COCO's own,
            ``valid/_annotations.coco.json`` (Roboflow), ``val.json``. Where none has any split's, the only json there
            is, ``annotations/instances_default.json`` (CVAT) or ``result.json`` (Label Studio): ``undivided``, as is a
            file that is named here.
        images: the folder of the images; by default they are looked for in the split's folder, in ``images``, beside
            the file, and in root. Where names in the file are paths of another machine, their ends are taken.
        classes: the names of the classes, label 1 first; the file may lack some, but has no others. By default
            ``categories``, in their order.
        masks: whether samples and ``coco()`` have masks: decoding them takes time.
        keypoints: whether they have keypoints.

    Crowds stay, with iscrowd = 1. What has one meaning is read: ids such as 1.0 and "1"; ids that are other texts,
    which are numbered from 1; annotations without id; null for iscrowd, area and annotations; a width or height that is
    missing or not positive, read from the image; a box that is missing, of the segmentation; a polygon that is not in a
    list; ``coco_url`` for a file name. Roboflow's first category, which is the others' supercategory and has no
    annotations, is no class.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        split: str = "train",
        transform: Transform | None = None,
        on_bad: str = "skip",
        seed: int = 0,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        classes: list[str] | None = None,
        masks: bool = False,
        keypoints: bool = False,
    ) -> None:
        super().__init__(transform, on_bad, seed)
        self.has_masks = masks
        names = None if classes is None else class_list(classes)
        first = "person_keypoints" if keypoints else "instances"
        file, self.undivided = annotation_file(
            "coco", root, annotations, split, suffix=".json", preferred=(first, "instances", "_annotations.coco"),
            fits=_is_coco, examples=(f"annotations/{first}_{split}.json", f"{split}/_annotations.coco.json",
                                     f"{split}.json or one json for all"))  # fmt: skip
        data = _read(file)
        self._read_categories(file, data, keypoints, names)
        if masks and data["annotations"] and not any(
            isinstance(raw, dict) and raw.get("segmentation") for raw in data["annotations"]
        ):  # fmt: skip
            raise BadData(f"{file}: expected segmentations (masks=True), got none")
        by_image = self._group(file, data["annotations"])
        entries = self._entries(file, data["images"])
        folders = image_folders(root, images, split, file, self.undivided)
        paths = find_images("coco", file, (name for name, _ in entries.values()), folders)
        number = numbered(entries)
        if any(isinstance(image_id, str) for image_id in entries):
            self.notes.append(f"{file}: ids of images are texts; they are numbered from 1 here")
        for image_id, (name, size) in entries.items():
            path = paths.get(name, folders[0] / name)
            self.add(file, path, number[image_id], size, by_image.pop(image_id, ()))
        for image_id, things in by_image.items():
            for place, _ in things:
                self.report_problem(Problem(str(file), place, f"expected the id of an image, got {image_id}"))
        self.finish()

    def _read_categories(self, file: Path, data: dict[str, Any], keypoints: bool, classes: list[str] | None) -> None:
        categories = data["categories"]
        try:
            if not categories:
                raise ValueError("expected at least one with id and name, got []")
            ids = [identity(_field(raw, "id"), "id") for raw in categories]
            names = [_name(raw) for raw in categories]
            wanted = classes is not None and names[0] in classes and names[0] not in names[1:]
            if not wanted and _is_group(categories, ids[0], data["annotations"]):
                self.notes.append(f"{file}: category {names[0]!r} groups the others and has no objects: no class")
                ids, names = ids[1:], names[1:]
            for what, values in (("ids", ids), ("names", names)):
                if len(set(values)) != len(values):
                    raise ValueError(f"expected {what}, each once, got {reprlib.repr(values)}")
            self.classes = names if classes is None else classes
            if unknown := [name for name in names if name not in self.classes]:
                raise ValueError(f"expected the classes {self.classes}, got {unknown} too")
        except ValueError as error:
            raise BadData(Problem(str(file), "categories", str(error))) from error
        number = numbered(ids)
        own = {name: number[category] for name, category in zip(names, ids, strict=True)}
        others = itertools.count(max(own.values()) + 1)  # for classes that the file lacks
        self.category_ids = [own[name] if name in own else next(others) for name in self.classes]
        self._labels = {category: self.classes.index(name) + 1 for name, category in zip(names, ids, strict=True)}
        if keypoints:
            named = [raw["keypoints"] for raw in categories if raw.get("keypoints")]
            if not named or not isinstance(named[0], list) or any(names != named[0] for names in named):
                raise BadData(Problem(str(file), "categories", f"expected one list of keypoint names, got {named}"))
            self.keypoint_names = [str(name) for name in named[0]]
            self.keypoint_flip = flip_of(self.keypoint_names)

    def _group(self, file: Path, annotations: list[Any]) -> dict[Id, list[tuple[str, Any]]]:
        """The annotations by image, as (place, annotation). Those without an id of 1 and more get one."""
        by_image: dict[Id, list[tuple[str, Any]]] = defaultdict(list)
        seen: set[Id] = set()
        without = []
        for k, raw in enumerate(annotations):
            place = _place("annotations", k, raw)
            with self.skipping(str(file), place):
                image = identity(_field(raw, "image_id"), "image_id")
                own = raw.get("id")
                if own is not None:
                    own = identity(own, "id")
                    if own in seen:
                        raise ValueError(f"expected every annotation id once, got {own} again")
                    seen.add(own)
                if isinstance(own, int) and own > 0:
                    raw["id"] = own
                else:
                    without.append(raw)
                by_image[image].append((place, raw))
        unused = itertools.count(max((own for own in seen if isinstance(own, int)), default=0) + 1)
        for raw in without:
            raw["id"] = next(unused)
        return by_image

    def _entries(self, file: Path, images: list[Any]) -> dict[Id, tuple[str, tuple[int, int] | None]]:
        """Name and size of the images by id."""
        entries: dict[Id, tuple[str, tuple[int, int] | None]] = {}
        for k, raw in enumerate(images):
            with self.skipping(str(file), _place("images", k, raw)):
                image_id = identity(_field(raw, "id"), "id")
                name = raw.get("file_name")
                if not name and isinstance(url := raw.get("coco_url"), str):  # LVIS
                    name = "/".join(url.split("/")[-2:])
                if not isinstance(name, str) or not name:
                    raise ValueError(f"expected file_name, a text, got {name!r}")
                if image_id in entries:
                    raise ValueError(f"expected every image id once, got {image_id} again")
                sides = [raw.get("width"), raw.get("height")]
                width, height = (0 if side is None else integer(side, "width and height") for side in sides)
                entries[image_id] = name, (width, height) if width > 0 and height > 0 else None
        return entries

    def parse(self, raw: Any) -> Object:
        label = label_of(self._labels, identity(_field(raw, "category_id"), "category_id"))
        shape = raw.get("segmentation")
        if self.has_masks or not raw.get("bbox"):
            shape = _polygons(shape)
        if not raw.get("bbox") and shape:
            box = segmentation.box(shape)
        else:
            x, y, width, height = numbers(_field(raw, "bbox"), 4, " for a box")
            if width <= 0 or height <= 0:  # before the sum, which may round it away
                raise ValueError(f"expected a box of positive width and height, got {raw['bbox']}")
            box = [x, y, x + width, y + height]
        crowd = raw.get("iscrowd") or 0
        if (integer(crowd, "iscrowd") if isinstance(crowd, str) else crowd) not in (0, 1):
            raise ValueError(f"expected iscrowd of 0 or 1, got {crowd!r}")
        area = raw.get("area")
        if isinstance(area, (int, float)) and area < 0:  # not known
            area = None
        return Object(label, box, raw["id"], crowd not in (0, "0"), False, area, shape, raw.get("keypoints"))


def flip_of(names: list[str]) -> list[int]:
    """For each keypoint the index of what it is in a mirror, from left and right in the names."""
    index = {name: k for k, name in enumerate(names)}
    swap = {"left": "right", "right": "left"}
    return [
        next((index[m] for a, b in swap.items() if a in name and (m := name.replace(a, b)) in index), k)
        for k, name in enumerate(names)
    ]


def _field(raw: Any, key: str) -> Any:
    if not isinstance(raw, dict):
        raise ValueError(f"expected an object of json, got {type(raw).__name__}")
    if key not in raw:
        raise ValueError(f"expected the key {key!r}, got {', '.join(map(str, raw)) or 'none'}")
    return raw[key]


def _place(name: str, k: int, raw: Any) -> str:
    return f"{name}[{k}]" + (f" (id {raw['id']})" if isinstance(raw, dict) and raw.get("id") is not None else "")


def _name(raw: Any) -> str:
    name = _field(raw, "name")
    if name is None or not str(name).strip():
        raise ValueError(f"expected the name of a category, got {name!r}")
    return str(name)


def _is_group(categories: list[Any], first_id: Id, annotations: list[Any]) -> bool:
    """Whether the first category is what Roboflow adds: the others' supercategory, which no annotation has."""
    first, *others = categories
    return (
        first.get("supercategory") == "none"
        and bool(others)
        and all(other.get("supercategory") == first["name"] for other in others)
        and not any(isinstance(raw, dict) and raw.get("category_id") == first_id for raw in annotations)
    )


def _polygons(value: Any) -> Any:
    """A polygon without a list around it, of numbers or of points, gets one; numbers that are texts become numbers."""
    if isinstance(value, list) and value and not isinstance(value[0], (list, dict)):
        value = [value]
    elif isinstance(value, list) and value and all(isinstance(point, list) and len(point) == 2 for point in value):
        value = [[x for point in value for x in point]]
    if isinstance(value, list) and any(isinstance(polygon, list) and str in map(type, polygon) for polygon in value):
        value = [numbers(polygon, what=" for a polygon") for polygon in value]
    return value


def _is_coco(file: Path) -> bool:
    data = file.read_bytes()
    return all(f'"{key}"'.encode() in data for key in KEYS)


def _read(file: Path) -> dict[str, list[Any]]:
    try:
        data = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise BadData(Problem(str(file), place, f"expected json, got {error.msg}")) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or numbers or brackets without end
        raise BadData(Problem(str(file), "", f"expected json, got {error}")) from error
    if isinstance(data, dict) and "annotations" in data and data["annotations"] is None:
        data["annotations"] = []
    for key in KEYS:
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise BadData(Problem(str(file), "", f"expected lists images, annotations and categories, got no {key}"))
    return data
