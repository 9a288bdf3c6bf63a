"""`boxops data check`: what a data set holds, what is wrong in it, and a picture of its boxes."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from boxops.cli.common import UserError, add_format_arguments, data_kind, one_line_errors, open_data, user_errors

ROWS, COLUMNS, SIDE = 4, 3, 640  # of the contact sheet, and the longer side of its images in pixels
MOST_CLASSES, MOST_PROBLEMS = 40, 10  # that the terminal shows
SHEET = "check.jpg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Says what a data set holds and what is wrong in it. Exit status: 0 clean, 1 problems, 2 it cannot be read."
    )
    parser.add_argument("root", metavar="PATH", help="the folder of the data, or its json, csv or yaml")
    add_format_arguments(parser)
    parser.add_argument("--split", metavar="NAME", help="only this one; by default train, val and test where they are")
    parser.add_argument("--out", type=Path, metavar="PICTURE", help=f"a contact sheet of boxes ({SHEET})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was found, every problem too")
    parser.add_argument("--overwrite", action="store_true", help="of --out and --json write over existing files")
    parser.set_defaults(on_bad="skip")
    parser.add_argument("--quick", action="store_true", help="decode no image: broken and equal files are not found")


@one_line_errors
def run(args: argparse.Namespace) -> int:
    with user_errors():
        from rich.console import Console

        from boxops.data.find import IMAGES

        for flag, file in (("--out", args.out), ("--json", args.json)):
            if file is not None and file.exists() and not args.overwrite:
                raise UserError(f"{flag}: expected a new file, got {file}, which exists: --overwrite writes over it")
        if args.out is not None and args.out.suffix.lower() not in IMAGES:
            raise UserError(f"--out: expected the name of a picture, such as {SHEET}, got {args.out}")
        root = Path(args.root)
        if root.suffix.lower() == ".json" and args.annotations is None:
            args.root, args.annotations = str(root.parent), str(root)
        kind = data_kind(args)
        console = Console(highlight=False)
        splits, problems = open_all(args)
        hashes = {} if args.quick else decode(splits, problems)
        found = {"path": str(root), "kind": kind, **summary(splits), "problems": problems, "equal": equal(hashes)}
        tell(console, found)
        sheet = args.out or Path(SHEET)
        if args.out is None and sheet.exists() and not args.overwrite:
            console.print(f"{sheet} exists, no picture is drawn: --overwrite draws it anew, --out elsewhere")
        else:
            draw_sheet(splits).save(sheet)
            console.print(f"boxes drawn: {sheet}", markup=False)
        if args.json is not None:
            args.json.write_text(json.dumps(found, indent=1))
    return 1 if problems or found["equal"] else 0


def open_all(args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The splits by name, and what was found bad in them."""
    from boxops.data import BadData, NoSuchSplit

    splits: dict[str, Any] = {}
    problems: dict[Any, None] = {}
    missing: OSError | ValueError | None = None
    seen: set[str] = set()
    for name in (args.split,) if args.split else ("train", "val", "test", "trainval"):
        try:
            data = open_data(args, name, masks=False, keypoints=False)
        except NoSuchSplit as error:
            missing = missing or error
            continue
        except BadData as error:
            missing = error
            problems[error.problem] = None
            continue
        problems |= dict.fromkeys(data.problems)
        files = {str(record.path) for record in data.records()}
        if not files <= seen:  # else another name of what was there, or VOC's trainval
            splits["all" if data.undivided else name] = data
        seen |= files
        if data.undivided:
            break
    if not splits:
        assert missing is not None
        raise missing
    return splits, [{"file": p.file, "place": p.place, "text": p.text} for p in problems]


def decode(splits: dict[str, Any], problems: list[dict[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Decodes every image, adds those that fail to the problems, and gives (split, file) by the file's bytes."""
    from rich.console import Console
    from rich.progress import track

    from boxops.data import BadData

    def one(place: tuple[str, Any, int]) -> tuple[str, str, str, Any]:
        name, data, index = place
        path = data.image_path(index)
        try:
            data.image(index)
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        except BadData as error:
            return name, str(path), "", error.problem
        return name, str(path), digest, None

    files: dict[str, list[tuple[str, str]]] = defaultdict(list)
    places = [(name, data, index) for name, data in splits.items() for index in range(len(data))]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoders leave Python's lock
        done = pool.map(one, places)
        for name, path, digest, problem in track(
            done, "decoding", len(places), console=Console(stderr=True), transient=True
        ):
            if problem is not None:
                told = {"file": problem.file, "place": problem.place, "text": problem.text}
                problems += [told] * (told not in problems)  # of all parts of one image
            else:
                files[digest].append((name, path))
    return files


def equal(hashes: dict[str, list[tuple[str, str]]]) -> list[list[str]]:
    """Groups of files with the same bytes in more than one split."""
    return [[path for _, path in group] for group in hashes.values() if len({name for name, _ in group}) > 1]


def summary(splits: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    classes = list(dict.fromkeys(name for data in splits.values() for name in data.classes))
    counts = {name: dict.fromkeys(classes, 0) for name in splits}
    told = {}
    sizes: list[np.ndarray] = []
    for name, data in splits.items():
        records = data.records()
        for record in records:
            for label in record.labels.tolist():
                counts[name][data.classes[label - 1]] += 1
            sizes.append(record.boxes[:, 2:] - record.boxes[:, :2])
        empty = sum(not len(record.labels) for record in records)
        told[name] = {"images": len(records), "objects": sum(counts[name].values()), "without_objects": empty}
    images = np.array([(record.width, record.height) for data in splits.values() for record in data.records()])
    return {
        "splits": told,
        "notes": {name: data.notes for name, data in splits.items()},
        "classes": {key: {name: counts[name][key] for name in splits} for key in classes},
        "image_sizes": _three(images),
        "box_sizes": _three(np.concatenate(sizes)),
    }


def _three(sizes: Any) -> dict[str, list[float]]:
    """Those of the least, median and greatest area."""
    if not len(sizes):
        return {}
    order = sizes.prod(1).argsort(kind="stable")
    middle = {"least": 0, "median": len(order) // 2, "greatest": -1}
    return {name: [round(float(side), 1) for side in sizes[order[k]]] for name, k in middle.items()}


def tell(console: Any, found: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def table(*columns: str) -> Any:
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        shown.add_column(columns[0], overflow="ellipsis", no_wrap=True)
        for column in columns[1:]:
            shown.add_column(Text(column), justify="right", no_wrap=True)
        return shown

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    say(f"{found['path']}: {found['kind']}")
    shown = table("split", "images", "without objects", "objects")
    for name, numbers in found["splits"].items():
        shown.add_row(Text(name), *(str(numbers[key]) for key in ("images", "without_objects", "objects")))
    console.print(shown)
    splits = list(found["splits"])
    several = ["all"] * (len(splits) > 1)
    shown = table("class", *splits, *several)
    order = sorted(found["classes"].items(), key=lambda item: -sum(item[1].values()))
    for name, numbers in order[:MOST_CLASSES]:
        shown.add_row(Text(name), *map(str, numbers.values()), *(str(sum(numbers.values())) for _ in several))
    console.print(shown)
    if len(order) > MOST_CLASSES:
        most = sum(order[MOST_CLASSES][1].values())
        say(f"and {len(order) - MOST_CLASSES} classes more, of {most} objects at the most; --json FILE has all\n")
    shown = table("pixels", "least", "median", "greatest")
    for name, key in (("images", "image_sizes"), ("boxes", "box_sizes")):
        shown.add_row(name, *(" x ".join(f"{side:g}" for side in size) for size in found[key].values()))
    console.print(shown)
    for name, notes in found["notes"].items():
        for note in notes:
            say(f"note of {name}: {note}")
    problems = found["problems"]
    say(f"{len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
    for problem in problems[:MOST_PROBLEMS]:
        where = ", ".join(part for part in (problem["file"], problem["place"]) if part)
        say(f"  {where}: {problem['text']}")
    if len(problems) > MOST_PROBLEMS:
        say(f"  and {len(problems) - MOST_PROBLEMS} more; --json FILE has all")
    if found["equal"]:
        say(f"{len(found['equal'])} images are in more than one split, such as {' = '.join(found['equal'][0])}")


def draw_sheet(splits: dict[str, Any]) -> Any:
    """Images chosen evenly, those with objects first, with their boxes."""
    import torch
    from PIL import Image, ImageOps

    from boxops.data import BadData
    from boxops.draw import draw_detections, grid

    places = [(name, data, k) for name, data in splits.items() for k in range(len(data))]
    places = [place for place in places if len(place[1].records()[place[2]].labels)] or places
    count = min(len(places), ROWS * COLUMNS)
    pictures = []
    for name, data, k in (places[round(i * (len(places) - 1) / max(1, count - 1))] for i in range(count)):
        record = data.records()[k]
        try:
            image = data.image(k)
        except BadData:
            continue
        shown = ImageOps.contain(image, (SIDE, SIDE))
        boxes = torch.from_numpy(record.boxes) * (shown.width / image.width)
        labels = torch.from_numpy(record.labels)
        title = f"{name}: {record.path.name}"
        title = title if len(title) <= 60 else f"{title[:28]}...{title[-28:]}"
        drawn = draw_detections(shown, {"boxes": boxes, "labels": labels}, data.classes, title=title)
        cell = Image.new("RGB", (SIDE, drawn.height), "white")
        cell.paste(drawn)
        pictures.append(cell)
    if not pictures:
        raise UserError("expected images that can be decoded, got none")
    return grid([pictures[k : k + COLUMNS] for k in range(0, len(pictures), COLUMNS)])
