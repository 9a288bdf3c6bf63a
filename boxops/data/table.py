"""CSV: one row per object."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from boxops.data.checks import label_of
from boxops.data.dataset import DetectionDataset, Transform
from boxops.data.records import BadData, Object, Problem

COLUMNS = "image,category,xmin,ymin,xmax,ymax"


class Table(DetectionDataset):
    """A file of rows ``image,category,xmin,ymin,xmax,ymax`` in pixels; ``image,,,,,`` is an image without objects.

    A header line may come first. The images of a file are in the order of their first rows.

    Args:
        root: the csv file, or a folder with ``{split}.csv``.
        annotations: the file, where it is elsewhere.
        images: the folder of the images; by default the file's, or else root.
        classes: the names of the categories; by default all in the file, sorted. Give them where the splits may differ.
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
        if root is None and annotations is None:
            raise ValueError("csv: expected root or annotations, got neither")
        root = None if root is None else Path(root)
        if annotations is not None:
            file = Path(annotations)
        else:
            assert root is not None
            file = root if root.suffix.lower() == ".csv" else root / f"{split}.csv"
        if not file.is_file():
            raise FileNotFoundError(f"csv: expected rows of {COLUMNS} in {file}, got no such file")
        rows = self._read(file)
        names = {row[1] for _, row in rows if row[1]}
        self.classes = list(classes) if classes is not None else sorted(names)
        self.category_ids = list(range(1, len(self.classes) + 1))
        self._labels = {name: label for label, name in enumerate(self.classes, 1)}
        by_image: dict[str, list[tuple[str, Any]]] = {}
        for place, row in rows:
            things = by_image.setdefault(row[0], [])
            if any(row[1:]):
                things.append((place, row))
        folders = [Path(images)] if images is not None else [file.parent, *([root] if root else [])]
        for image_id, (name, things) in enumerate(by_image.items(), 1):
            candidates = [folder / name for folder in folders]
            path = next((path for path in candidates if os.path.isfile(path)), candidates[0])
            self.add(file, path, image_id, None, things)
        self.finish()

    def _read(self, file: Path) -> list[tuple[str, list[str]]]:
        rows = []
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened, strict=True)
            try:
                for count, cells in enumerate(reader):
                    row, place = [cell.strip() for cell in cells], f"row {reader.line_num}"
                    if not any(row) or (count == 0 and _is_header(row)):
                        continue
                    if len(row) == 6 and row[0]:
                        rows.append((place, row))
                    else:
                        self.report_problem(
                            Problem(str(file), place, f"expected {COLUMNS}, got {','.join(row)[:80]!r}")
                        )
            except (csv.Error, UnicodeDecodeError) as error:
                problem = Problem(str(file), f"row {reader.line_num + 1}", f"expected rows of {COLUMNS}, got {error}")
                raise BadData(problem) from error
        return rows

    def parse(self, raw: Any) -> Object:
        _, name, *corners = raw
        if not all(_is_number(corner) for corner in corners):
            raise ValueError(f"expected 4 numbers for a box, got {corners}")
        return Object(label_of(self._labels, name), [float(corner) for corner in corners])


def _is_header(row: list[str]) -> bool:
    return all(cell and not _is_number(cell) for cell in row[2:]) and len(row) == 6


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
