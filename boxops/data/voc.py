"""Pascal VOC: one xml file per image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from boxops.data.checks import label_of
from boxops.data.dataset import DetectionDataset, Transform
from boxops.data.records import BadData, Object, Problem

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Voc(DetectionDataset):
    """``root/JPEGImages``, ``root/Annotations/*.xml`` and ``root/ImageSets/Main/{split}.txt`` (Everingham et al. 2010).

    Args:
        classes: their names; by default all that the folder's annotations name, sorted, whatever the split.
        one_based: VOC's own corners count pixels from 1 and name the last pixel: x1 = xmin - 1, y1 = ymin - 1. By
            default corners are taken as they are, as in the files that most tools write.

    Objects marked difficult are kept: ``target["difficult"]``, and ``ignore`` in ``coco()``.
    """

    has_difficult = True

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        transform: Transform | None = None,
        on_bad: str = "skip",
        seed: int = 0,
        classes: list[str] | None = None,
        one_based: bool = False,
    ) -> None:
        super().__init__(transform, on_bad, seed)
        self.one_based = one_based
        root = Path(root)
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        if not listing.is_file():
            raise FileNotFoundError(f"voc: expected the images of the split in {listing}, got no such file")
        self.classes = list(classes) if classes is not None else _class_names(root / "Annotations")
        self.category_ids = list(range(1, len(self.classes) + 1))
        self._labels = {name: label for label, name in enumerate(self.classes, 1)}
        seen = set()
        for row, line in enumerate(listing.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
            name = line.strip()
            if name in seen:
                self.report_problem(
                    Problem(str(listing), f"row {row}", f"expected every image once, got {name!r} again")
                )
            elif name:
                seen.add(name)
                self._read(root, name, row)
        self.finish()

    def _read(self, root: Path, name: str, image_id: int) -> None:
        file = root / "Annotations" / f"{name}.xml"
        with self.skipping(str(file), ""):
            tree = _parse(file)
            size = tree.find("size")
            width, height = (0, 0) if size is None else (int(_number(size, side)) for side in ("width", "height"))
            raws = [(f"object {k}", thing) for k, thing in enumerate(tree.iterfind("object"), 1)]
            image = _image(root / "JPEGImages", name, tree.findtext("filename"))
            self.add(file, image, image_id, (width, height) if width > 0 and height > 0 else None, raws)

    def parse(self, raw: Any) -> Object:
        box = raw.find("bndbox")
        if box is None:
            raise ValueError("expected <bndbox>, got none")
        corners = [_number(box, corner) for corner in CORNERS]
        if self.one_based:
            corners[:2] = corners[0] - 1, corners[1] - 1
        difficult = raw.find("difficult") is not None and _number(raw, "difficult") != 0
        return Object(label_of(self._labels, (raw.findtext("name") or "").strip()), corners, difficult=difficult)


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError, LookupError) as error:  # LookupError: an unknown encoding
        raise ValueError(f"expected xml, got {error}") from error


def _number(parent: ElementTree.Element, tag: str) -> float:
    text = parent.findtext(tag)
    try:
        return float(text or "")
    except ValueError:
        raise ValueError(f"expected a number in <{tag}>, got {text!r}") from None


def _class_names(folder: Path) -> list[str]:
    names = set()
    for file in folder.glob("*.xml"):
        try:
            names |= {(thing.findtext("name") or "").strip() for thing in _parse(file).iterfind("object")}
        except ValueError:
            continue  # reported when its split is read
    if not names - {""}:
        raise BadData(f"voc: expected objects with names in {folder}/*.xml, got none")
    return sorted(names - {""})


def _image(folder: Path, name: str, filename: str | None) -> Path:
    """The image of that name, whatever its ending; or the one that the annotation names."""
    candidates = [folder / f"{name}{ending}" for ending in (".jpg", ".jpeg", ".png", ".JPG")]
    if filename:
        candidates.append(folder / filename)
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])
