"""Images of one object each, cut out of images of several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import boxops
from boxops.data.images import Enough, decode, factor
from boxops.data.records import Record, Window, take

OTHER = 0.3  # most of another object's area that a window shows
FILLED = 0.8  # most of a window's area that its object takes
# Windows that are tried, and the most of the object's width and height that they show on each side of it: the
# first ones show much around it, the last ones are for objects among others.
MARGINS = np.geomspace(1.5, 0.1, 128)


def cut(records: Sequence[Record]) -> tuple[list[Record], str]:
    """A record for each object, of a window that shows all of it and little of others; and how many, in words.

    Of any other object the window shows at most ``OTHER`` of its area. The object lies anywhere in the window and takes
    from a sixteenth to ``FILLED`` of it. The window is of whole pixels and a function of the name of the image's file
    and the object's place in it: the same in every split and folder, whatever the seed. Crowds and difficult objects
    are others, but get no windows; objects of which there is none are left out.

    Args:
        records: of upright images, without masks and keypoints.
    """
    found: list[Record] = []
    unwanted = hidden = 0
    for record in records:
        assert record.path is not None
        name = int.from_bytes(hashlib.sha1(record.path.name.encode(errors="surrogateescape")).digest()[:8], "big")
        counted = record.counted
        for g in range(len(record.boxes)):
            if not counted[g]:
                unwanted += 1
            elif (window := find_window(record, g, np.random.default_rng((name, g)))) is None:
                hidden += 1
            else:
                found.append(_part(record, g, window, len(found) + 1))
    told = f"one_object: {len(found)} parts of {len(records)} images, each of one object"
    for count, why in ((hidden, "no part shows without others"), (unwanted, "are crowds or difficult")):
        told += f"; {count} objects left out that {why}" * (count > 0)
    return found, told


def find_window(record: Record, g: int, random: np.random.Generator) -> Window | None:
    """The first window around object g that shows enough beside it and little of others; None if there is none."""
    boxes = record.boxes.astype(np.float64)
    box, others = boxes[g : g + 1], np.delete(boxes, g, axis=0)
    margins = random.random((len(MARGINS), 4)) * MARGINS[:, None] * np.tile(box[:, 2:] - box[:, :2], 2)
    corners = np.concatenate([np.floor(box[:, :2] - margins[:, :2]), np.ceil(box[:, 2:] + margins[:, 2:])], axis=1)
    windows = boxops.clip_boxes_to_image(corners, (record.height, record.width))
    good = boxops.box_ioa(box, windows)[0] <= FILLED
    good &= (boxops.box_ioa(windows, others) <= OTHER).all(axis=1)
    if not good.any():
        return None
    x1, y1, x2, y2 = map(int, windows[good.argmax()])
    return Window(x1, y1, x2, y2, (record.width, record.height))


def _part(record: Record, g: int, window: Window, number: int) -> Record:
    alone = take(record, np.array([g]))
    alone.boxes -= np.array([window.x1, window.y1] * 2, np.float32)
    return replace(alone, id=number, width=window.x2 - window.x1, height=window.y2 - window.y1, window=window)


def read(path: Path, window: Window, enough: Enough | None) -> Image.Image:
    """The window of an image, halved as ``enough`` says; ValueError if the image is of another size."""
    image, _ = decode(path)
    if image.size != window.whole:
        raise ValueError("expected an image of {} x {}, as annotated, got {} x {}".format(*window.whole, *image.size))
    image = image.crop(window[:4])
    return image.reduce(factor(image.size, enough))
