"""data.yaml and darknet's *.data: where the images of a split are, and what the classes are called."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boxops.data.find import IMAGES, SPLITS, files_in
from boxops.data.records import BadData, Problem
from boxops.data.splits import NoSuchSplit, aliases

NAMES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")


def find_description(root: Path) -> Path | None:
    files = files_in(root, ".yaml", ".yml") or files_in(root, ".data")
    usual = [file for file in files if file.name in ("data.yaml", "dataset.yaml", "data.yml", "obj.data")]
    files = usual[:1] or [
        file for file in files if file.suffix == ".data" or {"names", "nc"} & set(read_description(file))
    ]
    if len(files) > 1:
        raise ValueError(
            f"yolo: expected one data.yaml in {root}, got {', '.join(file.name for file in files)}: name it"
        )
    return files[0] if files else None


def read_description(file: Path) -> dict[str, Any]:
    """The keys of data.yaml, or of darknet's lines key = value; all values are texts, or lists and dicts of texts."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".data":
            pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
            return {key.strip(): value.strip() for key, _, value in pairs}
    except UnicodeDecodeError as error:
        raise BadData(Problem(str(file), "", f"expected text, got {error}")) from error
    try:
        import yaml
    except ImportError as error:
        raise ImportError(f"yolo: {file} needs PyYAML (pip install pyyaml)") from error
    try:
        found = yaml.load(text, Loader=yaml.BaseLoader)  # texts only, and no objects: a class "no" is not False
    except yaml.YAMLError as error:
        raise BadData(Problem(str(file), "", f"expected yaml, got {' '.join(str(error).split())}")) from error
    if not isinstance(found, dict):
        raise BadData(Problem(str(file), "", f"expected keys such as names and train, got {type(found).__name__}"))
    return found


def class_names(about: dict[str, Any], file: Path | None, folders: list[Path]) -> list[str]:
    names = about.get("names")
    if isinstance(names, dict):
        try:
            names = {int(key): name for key, name in names.items()}
        except ValueError:
            raise BadData(
                Problem(str(file), "names", f"expected numbers of classes, got {reprlib.repr(list(names))}")
            ) from None
        if sorted(names) != list(range(len(names))):
            raise BadData(
                Problem(str(file), "names", f"expected classes 0..{len(names) - 1}, got {reprlib.repr(sorted(names))}")
            )
        names = [names[key] for key in range(len(names))]
    count = about.get("nc", about.get("classes"))
    if isinstance(names, list) and names:
        if count is not None and str(count) != str(len(names)):
            raise BadData(Problem(str(file), "names", f"expected {count} names, as many as classes, got {len(names)}"))
        return [str(name) for name in names]
    listed = None
    if isinstance(names, str) and names and file is not None:
        listed = _resolve(names, [file.parent])
    listed = listed or next((folder / name for folder in folders for name in NAMES if (folder / name).is_file()), None)
    if listed is None and isinstance(count, str) and count.isdecimal():
        return [f"class_{k}" for k in range(int(count))]
    if listed is None:
        return []
    return read_names(listed)


def read_names(file: str | Path) -> list[str]:
    """The classes of a file with a name in each line, such as darknet's coco.names."""
    return [line.strip() for line in Path(file).read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()]


def described(about: dict[str, Any], file: Path, split: str) -> list[Path]:
    """The images of a split that data.yaml describes."""
    told = {key: value for key, value in about.items() if value not in ("", "null", "~", [])}
    name = next((name for name in aliases(split) if name in told), None)
    if name is None:
        there = ", ".join(name for name in told if name in SPLITS)
        raise NoSuchSplit(f"yolo: expected the split {split} in {file}, got {there or 'none'}")
    bases = [file.parent / str(told.get("path", ".")).replace("\\", "/"), file.parent]
    paths: list[Path] = []
    for entry in told[name] if isinstance(told[name], list) else [told[name]]:
        place = _resolve(str(entry), bases, aliases(split))
        if place is None:
            text = f"expected the images in {entry}, got no such file or folder in {bases[0]}"
            raise BadData(Problem(str(file), name, text))
        paths += walk(place) if place.is_dir() else listed(place, bases)
    return list(dict.fromkeys(paths))


def _resolve(entry: str, bases: list[Path], folders: tuple[str, ...] = ()) -> Path | None:
    """Where the file or folder is. A path that holds elsewhere, or Roboflow's ``../train/images``, is taken without its
    beginning, down to a file's name or to a folder called as one of those given."""
    parts = [part for part in entry.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    for base in bases:
        if (found := base / entry.strip().replace("\\", "/")).exists():
            return found
    for skipped in range(1, len(parts)):
        rest = "/".join(parts[skipped:])
        for base in bases:
            found = base / rest
            if found.is_file() or (found.is_dir() and (skipped < len(parts) - 1 or rest.lower() in folders)):
                return found
    return None


def listed(file: Path, bases: list[Path]) -> Iterator[Path]:
    for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        if line.strip():
            yield _resolve(line, [file.parent, *bases]) or file.parent / line.strip()


def walk(folder: Path) -> Iterator[Path]:
    """The images in a folder and in those below."""
    for place, below, _ in os.walk(folder):
        below.sort()
        yield from files_in(Path(place), *IMAGES)
