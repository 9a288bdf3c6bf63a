"""What the columns of a csv file are: by the names in its first row, or by which of them make boxes."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from boxops.data.places import is_image_name

COLUMNS = "image,category,xmin,ymin,xmax,ymax"
# What people call a column, without case, spaces, underscores and a bbox in front; the first that is there is taken.
IMAGE = ["image", "imageid", "imagename", "imagepath", "imagefile", "filename", "filepath", "file", "path", "img"]
CLASS = ["class", "classname", "category", "categoryname", "label", "labelname", "name",
         "classid", "categoryid", "labelid"]  # fmt: skip
LEFT, TOP = ["xmin", "x1", "left"], ["ymin", "y1", "top"]
WIDTH, HEIGHT = ["w", "width"], ["h", "height"]
BOXES: dict[str, tuple[list[str], ...]] = {
    "corners": (LEFT, TOP, ["xmax", "x2", "right"], ["ymax", "y2", "bottom"]),
    "size": (["x", *LEFT], ["y", *TOP], WIDTH, HEIGHT),
    "centre": (["xcenter", "xcentre", "cx", "xc"], ["ycenter", "ycentre", "cy", "yc"], WIDTH, HEIGHT),
}
SIZE = ["imagewidth", "imgwidth", "width"], ["imageheight", "imgheight", "height"]
CROWD = ["isgroupof", "iscrowd"]
# Files without names in the first row: the columns that tools write.
USUAL = (
    COLUMNS,
    "image,xmin,ymin,xmax,ymax,class",  # keras-retinanet
    "filename,width,height,class,xmin,ymin,xmax,ymax",  # TensorFlow's tutorials
    "class,bbox_x,bbox_y,bbox_width,bbox_height,image,image_width,image_height",  # makesense.ai
    "image,xmin,ymin,xmax,ymax",
)


@dataclass
class Columns:
    """Where a row has what, as indices; None: it has none."""

    count: int
    names: str
    image: int
    label: int | None
    kind: str  # of BOXES
    box: list[int]
    size: list[int]
    crowd: int | None
    scaled: bool = False  # known to be parts of the image's sides
    only: str = "object"  # the class of all, where no column has it
    notes: list[str] = field(default_factory=list)

    def of(self, row: Sequence[str]) -> tuple[str, str, list[str], list[str], str]:
        """Image, class, box, size of the image and crowd of a row; ValueError if it has not these columns."""
        if len(row) < self.count or any(row[self.count :]) or not row[self.image]:
            raise ValueError(f"expected {self.names}, got {','.join(row)[:80]!r}")
        box = [row[k] for k in self.box]
        label = row[self.label] if self.label is not None else self.only if any(box) else ""
        crowd = row[self.crowd] if self.crowd is not None else ""
        return row[self.image], label, box, [row[k] for k in self.size], crowd

    def corners(self, box: Sequence[float]) -> list[float]:
        """x1, y1, x2, y2 of the numbers in the box's columns."""
        if self.kind == "corners":
            return list(box)
        x, y, width, height = box
        if width <= 0 or height <= 0:
            raise ValueError(f"expected a box of positive width and height, got {box}")
        if self.kind == "centre":
            x, y = x - width / 2, y - height / 2
        return [x, y, x + width, y + height]


def find(rows: Sequence[Sequence[str]], classes: Sequence[str] | None) -> tuple[Columns, int]:
    """The columns of a file, and how many rows name them: 1 or 0. ValueError where they are not known."""
    if not rows:
        raise ValueError(f"expected rows of {COLUMNS}, got none")
    if _is_header(rows[0]):
        return _named(rows[0], classes), 1
    usual = {names: _named(names.split(",")) for names in USUAL}
    boxes = {names: sum(_is_box(layout, row) for row in rows) for names, layout in usual.items()}
    best = max(USUAL, key=lambda names: boxes[names])  # of several the first
    found = _named(best.split(","), classes)
    if best != COLUMNS or list(boxes.values()).count(boxes[best] or -1) > 1:
        found.notes.append(f"no names of columns in the first row; read as {best}")
    return found, 0


def first_cells(file: Path) -> int:
    """How many cells the first row of a file has."""
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        line = next((line for line in opened if line.strip()), "")
    return _cells(line, delimiter_of(line))


def delimiter_of(line: str) -> str:
    return max(",;\t", key=lambda delimiter: _cells(line, delimiter))


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cells(line: str, delimiter: str) -> int:
    return len(next(csv.reader([line], delimiter=delimiter), []))


def _is_header(row: Sequence[str]) -> bool:
    """No number and no image in it: a row of data with an error in one has others."""
    cells = [cell for cell in row if cell]
    return len(cells) > 2 and not any(is_number(cell) or is_image_name(cell) for cell in cells)


def _is_box(columns: Columns, row: Sequence[str]) -> bool:
    if len(row) != columns.count or not all(is_number(row[k]) for k in (*columns.box, *columns.size)):
        return False
    try:
        x1, y1, x2, y2 = columns.corners([float(row[k]) for k in columns.box])
    except ValueError:
        return False
    return x1 < x2 and y1 < y2


def _named(header: Sequence[str], classes: Sequence[str] | None = None) -> Columns:
    """The columns by their names."""
    known = [re.sub(r"[\W_]+", "", name.lower()) for name in header]
    known = [{"bboxwidth": "w", "bboxheight": "h"}.get(name, name.removeprefix("bbox")) for name in known]

    def at(names: Sequence[str], without: Sequence[int] = ()) -> int | None:
        return next((k for name in names for k, own in enumerate(known) if own == name and k not in without), None)

    def all_at(names: Sequence[Sequence[str]], without: Sequence[int] = ()) -> list[int]:
        found = [k for one in names if (k := at(one, without)) is not None]
        return found if len(found) == len(names) else []

    if "regionshapeattributes" in known:
        raise ValueError("expected a column for each side of a box, got VIA's csv: export COCO's json there")
    image, label = at(IMAGE), at(CLASS)
    kind = next((kind for kind, names in BOXES.items() if all_at(names)), "")
    if image is None or not kind:
        raise ValueError(
            f"expected columns named image (or filename, ImageID, path), class (or label, category, LabelName) and "
            f"xmin,ymin,xmax,ymax (or x1,y1,x2,y2; x,y,width,height), got {','.join(header)[:200]!r}"
        )
    box = all_at(BOXES[kind])
    corners_of_sizes = kind == "corners" and at(["x"]) is not None  # then width and height are the box's
    size = [] if corners_of_sizes else all_at(SIZE, without=box)
    found = Columns(len(header), ",".join(header), image, label, kind, box, size, at(CROWD))
    found.scaled = {"imageid", "labelname", "xmin"} <= set(known)  # Open Images
    if label is None:
        if classes is not None and len(classes) != 1:
            raise ValueError(f"expected a column named class, label or category, got {','.join(header)[:200]!r}")
        found.only = classes[0] if classes else found.only
        found.notes.append(f"no column of classes: all objects are {found.only!r}")
    used = {image, label, found.crowd, *box, *size}
    if others := [name for k, name in enumerate(header) if k not in used]:
        found.notes.append(f"columns {', '.join(map(repr, others))} are ignored")
    return found
