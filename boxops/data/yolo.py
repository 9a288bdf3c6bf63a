"""YOLO's text files: one per image, a row per object."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from boxops.data.checks import class_list, label_of
from boxops.data.dataset import DetectionDataset, Transform
from boxops.data.find import IMAGES, SPLITS, files_in, folders_in
from boxops.data.images import image_size
from boxops.data.records import BadData, Object, Problem
from boxops.data.splits import NoSuchSplit, aliases
from boxops.data.yolo_files import NAMES, class_names, described, find_description, listed, read_description, walk

SLACK = 0.01  # what a number may leave 0..1 by, as in ultralytics: rounding


class Yolo(DetectionDataset):
    """Rows ``class x y width height``, of the centre, or ``class x1 y1 x2 y2 x3 y3 ...`` of a polygon, as fractions
    of the image's sides (ultralytics, darknet; LabelImg's and CVAT's YOLO).

    ``data.yaml`` (docs.ultralytics.com, datasets/detect) or darknet's ``*.data`` says where the images of a split are,
    a folder, a list of folders or a file of names, and what the classes are called. Without one, a split is
    ``images/{split}``, ``{split}/images``, ``{split}`` or the file ``{split}.txt``; where there is none of these, the
    set is ``undivided``: all of ``images`` or of root. Labels are in ``labels`` where the images are in ``images``, or
    beside the images. An image without labels is one without objects.

    Args:
        root: the folder, or data.yaml; with ``images`` it may be None.
        annotations: data.yaml where it is elsewhere, or the folder of all labels.
        images: the folder of the images, in one set then, ``undivided``.
        classes: the names in the order of the labels; by default as in data.yaml, ``classes.txt`` or ``obj.names``.
            Where no file names them, these are the names of 0, 1, ...
        masks: whether samples and ``coco()`` have masks: the polygons.

    A polygon's box is the least around it. Of rows with keypoints (``kpt_shape`` in data.yaml) only the boxes are read.
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
    ) -> None:
        super().__init__(transform, on_bad, seed)
        self.has_masks = masks
        given = None if annotations is None else Path(annotations)
        labels = given if given is not None and given.is_dir() else None
        description = None if given == labels else given
        root = root if root is not None else description.parent if description is not None else images
        if root is None:
            raise ValueError("yolo: expected root, or annotations and images, got neither")
        base = Path(root)
        if base.is_file():
            description, base = description or base, base.parent
        description = description or find_description(base)
        about = {} if description is None else read_description(description)
        if images is not None and not Path(images).is_dir():
            raise FileNotFoundError(f"yolo: expected a folder as images, got {images}")
        if images is not None:
            paths, self.undivided = list(walk(Path(images))), True
        elif description is not None and any(name in about for name in SPLITS):
            paths = described(about, description, split)
        else:
            paths, self.undivided = _in_folders(base, split)
        found = [(path, _label_file(path, labels)) for path in paths]
        if not any(file.is_file() for _, file in found):
            at = f"{found[0][1]}, ..., got none for any of {len(found)} images" if found else f"{base}, got no image"
            raise BadData(f"yolo: expected labels in {at}")
        folders = dict.fromkeys([base, base / "labels", *(file.parent for _, file in found)])
        names = class_names(about, description, list(folders)) or list(classes or ())
        if not names:
            raise FileNotFoundError(f"yolo: expected the classes' names in data.yaml or {' or '.join(NAMES)} in "
                                    f"{base}, or as classes=[...], got none")  # fmt: skip
        if len(set(names)) < len(names):
            raise BadData(f"yolo: expected every class's name once in {description or base}, got {reprlib.repr(names)}")
        self.names = names
        self.classes = class_list(classes) if classes is not None else names
        self.category_ids = list(range(1, len(self.classes) + 1))
        self._labels = {name: label for label, name in enumerate(self.classes, 1)}
        shape = about.get("kpt_shape")
        self._columns = 4 + int(shape[0]) * int(shape[1]) if shape else None
        for number, (path, file) in enumerate(found, 1):
            with self.skipping(str(path), ""):
                size = image_size(path)
                self.add(file, path, number, size, [(place, (size, row)) for place, row in self._rows(file)])
        if labels is None:
            self._report_unseen(dict(found))
        self.finish()

    def _rows(self, file: Path) -> Iterator[tuple[str, list[str]]]:
        seen = set()
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines() if file.is_file() else []
        for number, line in enumerate(lines, 1):
            row = line.split()
            if tuple(row) in seen:
                self.report_problem(Problem(str(file), f"row {number}", f"expected every row once, got {line!r} again"))
            elif row:
                seen.add(tuple(row))
                yield f"row {number}", row

    def _report_unseen(self, found: dict[Path, Path]) -> None:
        """Labels without an image, where all images of a folder are of this split."""
        own = set(found.values())
        for images, labels in {path.parent: file.parent for path, file in found.items()}.items():
            if images != labels and all(path in found for path in files_in(images, *IMAGES)):
                lost = [file for file in files_in(labels, ".txt") if file not in own and file.name not in NAMES]
                if lost:
                    text = f"expected an image for each file, got none for {len(lost)}, such as {lost[0].name}"
                    self.report_problem(Problem(str(labels), "", text))

    def parse(self, raw: Any) -> Object:
        size, cells = raw
        try:
            label, *values = [float(cell) for cell in cells]
        except ValueError:
            raise ValueError(f"expected numbers, got {reprlib.repr(' '.join(cells))}") from None
        if not 0 <= label < len(self.names) or label != int(label):
            raise ValueError(f"expected a class of 0..{len(self.names) - 1}, got {cells[0]}")
        label = label_of(self._labels, self.names[int(label)])
        if self._columns is not None and len(values) == self._columns:
            values = values[:4]
        count = len(values)
        if count != 4 and (self._columns is not None or count < 6 or count % 2):
            expected = "the points of a polygon" if self._columns is None else f"{self._columns} numbers with keypoints"
            raise ValueError(
                f"expected class and x, y, width, height, or class and {expected}, got {count + 1} numbers"
            )
        if not all(-SLACK <= value <= 1 + SLACK for value in values):
            raise ValueError(f"expected parts of the image's sides, 0..1, got {reprlib.repr(' '.join(cells[1:]))}")
        if count == 4:
            (x, y), (width, height) = np.array(values[:2]) * size, np.array(values[2:]) * size
            return Object(label, [x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        points = np.array(values).reshape(-1, 2) * size
        box = [*points.min(0).tolist(), *points.max(0).tolist()]
        if not self.has_masks:
            return Object(label, box)
        (x, y), (x2, y2) = points.T, np.roll(points, 1, 0).T
        area = float(abs((x * y2 - x2 * y).sum()) / 2)
        return Object(label, box, area=area, segmentation=[points.ravel().tolist()])


def _in_folders(root: Path, split: str) -> tuple[list[Path], bool]:
    """The images of a split without a description, and whether there are no splits."""
    below = folders_in(root)
    images = folders_in(below["images"]) if "images" in below else {}
    parts = {
        name: images[name] if name in images else below[name] for name in (*below, *images) if name in (*SPLITS, split)
    }
    lists = {file.stem: file for file in files_in(root, ".txt") if file.stem in SPLITS}
    for name in aliases(split):
        if name in parts:
            return list(walk(parts[name])), False
        if name in lists:
            return list(listed(lists[name], [root])), False
    if parts or lists:
        raise NoSuchSplit(f"yolo: expected the split {split} in {root}, got {', '.join((*parts, *lists))}")
    paths = list(walk(below.get("images", root)))
    if not paths:
        raise FileNotFoundError(f"yolo: expected data.yaml or images in {root}, got "
                                f"{'none' if root.is_dir() else 'no such folder'}")  # fmt: skip
    return paths, True


def _label_file(image: Path, labels: Path | None) -> Path:
    """The text file of an image: ``labels`` takes the place of the last folder ``images`` of its path."""
    beside = image.with_name(f"{image.stem}.txt")
    if labels is not None:
        return labels / beside.name
    at = next((k for k in reversed(range(len(image.parts) - 1)) if image.parts[k].lower() == "images"), None)
    if at is None:
        return beside
    swapped = [Path(*image.parts[:at], name, *beside.parts[at + 1 :]) for name in ("labels", "Labels")]
    return next((file for file in [*swapped, beside] if file.is_file()), swapped[0])
