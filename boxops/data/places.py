"""Where one file has the annotations of a split: that file, and on this machine the images that it names."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image

from boxops.data.records import BadData
from boxops.data.splits import ALIASES, NoSuchSplit, aliases


def annotation_file(
    kind: str,
    root: str | Path | None,
    annotations: str | Path | None,
    split: str,
    *,
    suffix: str,
    preferred: Sequence[str],
    fits: Callable[[Path], bool],
    examples: Sequence[str],
) -> tuple[Path, bool]:
    """The file of a split, and whether it is undivided: named, or the only one and without a split in its name.

    A file is of a split if its name or its folder's holds the split's name as a word, with or without a year:
    ``instances_train2017.json``, ``train/_annotations.coco.json``, ``lvis_v1_train.json``, ``oid-train-bbox.csv``.

    Args:
        preferred: beginnings of names that go before others.
        fits: whether a file is of this format, asked where names leave a choice.
        examples: what the error shows.
    """
    if root is None and annotations is None:
        raise ValueError(f"{kind}: expected root or annotations, got neither")
    if annotations is not None:
        files = [Path(annotations)] + ([] if root is None else [Path(root, annotations)])
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise FileNotFoundError(f"{kind}: expected annotations in {annotations}, got no such file")
        return file, True
    assert root is not None
    folder = Path(root)
    if folder.is_file():
        return folder, True
    ending = "*" + "".join(f"[{letter}{letter.upper()}]" for letter in suffix)
    places = ("", "*/", "*/annotations/", "annotations/*/")
    inside = {file.relative_to(folder) for place in places for file in folder.glob(place + ending)}
    files = [folder / file for file in sorted(inside) if not any(part.startswith(".") for part in file.parts)]

    def chosen(files: list[Path]) -> list[Path]:
        for start in preferred:
            if len(files) > 1:
                files = [file for file in files if file.name.startswith(start)] or files
        return files if len(files) == 1 else [file for file in files if fits(file)]

    def of(name: str) -> list[Path]:
        return [file for file in files if split_word(name, str(file.relative_to(folder)))]

    for name in aliases(split):
        if found := chosen(of(name)):
            break
    else:
        others = {file for names in ALIASES for name in names for file in of(name)}
        found = [] if any(fits(file) for file in others) else chosen([file for file in files if file not in others])
        if len(found) == 1:
            return found[0], True
    if len(found) != 1:
        got = ", ".join(map(str, found or files[:5])) or "none"
        raise (FileNotFoundError if found else NoSuchSplit)(
            f"{kind}: expected one file of the split {split!r} in {root}, as {', '.join(examples)}, got {got}"
        )
    return found[0], False


def split_word(split: str, text: str) -> str:
    """The split's name as the text has it, perhaps with a year, or ``""``."""
    found = re.search(rf"(?<![a-z0-9]){re.escape(split)}([-_]?\d{{4}})?(?![a-z0-9])", text, re.IGNORECASE)
    return found[0] if found else ""


def image_folders(
    root: str | Path | None, images: str | Path | None, split: str, file: Path, undivided: bool
) -> list[Path]:
    """The folders that may have the images of an annotation file: those of its split first."""
    if images is not None:
        given = [Path(images)] + ([] if root is None else [Path(root, images)])
        bases = after = [folder for folder in given if folder.is_dir()][:1]
        if not bases:
            raise FileNotFoundError(f"images: expected a folder, got {images}")
    else:
        tops = [*([] if root is None or Path(root).is_file() else [Path(root)]), file.parent]
        tops += [up.parent for up in list(file.parents)[:2] if up.name.lower() == "annotations"]
        bases = [top / name for top in tops for name in (".", "images", "data", "JPEGImages")]
        after = [top / name for top in tops for name in ("images", "data", "JPEGImages", ".")]
    known = (split, *(name for group in ALIASES for name in group))
    words = {name: word for name in known if (word := split_word(name, f"{file.parent.name}/{file.stem}"))}
    names = [*words.values(), *(other for name in words for other in aliases(name))]
    names = [*(names or (known if undivided else aliases(split))), file.stem.rsplit("_", 1)[-1]]
    names = [name.lower() for name in (*names, *(f"{name}2017" for name in names))]
    below = [child for base in bases for child in _folders(base, names)]
    order = (*after, *below) if images is not None else (*below, *after)
    return list(dict.fromkeys(folder for folder in order if folder.is_dir()))


def _folders(base: Path, names: list[str]) -> list[Path]:
    """The folders in base of these names, in whatever case, in the order of the names."""
    if not base.is_dir():
        return []
    with os.scandir(base) as entries:
        found = [entry.name for entry in entries if entry.name.lower() in names and entry.is_dir()]
    return [base / name for name in sorted(found, key=lambda name: (names.index(name.lower()), name))]


def find_images(kind: str, file: Path, names: Iterable[str], folders: Sequence[Path]) -> dict[str, Path]:
    """The images by the names that the file gives them, where they are found.

    A name may be a path of another machine, an address, or percent-encoded, have backslashes, other upper and lower
    case or no ending: the longest end of the path that is one file in a folder is taken, unless another name means it.

    Raises:
        BadData: none is found.
    """
    names = list(dict.fromkeys(names))
    found: dict[str, Path] = {}
    guesses: dict[str, Path] = {}
    listed = _Listed()
    for name in names:
        path = next((path for folder in folders if os.path.isfile(path := os.path.join(folder, name))), None)
        if path is not None:
            found[name] = Path(path)
        elif guess := _guess(name, folders, listed):
            guesses[name] = guess
    if guesses:
        meant = defaultdict(set)
        for name, place in (*found.items(), *guesses.items()):
            meant[place].add(_slashed(name))
        found |= {name: place for name, place in guesses.items() if len(meant[place]) == 1}
    if names and not found:
        places = ", ".join(map(str, folders))
        raise BadData(f"{kind}: expected the images of {file}, as {names[0]!r}, in {places}, got none of them")
    return found


def _slashed(name: str) -> str:
    return (urlsplit(name).path if "://" in name else name).replace("\\", "/")


def _guess(name: str, folders: Sequence[Path], listed: _Listed) -> Path | None:
    name = _slashed(name)
    for text in dict.fromkeys((name, unquote(name))):
        parts = [part for part in text.split("/") if part not in ("", ".", "..")]
        for first in range(len(parts)):
            for folder in folders:
                if path := listed.find(folder.joinpath(*parts[first:-1]), parts[-1]):
                    return path
    return None


class _Listed:
    """What is in folders, whatever the case, each listed once."""

    def __init__(self) -> None:
        self.folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """The one file of that name, or if there is none the one image with a name such as this and an ending."""
        if folder not in self.folders:
            names: dict[str, list[str]] = defaultdict(list)
            for own in os.listdir(folder) if os.path.isdir(folder) else ():
                names[own.lower()].append(own)
                if is_image_name(own):
                    names["/" + os.path.splitext(own.lower())[0]].append(own)
            self.folders[folder] = names
        names = self.folders[folder]
        same = names.get(name.lower()) or ([] if is_image_name(name) else names.get("/" + name.lower(), []))
        path = folder / (name if name in same else same[0] if len(same) == 1 else "")
        return path if path.is_file() else None


def is_image_name(name: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return os.path.splitext(name.lower())[1] in Image.registered_extensions()
