"""COCO json: boxes, masks, keypoints and crowds."""

from __future__ import annotations

import json
import reprlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from boxops.data.checks import integer, label_of, numbers
from boxops.data.dataset import DetectionDataset, Transform
from boxops.data.records import BadData, Object, Problem


class Coco(DetectionDataset):
    """A json file of ``images``, ``annotations`` and ``categories`` (Lin et al. 2014; cocodataset.org, data format).

    Args:
        root: the folder; with ``annotations`` and ``images`` it may be None.
        annotations: the file; by default ``root/annotations/instances_{split}*.json`` (``person_keypoints`` with
            keypoints) or, for every split, ``root/instances.json``.
        images: the folder of the images; by default ``root/{split}``, ``root/{split}2017`` or as the file's
            name ends, or ``root/images``.
        masks: whether samples and ``coco()`` have masks: decoding them takes time.
        keypoints: whether they have keypoints.

    Labels follow the order of ``categories``. Crowds stay, with iscrowd = 1.
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
        masks: bool = False,
        keypoints: bool = False,
    ) -> None:
        super().__init__(transform, on_bad, seed)
        self.has_masks = masks
        if root is None and (annotations is None or images is None):
            raise ValueError("coco: expected root, or both annotations and images, got neither")
        root = Path(root or ".")
        file = Path(annotations) if annotations is not None else _find_annotations(root, split, keypoints)
        folder = Path(images) if images is not None else _find_images(root, split, file)
        data = _read(file)
        self._read_categories(file, data["categories"], keypoints)
        if masks and data["annotations"] and not any(
            isinstance(raw, dict) and raw.get("segmentation") for raw in data["annotations"]
        ):  # fmt: skip
            raise BadData(f"{file}: expected segmentations (masks=True), got none")
        by_image = self._group(file, data["annotations"])
        seen = set()
        for k, raw in enumerate(data["images"]):
            with self.skipping(str(file), _place("images", k, raw)):
                image_id = integer(_field(raw, "id"), "id")
                name = _field(raw, "file_name")
                if not isinstance(name, str) or not name:
                    raise ValueError(f"expected file_name, a text, got {name!r}")
                if image_id in seen:
                    raise ValueError(f"expected every image id once, got {image_id} again")
                seen.add(image_id)
                size = (raw["width"], raw["height"]) if "width" in raw and "height" in raw else None
                if size is not None and not all(integer(side, "width and height") > 0 for side in size):
                    raise ValueError(f"expected width and height of 1 and more, got {size}")
                self.add(file, folder / name, image_id, size, by_image.pop(image_id, ()))
        for image_id, things in by_image.items():
            if image_id not in seen:
                for place, _ in things:
                    self.report_problem(Problem(str(file), place, f"expected the id of an image, got {image_id}"))
        self.finish()

    def _read_categories(self, file: Path, categories: list[Any], keypoints: bool) -> None:
        try:
            self.category_ids = [integer(_field(raw, "id"), "id") for raw in categories]
            self.classes = [str(_field(raw, "name")) for raw in categories]
        except ValueError as error:
            raise BadData(Problem(str(file), "categories", str(error))) from error
        self._labels = {category: label for label, category in enumerate(self.category_ids, 1)}
        if len(self._labels) != len(categories) or not categories:
            raise BadData(
                Problem(str(file), "categories", f"expected ids, each once, got {reprlib.repr(self.category_ids)}")
            )
        if keypoints:
            named = [raw["keypoints"] for raw in categories if raw.get("keypoints")]
            if not named or not isinstance(named[0], list) or any(names != named[0] for names in named):
                raise BadData(Problem(str(file), "categories", f"expected one list of keypoint names, got {named}"))
            self.keypoint_names = [str(name) for name in named[0]]
            self.keypoint_flip = flip_of(self.keypoint_names)

    def _group(self, file: Path, annotations: list[Any]) -> dict[int, list[tuple[str, Any]]]:
        """The annotations by image, as (place, annotation)."""
        by_image, seen = defaultdict(list), set()
        for k, raw in enumerate(annotations):
            place = _place("annotations", k, raw)
            with self.skipping(str(file), place):
                own, image = integer(_field(raw, "id"), "id"), integer(_field(raw, "image_id"), "image_id")
                if own in seen:
                    raise ValueError(f"expected every annotation id once, got {own} again")
                seen.add(own)
                by_image[image].append((place, raw))
        return by_image

    def parse(self, raw: Any) -> Object:
        label = label_of(self._labels, _field(raw, "category_id"))
        x, y, width, height = numbers(_field(raw, "bbox"), 4, " for a box")
        if width <= 0 or height <= 0:  # before the sum, which may round it away
            raise ValueError(f"expected a box of positive width and height, got {raw['bbox']}")
        crowd = raw.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise ValueError(f"expected iscrowd of 0 or 1, got {crowd!r}")
        box = [x, y, x + width, y + height]
        return Object(label, box, raw["id"], bool(crowd), False, raw.get("area"), raw.get("segmentation"),
                      raw.get("keypoints"))  # fmt: skip


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
    return f"{name}[{k}]" + (f" (id {raw['id']})" if isinstance(raw, dict) and "id" in raw else "")


def _read(file: Path) -> dict[str, list[Any]]:
    try:
        data = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise BadData(Problem(str(file), place, f"expected json, got {error.msg}")) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, or numbers or brackets without end
        raise BadData(Problem(str(file), "", f"expected json, got {error}")) from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise BadData(Problem(str(file), "", f"expected lists images, annotations and categories, got no {key}"))
    return data


def _find_annotations(root: Path, split: str, keypoints: bool) -> Path:
    name = f"{'person_keypoints' if keypoints else 'instances'}_{split}*.json"
    found = sorted([*(root / "annotations").glob(name), *root.glob(name)])
    if not found and (root / "instances.json").is_file():
        return root / "instances.json"
    if len(found) != 1:
        places = f"{root}/annotations/{name} or {root}/instances.json"
        raise FileNotFoundError(f"coco: expected one file {places}, got {[str(path) for path in found] or 'none'}")
    return found[0]


def _find_images(root: Path, split: str, file: Path) -> Path:
    folders = [root / name for name in (split, file.stem.split("_")[-1], f"{split}2017", "images")]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"coco: expected the images in {', '.join(map(str, folders))}, got no such folder")
