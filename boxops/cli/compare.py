"""`boxops detect --compare`: what several detectors see in an image, side by side. Imports no torch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from boxops.cli.common import UserError
from boxops.cli.finder import Finder, name_of
from boxops.cli.inputs import Input, Unreadable
from boxops.cli.models import find_anew
from boxops.cli.outputs import open_output

CHECKPOINTS = (".pt", ".pth")
WINDOW = 2.0  # width over height of the sheet in which the panels are to be as large as they can be
LARGEST = 1024  # pixels of a panel's longer side


def take_checkpoints(args: argparse.Namespace) -> None:
    """Of the words after --compare the checkpoints stay there; the others are images: --compare A.pt B.pt IMAGE."""
    for option in ("checkpoint", "model", "weights", "cfg", "set"):
        if getattr(args, option):
            raise UserError(f"--{option}: expected it without --compare, which names the models, got both")
    words = args.compare
    args.compare = [word for word in words if _is_checkpoint(word)]
    args.images = args.images + [word for word in words if not _is_checkpoint(word)]
    if not args.compare:
        raise UserError(f"--compare: expected checkpoints, which end in {' or '.join(CHECKPOINTS)}, got {words[0]}")


def _is_checkpoint(word: str) -> bool:
    path = urlsplit(word).path if "://" in word else word
    return path.lower().endswith(CHECKPOINTS)


def check_images(inputs: Sequence[Input]) -> None:
    for one in inputs:
        if one.video:
            raise UserError(f"--compare: expected images, got the video {one.name}")


class Comparison:
    """Looks with several detectors at one image after the other, as :class:`boxops.cli.finder.Finder` does with one.

    A class has one colour in all pictures, whatever its label is in a checkpoint. Times are of the model's call alone:
    its input is on the device, and what reads, draws and writes does not count.
    """

    def __init__(self, checkpoints: Sequence[str], finders: Sequence[Finder]) -> None:
        self.checkpoints, self.finders = checkpoints, finders
        for finder in finders:
            find_anew(finder.model)
        self.captions = captions([finder.name for finder in finders], checkpoints)
        names = dict.fromkeys(name for finder in finders for name in finder.classes)
        self.labels = {name: label for label, name in enumerate(names, 1)}
        self.told: list[dict[str, Any]] = []

    def look_at(self, one: Input, out: Path | None, show: Callable[[str], None]) -> Unreadable | None:
        """What was wrong with the input, if anything."""
        from boxops.draw import grid

        try:
            ((_, image),) = one.frames()
            seen = [self.find(i, one, image, show) for i in range(len(self.finders))]
        except Unreadable as error:
            return error
        self.told += [row for row, _ in seen]
        for caption, (row, _) in zip(self.captions, seen, strict=True):
            texts = [f"{found['class']} {found['score']:.2f}" for found in row["detections"]]
            print(f"{one.name}: {caption}, {duration(row['seconds'])}: {', '.join(texts) or 'nothing found'}")
        if out is not None:
            panels = [self.panel(i, image, *result) for i, result in enumerate(seen)]
            columns = columns_of(len(panels), image.width / image.height)
            with open_output(out) as add:
                add(grid([panels[i : i + columns] for i in range(0, len(panels), columns)]), 0.0)
        return None

    def find(self, i: int, one: Input, image: Any, show: Callable[[str], None]) -> tuple[dict[str, Any], Any]:
        """What the JSON says of detector i on the image, and what it found."""
        finder = self.finders[i]
        show(f"{one.name}: {self.captions[i]}")
        try:
            found, rows = finder.find(image, timed=True)
        except Unreadable as error:
            raise Unreadable(ValueError(f"{self.checkpoints[i]}: {error}")) from error
        told = {"image": one.name, "checkpoint": self.checkpoints[i], "model": finder.name}
        return {**told, "seconds": round(finder.seconds, 6), "detections": rows}, found

    def panel(self, i: int, image: Any, row: dict[str, Any], found: dict[str, Any]) -> Any:
        from boxops.draw import captioned, draw_detections

        labels = found["labels"].clone()
        for k, label in enumerate(labels.tolist()):
            name = name_of(label, self.finders[i].classes)
            labels[k] = self.labels.setdefault(name, len(self.labels) + 1)
        threshold = self.finders[i].args.threshold
        picture = draw_detections(image, {**found, "labels": labels}, list(self.labels), threshold)
        picture.thumbnail((LARGEST, LARGEST))
        count = len(row["detections"])
        objects = f"{count} object" + "s" * (count != 1)
        return captioned(picture, [self.captions[i], f"{duration(row['seconds'])}, {objects}"])


def captions(names: Sequence[str], checkpoints: Sequence[str]) -> list[str]:
    """The models' names, with the checkpoint's folder where two have one name, and its file where that is one too."""
    paths = [Path(os.path.abspath(path)) for path in checkpoints]
    folders = [f"{name} ({path.parent.name})" for name, path in zip(names, paths, strict=True)]
    files = [f"{name} ({path.parent.name}/{path.name})" for name, path in zip(names, paths, strict=True)]
    best = [folder if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)]
    return [file if best.count(text) > 1 else text for text, file in zip(best, files, strict=True)]


def columns_of(panels: int, ratio: float) -> int:
    """How many stand side by side: panels of that width over height as large as they can be, in full rows."""

    def size_and_gaps(columns: int) -> tuple[float, int]:
        rows = -(-panels // columns)
        return max(columns * ratio / WINDOW, rows), columns * rows - panels

    return min(range(panels, 0, -1), key=size_and_gaps)


def duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.{seconds < 0.01:d}f} ms"
