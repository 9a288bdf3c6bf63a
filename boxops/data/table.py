"""CSV: one row per object."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from boxops.data import columns
from boxops.data.checks import class_list, label_of
from boxops.data.columns import COLUMNS, is_number
from boxops.data.dataset import DetectionDataset, Transform
from boxops.data.images import image_size
from boxops.data.places import annotation_file, find_images, image_folders
from boxops.data.records import BadData, Object, Problem


class Row(NamedTuple):
    """An object, or an image without one, in the texts of the file; ``""`` where it has none."""

    place: str
    image: str
    name: str
    box: list[str]
    size: list[str]  # width and height of the image
    crowd: str


class Table(DetectionDataset):
    """A csv file of a row per object: image, class and box; ``image,,,,,`` is an image without objects.

    Columns are known by their names in the first row, in any order and case; others are ignored, with a note:

    - image: ``image``, ``filename``, ``file``, ``path``, ``ImageID`` (an ending may be missing);
    - class: ``class``, ``label``, ``category``, ``LabelName``, ``name``; without one all objects are of one class;
    - box: ``xmin,ymin,xmax,ymax``, ``x1,y1,x2,y2`` or ``left,top,right,bottom``; ``x,y,width,height`` or ``x,y,w,h``
      of the left upper corner; ``xcenter,ycenter,width,height``; each may begin with ``bbox_``;
    - ``width,height`` beside corners, or ``image_width,image_height``: of the image, left out if it has another size;
    - ``IsGroupOf``, ``iscrowd``: of a crowd.

    Without such a row the columns are ``image,class,xmin,ymin,xmax,ymax``; ``image,xmin,ymin,xmax,ymax,class``
    (keras-retinanet); or the eight of TensorFlow's tutorials, ``filename,width,height,class,xmin,ymin,xmax,ymax``:
    in which more rows are boxes. Cells are divided by comma, semicolon or tab. Coordinates are pixels, or where most
    rows have parts of 1, and in Open Images' files, parts of the image's sides: these are scaled, with a note.

    Args:
        root: the csv file, or a folder with the split's: ``{split}.csv``, ``{split}/_annotations.csv``,
            ``{split}_labels.csv``, or the only one there is, ``undivided`` then, as is a file that is named.
        annotations: the file, where it is elsewhere.
        images: the folder of the images; by default they are looked for in the split's folder, in ``images``, beside
            the file, and in root.
        classes: the names of the categories; by default all in the file, sorted. Give them where the splits may differ.

    The images of a file are in the order of their first rows.
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
    ) -> None:
        super().__init__(transform, on_bad, seed)
        given = None if classes is None else class_list(classes)
        file, self.undivided = annotation_file(
            "csv", root, annotations, split, suffix=".csv", preferred=(f"{split}.csv", "_annotations"),
            fits=lambda file: columns.first_cells(file) >= 5,
            examples=(f"{split}.csv", f"{split}/_annotations.csv", f"{split}_labels.csv or one csv for all"),
        )  # fmt: skip
        rows = self._read(file, given)
        self.classes = given or sorted({row.name for row in rows if row.name})
        if not self.classes:
            raise BadData(f"{file}: expected objects or classes, got neither")
        self.category_ids = list(range(1, len(self.classes) + 1))
        self._labels = {name: label for label, name in enumerate(self.classes, 1)}
        self._scaled = self._are_scaled(file, rows)
        folders = image_folders(root, images, split, file, self.undivided)
        found = find_images("csv", file, (row.image for row in rows), folders)
        by_image: dict[Path, list[Row]] = {}
        for row in rows:
            by_image.setdefault(found.get(row.image, folders[0] / row.image), []).append(row)
        for image_id, (path, own) in enumerate(by_image.items(), 1):
            with self.skipping(str(file), own[0].place):
                size = self._size(path, own)
                things = [(row.place, (row, size)) for row in own if row.name or any(row.box)]
                self.add(file, path, image_id, size, things)
        self.finish()

    def _read(self, file: Path, classes: list[str] | None) -> list[Row]:
        lines: list[tuple[str, list[str]]] = []
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = None
            try:
                delimiter = columns.delimiter_of(next((line for line in opened if line.strip()), ""))
                opened.seek(0)
                reader = csv.reader(opened, delimiter=delimiter, skipinitialspace=True, strict=True)
                for cells in reader:
                    row = [cell.strip() for cell in cells]
                    if any(row):
                        lines.append((f"row {reader.line_num}", row))
            except (csv.Error, UnicodeDecodeError) as error:
                place = f"row {reader.line_num + 1 if reader else 1}"
                raise BadData(Problem(str(file), place, f"expected rows of {COLUMNS}, got {error}")) from error
        try:
            self._columns, first = columns.find([row for _, row in lines], classes)
        except ValueError as error:
            raise BadData(Problem(str(file), lines[0][0] if lines else "", str(error))) from error
        self.notes += [f"{file}: {note}" for note in self._columns.notes]
        rows = []
        for place, row in lines[first:]:
            with self.skipping(str(file), place):
                rows.append(Row(place, *self._columns.of(row)))
        return rows

    def _are_scaled(self, file: Path, rows: Sequence[Row]) -> bool:
        """Whether coordinates are parts of the image's sides: no box in pixels is smaller than one."""
        boxes = [[float(cell) for cell in row.box] for row in rows if all(map(is_number, row.box))]
        parts = [all(-0.1 <= x <= 1.1 for x in box) and not all(x.is_integer() for x in box) for box in boxes]
        scaled = self._columns.scaled or 2 * sum(parts) > len(parts)
        if scaled:
            self.notes.append(f"{file}: coordinates are parts of the images' sides (0 to 1): scaled to pixels")
        return scaled

    def _size(self, path: Path, rows: Sequence[Row]) -> tuple[int, int] | None:
        """Width and height of the image as the file gives them or, where it does not, as the image has them."""
        told = {
            tuple(int(float(side)) for side in row.size) for row in rows if row.size and all(map(is_number, row.size))
        }
        sizes = [(width, height) for width, height in sorted(told) if width > 0 and height > 0]
        if not path.is_file() or not (sizes or self._scaled):
            return None
        actual = image_size(path)
        for size in sizes:
            if sorted(size) != sorted(actual):  # a turned one is for the image's reader to judge
                expected, got = (f"{width} x {height}" for width, height in (size, actual))
                raise ValueError(f"expected an image of {expected}, got {path} of {got}; left out")
        return sizes[0] if sizes else actual

    def parse(self, raw: Any) -> Object:
        row, size = raw
        if not all(map(is_number, row.box)):
            raise ValueError(f"expected 4 numbers for a box, got {row.box}")
        box = [float(cell) for cell in row.box]
        if self._scaled:
            if not all(-0.1 <= x <= 1.1 for x in box):
                raise ValueError(
                    f"expected a box in parts of the image's sides, 0 to 1 as in other rows, got {row.box}"
                )
            box = [x * side for x, side in zip(box, (*size, *size), strict=True)]
        box = self._columns.corners(box)
        if row.crowd.lower() not in ("", "0", "1", "0.0", "1.0", "false", "true", "-1"):  # -1: not known
            raise ValueError(f"expected 0 or 1 for a crowd, got {row.crowd!r}")
        crowd = row.crowd.lower() in ("1", "1.0", "true")
        return Object(label_of(self._labels, row.name), box, iscrowd=crowd)
