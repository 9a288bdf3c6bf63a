"""Records in another frame: that of the upright image, or of a smaller one.

Images are read upright, as EXIF says (:mod:`boxops.data.images`). The annotations are those of the upright image where
their size is its size, as browsers, labelme, CVAT, OpenCV and ultralytics see it, and where no size is given; they are
of the image as stored, and are turned with it, where their size is only that. A half turn, a mirror image and a square
have one size in both frames: there the annotations are upright. Another size is an error.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from boxops.data import segmentation
from boxops.data.images import SIDEWAYS, TURNS, Header
from boxops.data.records import Record


def upright(record: Record, header: Header) -> Record:
    """The record in the frame of the upright image; ValueError if it is of an image of another size."""
    annotated = record.width, record.height
    if annotated == header.size:
        return record
    if annotated != header.size[::-1] or header.orientation not in SIDEWAYS:
        got = "{} x {}".format(*header.size)
        raise ValueError("expected an image of {} x {}, as annotated, got {}".format(*annotated, got))
    return _turned(record, header.orientation)


def _turned(record: Record, orientation: int) -> Record:
    """Width and height swapped."""
    first, second = (_turn(record.boxes[:, k : k + 2], record, orientation) for k in (0, 2))
    keypoints = record.keypoints
    if keypoints is not None:  # of pixels, the first being 0; those without visibility stay at 0
        points = _turn(keypoints[..., :2], record, orientation, last=1)
        keypoints = np.concatenate([points * (keypoints[..., 2:] > 0), keypoints[..., 2:]], -1)
    return replace(
        record,
        width=record.height,
        height=record.width,
        boxes=np.concatenate([np.minimum(first, second), np.maximum(first, second)], -1),
        segmentations=[_turn_segmentation(text, record, orientation) for text in record.segmentations],
        keypoints=keypoints,
    )


def _turn(points: np.ndarray, record: Record, orientation: int, last: int = 0) -> np.ndarray:
    """Points x, y [..., 2] of the stored image in the upright one; the far edges are at width - last, height - last."""
    x, y = points[..., 0], points[..., 1]
    if orientation in (7, 8):
        x = record.width - last - x
    if orientation in (6, 7):
        y = record.height - last - y
    return np.stack([y, x], -1)


def _turn_segmentation(text: bytes, record: Record, orientation: int) -> bytes:
    value: Any = json.loads(text)
    if isinstance(value, list):
        value = [_turn(np.reshape(polygon, (-1, 2)), record, orientation).ravel().tolist() for polygon in value]
    else:
        mask = Image.fromarray(segmentation.decode(value, record.height, record.width))
        value = segmentation.encode(np.asarray(mask.transpose(TURNS[orientation])))
    return json.dumps(value).encode()


def smaller(record: Record, factor: int) -> Record:
    """The record for the image read smaller by a power of two. Areas stay those of the objects as annotated, and
    segmentations in the pixels of the original: see :func:`masks`."""
    if factor == 1:
        return record
    return replace(
        record,
        width=-(-record.width // factor),
        height=-(-record.height // factor),
        boxes=record.boxes / factor,
        keypoints=None if record.keypoints is None else record.keypoints / np.array([factor, factor, 1], np.float32),
    )


def masks(record: Record, factor: int) -> np.ndarray:
    """uint8 [G, H, W] of the image read smaller by a factor, from the record of the full one."""
    small = smaller(record, factor)
    shape = small.height, small.width
    found = [_mask(json.loads(text), record, shape, factor) for text in record.segmentations]
    return np.stack(found) if found else np.zeros((0, *shape), np.uint8)


def _mask(value: Any, record: Record, shape: tuple[int, int], factor: int) -> np.ndarray:
    if factor == 1:
        return segmentation.decode(value, *shape)
    if isinstance(value, list):
        return segmentation.decode([np.divide(polygon, factor).tolist() for polygon in value], *shape)
    full = Image.fromarray(255 * segmentation.decode(value, record.height, record.width))
    return (np.asarray(full.reduce(factor)) > 127).astype(np.uint8)
