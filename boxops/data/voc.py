"""Pascal VOC: one xml file per image."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from boxops.data.checks import class_list, label_of
from boxops.data.dataset import DetectionDataset, Transform
from boxops.data.find import ANNOTATIONS, IMAGE_FOLDERS, IMAGES, SPLITS, files_in, folders_in, has_files
from boxops.data.records import BadData, Object, Problem
from boxops.data.splits import NoSuchSplit, aliases

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Voc(DetectionDataset):
    """A folder with an xml file for each image (Everingham et al. 2010, or as LabelImg and others write them).

    A split is ``root/ImageSets/Main/{split}.txt``, or a folder ``root/{split}`` or ``root/Annotations/{split}`` with
    xml files. Where the files name none, the set is ``undivided``. The xml files are in ``Annotations``, ``annots``,
    ``xml`` or ``labels``, or beside the images; the images in ``JPEGImages``, ``images`` or ``img``, whatever the case.
    An xml's image is the one of its own name, or else of the name in ``<filename>``. An image without xml is left out,
    and counted in ``problems``: nobody has looked at it; an xml without objects is an image without objects.

    Args:
        root: the folder, or the folder of the xml files; with ``annotations`` it may be None.
        annotations: the folder of the xml files, whose images are in one set then, ``undivided``.
        images: the folder of the images.
        classes: their names; by default all that the annotations name, sorted, whatever the split.
        one_based: VOC's own corners count pixels from 1 and name the last pixel: x1 = xmin - 1, y1 = ymin - 1. By
            default corners are taken as they are, as in the files that most tools write.

    Objects marked difficult are kept: ``target["difficult"]``, and ``ignore`` in ``coco()``. A size that is missing or
    not positive is read from the image.
    """

    has_difficult = True

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
        one_based: bool = False,
    ) -> None:
        super().__init__(transform, on_bad, seed)
        self.one_based = one_based
        if root is None and annotations is None:
            raise ValueError("voc: expected root or annotations, got neither")
        files = _find(None if root is None else Path(root), annotations, split)
        self.undivided = files.undivided
        self.classes = class_list(classes) if classes is not None else _class_names(files.everything)
        self.category_ids = list(range(1, len(self.classes) + 1))
        self._labels = {name: label for label, name in enumerate(self.classes, 1)}
        if images is not None and not Path(images).is_dir():
            raise FileNotFoundError(f"voc: expected a folder as images, got {images}")
        self._images = _Images([Path(images)] if images is not None else files.image_folders(split))
        own = {file.stem: file for file in files_in(files.folder, ".xml")}
        if files.listing is None:
            for number, file in enumerate(own.values(), 1):
                self._read(file, number)
            if annotations is None:  # else the images may be of other splits too
                self._report_unseen({file.stem for folder in files.everything for file in files_in(folder, ".xml")})
        else:
            for number, name in self._listed(files.listing, own):
                self._read(own.get(name, files.folder / f"{name}.xml"), number)
        self.finish()

    def _listed(self, listing: Path, known: Iterable[str]) -> Iterable[tuple[int, str]]:
        """The names in a file of ImageSets, by row. Those of one class have a second column: -1, 0 or 1."""
        seen = set()
        for row, line in enumerate(listing.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
            name = line.strip()
            if name not in known:
                name = re.sub(r"\s+(-1|0|1)$", "", name)
            if name not in known and name.lower().endswith(IMAGES):
                name = Path(name).stem
            if name in seen:
                self.report_problem(
                    Problem(str(listing), f"row {row}", f"expected every image once, got {name!r} again")
                )
            elif name:
                seen.add(name)
                yield row, name

    def _read(self, file: Path, image_id: int) -> None:
        with self.skipping(str(file), ""):
            tree = _parse(file)
            if tree.tag == "annotations":
                raise ValueError("expected <annotation> of one image, got <annotations>, as CVAT has for all")
            raws = [(f"object {k}", thing) for k, thing in enumerate(tree.iterfind("object"), 1)]
            image = self._images.find(file.stem, tree.findtext("filename") or "")
            self.add(file, image, image_id, _size(tree), raws)

    def _report_unseen(self, annotated: set[str]) -> None:
        for folder in {path.parent: None for path in self._images.used}:
            unseen = [p for p in files_in(folder, *IMAGES) if p.stem not in annotated and p not in self._images.used]
            if unseen:
                text = f"expected an xml for each image, got none for {len(unseen)}, such as {unseen[0].name}; left out"
                self.report_problem(Problem(str(folder), "", text))

    def parse(self, raw: Any) -> Object:
        box = raw.find("bndbox")  # only its own: a person's parts have boxes too
        if box is None:
            rotated = raw.find("robndbox") is not None
            raise ValueError(f"expected <bndbox>, got {'a rotated box, <robndbox>' if rotated else 'none'}")
        corners = [_number(box, corner) for corner in CORNERS]
        if self.one_based:
            corners[:2] = corners[0] - 1, corners[1] - 1
        name = (raw.findtext("name") or "").strip()
        if not name:
            raise ValueError("expected a class in <name>, got none")
        return Object(label_of(self._labels, name), corners, difficult=_is_difficult(raw))


@dataclass
class _Files:
    root: Path
    folder: Path  # of the split's xml files
    everything: list[Path]  # the folders of all xml files
    listing: Path | None = None
    undivided: bool = False

    def image_folders(self, split: str) -> list[Path]:
        """Where images may be, the likeliest first."""
        beside = has_files(self.folder, *IMAGES)
        places = [self.folder.parent, self.root] if self.folder != self.root else [] if beside else [self.root.parent]
        folders = [self.folder] if beside else []
        for place in places:
            usual = [folder for name, folder in folders_in(place).items() if name in IMAGE_FOLDERS]
            parts = {self.folder.name.lower(), *aliases(split)} if not (self.listing or self.undivided) else ()
            folders += [part for folder in usual for name, part in folders_in(folder).items() if name in parts]
            folders += [*usual, place]
        return list(dict.fromkeys(folders)) or [self.folder]


def _find(root: Path | None, annotations: str | Path | None, split: str) -> _Files:
    if annotations is not None:
        folder = Path(annotations)
        xmls = _xml_folder(folder)
        if xmls is None:
            raise FileNotFoundError(f"voc: expected a folder with *.xml as annotations, got {folder}")
        return _Files(root or xmls, xmls, [xmls], undivided=True)
    assert root is not None
    below = folders_in(root)
    xmls = _xml_folder(root)
    if "imagesets" in below:
        folder = folders_in(below["imagesets"]).get("main", below["imagesets"])
        listings = {file.stem: file for file in files_in(folder, ".txt")}
        name = next((name for name in aliases(split) if name in listings), None)
        if name is None:
            raise NoSuchSplit(f"voc: expected the images of the split in {folder / split}.txt, got "
                                    f"{', '.join(listings) or 'none'}")  # fmt: skip
        if xmls is None:
            raise FileNotFoundError(f"voc: expected xml files in {root / 'Annotations'}, got none")
        return _Files(root, xmls, [xmls], listings[name])
    parts: dict[str, Path] = {}
    for place in (root, *(below[name] for name in ANNOTATIONS if name in below)):
        for name, folder in folders_in(place).items():
            if name in (*SPLITS, split.lower()) and (found := _xml_folder(folder)) is not None:
                parts.setdefault(name, found)
    if parts:
        name = next((name for name in aliases(split.lower()) if name in parts), None)
        if name is None:
            raise NoSuchSplit(f"voc: expected the split {split} in {root}, got {', '.join(parts)}")
        return _Files(root, parts[name], list(parts.values()))
    if xmls is None:
        raise FileNotFoundError(f"voc: expected {root}/ImageSets/Main/{split}.txt or *.xml in {root} or its folder "
                                f"Annotations, got {'none' if root.is_dir() else 'no such folder'}")  # fmt: skip
    return _Files(root, xmls, [xmls], undivided=True)


def _xml_folder(base: Path) -> Path | None:
    """The folder's xml files are in a folder of it with a usual name, or in itself."""
    below = folders_in(base)
    found = (_xml_folder(below[name]) for name in (*ANNOTATIONS, *IMAGE_FOLDERS) if name in below)
    return next((folder for folder in found if folder), base if has_files(base, ".xml") else None)


class _Images:
    """Image files by name, without asking the disk for each."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders, self.used = folders, set[Path]()
        self.names: dict[str, Path] = {}
        self.stems: dict[str, Path] = {}
        paths = [path for folder in folders for path in files_in(folder, *IMAGES)]
        for change in (str, str.lower):  # other case only where there is no exact name
            for path in paths:
                self.names.setdefault(change(path.name), path)
                self.stems.setdefault(change(path.stem), path)

    def find(self, stem: str, filename: str) -> Path:
        """By the xml's name; then by <filename>, which may be a path of Windows, or have a wrong suffix or none."""
        named = re.split(r"[\\/]", filename.strip())[-1]
        own = self.names.get(named) if Path(named).stem == stem else None  # of a.jpg and a.png
        tries = [own, self.stems.get(stem), self.stems.get(stem.lower()), self.names.get(named)]
        tries += [self.stems.get(name) for name in (Path(named).stem, named, Path(named).stem.lower(), named.lower())]
        path = next((path for path in tries if path is not None), None)
        if path is None:
            also = f" or {named}" if Path(named).stem not in ("", stem) else ""
            raise ValueError(
                f"expected an image called {stem}{also} in {' or '.join(map(str, self.folders))}, got none"
            )
        self.used.add(path)
        return path


def _parse(file: Path) -> ElementTree.Element:
    try:
        data: bytes | str = file.read_bytes().lstrip()
        declared = re.match(rb"(?:\xef\xbb\xbf)?<\?xml[^>]*?encoding=[\"']([\w.-]+)", data)  # type: ignore[arg-type]
        if declared:  # expat knows but few encodings
            data = data.decode(declared[1].decode()).lstrip("\ufeff")  # type: ignore[union-attr]
        return ElementTree.fromstring(data)
    except (OSError, ElementTree.ParseError, LookupError, UnicodeError) as error:
        raise ValueError(f"expected xml, got {error}") from error


def _number(parent: ElementTree.Element, tag: str) -> float:
    text = parent.findtext(tag)
    try:
        return float(text or "")
    except ValueError:
        raise ValueError(f"expected a number in <{tag}>, got {text!r}") from None


def _size(tree: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height, or None where the file does not tell them."""
    size = tree.find("size")
    if size is None:
        return None
    told = [tag for tag in ("width", "height") if (size.findtext(tag) or "").strip()]
    width, height = [*(int(_number(size, tag)) for tag in told), 0, 0][:2]
    return (width, height) if width > 0 and height > 0 else None


def _is_difficult(thing: ElementTree.Element) -> bool:
    text = (thing.findtext("difficult") or "").strip().lower()
    if text in ("", "unspecified", "false", "true"):
        return text == "true"
    return _number(thing, "difficult") != 0


def _class_names(folders: list[Path]) -> list[str]:
    names = set()
    for file in (file for folder in folders for file in files_in(folder, ".xml")):
        try:
            names |= {(thing.findtext("name") or "").strip() for thing in _parse(file).iterfind("object")}
        except ValueError:
            continue  # reported when its split is read
    if not names - {""}:
        raise BadData(f"voc: expected objects with names in {folders[0]}/*.xml, got none")
    return sorted(names - {""})
