"""COCO's segmentations: polygons and run lengths, checked here because the C code behind them trusts its input."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

from boxops.data.checks import numbers


def mask_api() -> Any:
    """The mask functions of faster-coco-eval, or of pycocotools: they are the same."""
    try:
        from faster_coco_eval.core import mask
    except ImportError:
        from pycocotools import mask
    return mask


def check(value: Any, height: int, width: int) -> None:
    """Raises ValueError unless the value is a segmentation of an image of this size."""
    if isinstance(value, list) and value:
        for polygon in value:
            _check_polygon(polygon, height, width)
    elif isinstance(value, dict) and "size" in value and "counts" in value:
        if value["size"] != [height, width]:
            raise ValueError(f"expected run lengths of size [{height}, {width}], got {reprlib.repr(value['size'])}")
        counts = value["counts"]
        runs = _uncompress(counts) if isinstance(counts, str) else counts
        if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
            raise ValueError(f"expected run lengths of 0 and more, got {reprlib.repr(runs)}")
        if sum(runs) != height * width:
            raise ValueError(f"expected run lengths with the sum {height * width}, got {sum(runs)}")
    else:
        raise ValueError(f"expected polygons or run lengths as segmentation, got {reprlib.repr(value)}")


def box(value: Any) -> list[float]:
    """The least box x1, y1, x2, y2 around a segmentation. Raises ValueError where there is none."""
    if isinstance(value, list) and value:
        points = [x for polygon in value for x in numbers(polygon, what=" for a polygon")]
        xs, ys = points[::2], points[1::2]
        if xs and ys:
            return [min(xs), min(ys), max(xs), max(ys)]
    if isinstance(value, dict) and isinstance(size := value.get("size"), list) and len(size) == 2:
        check(value, *size)
        x, y, width, height = mask_api().toBbox(_runs(value, *size)).reshape(-1).tolist()
        return [x, y, x + width, y + height]
    raise ValueError(f"expected polygons or run lengths to have a box of, got {reprlib.repr(value)}")


def _check_polygon(polygon: Any, height: int, width: int) -> None:
    points = np.array(numbers(polygon, what=" for a polygon"))
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"expected a polygon of 3 points or more, got {len(points)} numbers")
    # Far points would cost memory for every pixel of the way.
    middle = np.array([width, height]) / 2
    if (abs(points.reshape(-1, 2) - middle) > 3 * middle).any():
        raise ValueError(f"expected a polygon near the image of {width} x {height}, got {reprlib.repr(polygon)}")


def _uncompress(text: str) -> list[int]:
    """The run lengths in a compressed string: five bits a character, the lowest first, a sixth that says whether the
    number goes on; from the fourth on each is the difference to the last but one (cocoapi, maskApi.c)."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"expected compressed run lengths, got {reprlib.repr(text)}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits >> 4 & 1) << shift  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError(f"expected compressed run lengths, got a text cut off: {reprlib.repr(text)}")
    return runs


def decode(value: Any, height: int, width: int) -> np.ndarray:
    """The mask of a checked segmentation, uint8 [H, W] of 0 and 1."""
    runs = _runs(value, height, width)
    return mask_api().decode(mask_api().merge(runs) if isinstance(runs, list) else runs)


def _runs(value: Any, height: int, width: int) -> Any:
    """A checked segmentation as the C code has it: a list of run lengths for polygons, else one."""
    if isinstance(value, dict) and isinstance(value["counts"], str):
        return {**value, "counts": value["counts"].encode()}
    return mask_api().frPyObjects(value, height, width)


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Compressed run lengths of a mask [H, W], ready for json."""
    rle = mask_api().encode(np.asfortranarray(mask, np.uint8))
    return {
        "size": list(mask.shape),
        "counts": rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"],
    }
