"""Checks of values that a file gave; each raises a ValueError that says what was expected and what came."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import numpy as np

Id = int | str


def numbers(value: Any, count: int | None = None, what: str = "") -> list[float]:
    """The value as a list of finite numbers, or a ValueError that says what came. A text may be a number."""
    if isinstance(value, (list, tuple)) and str in map(type, value):
        with suppress(ValueError):
            value = [float(x) if isinstance(x, str) else x for x in value]
    good = isinstance(value, (list, tuple)) and (count is None or len(value) == count)
    good = good and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value)
    if not good or not all(abs(x) < 1e9 for x in value):  # never of a NaN
        raise ValueError(
            f"expected {f'{count} ' if count else ''}finite numbers below 1e9{what}, got {reprlib.repr(value)}"
        )
    return [float(x) for x in value]


def integer(value: Any, name: str) -> int:
    """The value as an integer, which files may write as 1, 1.0, "1" or "1.0"."""
    number = value
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,19}(\.0*)?\s*", value):
        number = int(value.partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool) or abs(number) >= 2**63:
        raise ValueError(f"expected {name}, an integer, got {reprlib.repr(value)}")
    return number


def identity(value: Any, name: str) -> Id:
    """The value as an id: an integer, or a text that is none."""
    if type(value) is int and -(2**63) < value < 2**63:  # of almost all, and there are millions
        return value
    if isinstance(value, str) and value:
        try:
            return integer(value, name)
        except ValueError:
            return value
    return integer(value, name)


def numbered(ids: Collection[Id]) -> dict[Id, int]:
    """The ids as integers: their own, or if one of them is a text, all counted from 1."""
    counted = any(isinstance(own, str) for own in ids)
    return {own: number if counted else int(own) for number, own in enumerate(ids, 1)}


def class_list(classes: Any) -> list[str]:
    """The argument ``classes`` of a data set as a list of names, each once."""
    if isinstance(classes, str):
        raise ValueError(
            f"classes: expected a list of names, as {classes.split(',')}, got a text, {classes!r}, whose letters would "
            "be the names"
        )
    names = list(classes)
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise ValueError(f"classes: expected a list of names, each once, got {reprlib.repr(names)}")
    return names


def clip(box: Any, width: int, height: int) -> tuple[list[float], float]:
    """The part of the box inside the image, and by how many pixels it stood out."""
    x1, y1, x2, y2 = numbers(box, 4, " for a box")
    shown = [round(x, 2) for x in (x1, y1, x2, y2)]
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"expected a box with x1 < x2 and y1 < y2, got {shown}")
    box = [max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)]
    kept = np.array(box, np.float32)  # as which it is stored: a sliver may round away
    if not (kept[:2] < kept[2:]).all():
        raise ValueError(f"expected a box in the image of {width} x {height}, got {shown}")
    return box, max(-x1, -y1, x2 - width, y2 - height)


def check_keypoints(value: Any, count: int) -> list[float]:
    if value is None:
        return [0.0] * (3 * count)
    points = numbers(value, 3 * count, f" for {count} keypoints")
    if not {0, 1, 2}.issuperset(points[2::3]):
        raise ValueError(f"expected keypoints of visibility 0, 1 or 2, got {reprlib.repr(points[2::3])}")
    return points


def label_of(labels: dict[Any, int], category: Any) -> int:
    try:
        return labels[category]
    except (KeyError, TypeError):  # TypeError: a list or a dict where an id should be
        known = reprlib.repr(list(labels))
        raise ValueError(f"expected a category of {known}, got {reprlib.repr(category)}") from None
