"""What lies in a folder: its files and folders by name, and the format of its annotations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from boxops.data.splits import ALIASES

IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
ANNOTATIONS = ("annotations", "annotation", "annots", "xmls", "xml", "labels", "label")  # folders, as people call them
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")
SPLITS = tuple(name for names in ALIASES for name in names)
MOST = 20_000  # entries of a folder that are looked at to recognise a format
KINDS = {
    "coco": "a json with images, annotations and categories",
    "voc": "*.xml",
    "yolo": "data.yaml, obj.data, or a *.txt of numbers for each image",
    "csv": "*.csv",
}


def _names(folder: Path) -> Iterator[str]:
    """Without hidden ones, such as the ._a.jpg that macOS leaves in archives; none where there is no folder."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """The folder's own files of these suffixes, in whatever case, sorted."""
    return [folder / name for name in sorted(_names(folder)) if name.lower().endswith(suffixes)]


def has_files(folder: Path, *suffixes: str) -> bool:
    return any(name.lower().endswith(suffixes) for name in _names(folder))


def folders_in(folder: Path) -> dict[str, Path]:
    """Its folders by name in lower case."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name.lower(): folder / entry.name for entry in entries if entry.is_dir()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def kind_of(root: str | Path | None, annotations: str | Path | None = None) -> str:
    """The format of annotations, ``coco``, ``voc``, ``yolo`` or ``csv``, by the names of files in root and in the
    folders that usually hold annotations, and by the beginning of a few; or by what ``annotations`` names.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: nothing is recognised, or several formats are.
    """
    if root is None and annotations is None:
        raise ValueError("auto: expected root or annotations, got neither")
    place = Path(annotations if annotations is not None else root)  # type: ignore[arg-type]
    if not place.exists():
        raise FileNotFoundError(f"auto: expected annotations in {place}, got no such file or folder")
    found = _look(place) if place.is_dir() else _look_at(place.parent, [place.name])
    if len(found) == 1:
        return next(iter(found))
    if found:
        several = " and ".join(f"{kind} ({file})" for kind, file in found.items())
        raise ValueError(f"auto: expected annotations of one format in {place}, got {several}: name the kind (--data)")
    below = [
        f"{path} has {', '.join(kinds)}: is this the root?"
        for path in islice(folders_in(place).values(), 20)
        if (kinds := _look(path))
    ]
    told = "; ".join(below) or ", ".join(sorted(islice(_names(place), MOST))[:5]) or "an empty folder"
    expected = "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
    raise ValueError(f"auto: expected annotations in {place} ({expected}), got none of these; {told}")


def _look(root: Path) -> dict[str, Path]:
    """The formats that a folder has, each with a file that says so."""
    below = folders_in(root)
    if "imagesets" in below:
        return {"voc": below["imagesets"]}
    parts = [below[name] for name in SPLITS if name in below]
    usual = (*ANNOTATIONS, *IMAGE_FOLDERS, "obj_train_data")
    inside = [below, *(folders_in(part) for part in parts)]
    inner = [folder for folders in inside for name, folder in folders.items() if name in usual]
    deep = [folder for place in inner for folder in islice(folders_in(place).values(), 10)]
    found: dict[str, Path] = {}
    for place in (root, *inner, *parts, *deep):
        for kind, file in _look_at(place, islice(_names(place), MOST)).items():
            found.setdefault(kind, file)
    return found


def _look_at(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    asked = dict.fromkeys((".json", ".yaml", ".yml", ".txt"), 20)  # so many files of a suffix are opened, no more
    for name in names:
        suffix = os.path.splitext(name)[1].lower()
        kind = {".xml": "voc", ".csv": "csv", ".data": "yolo", ".names": "yolo", ".labels": "yolo"}.get(suffix, "")
        if asked.get(suffix) and ("coco" if suffix == ".json" else "yolo") not in found:
            kind = _by_content(folder / name, suffix)
            asked[suffix] -= 1
        if kind:
            found.setdefault(kind, folder / name)
    return found


def _by_content(file: Path, suffix: str) -> str:
    try:
        with file.open("rb") as opened:
            head = opened.read(1 << 16)
            opened.seek(max(0, file.stat().st_size - (1 << 16)))
            ends = head + opened.read(1 << 16)
    except OSError:
        return ""
    if suffix == ".json":
        return "coco" * all(f'"{key}"'.encode() in ends for key in ("images", "categories"))
    if suffix == ".txt":
        first = head.lstrip().split(b"\n", 1)[0]
        return "yolo" * bool(re.fullmatch(rb"\d+(\.0*)?(\s+[-+.\deE]+){4,}\s*", first))
    return "yolo" * bool(re.search(rb"^(names|nc)\s*:", head, re.MULTILINE))
