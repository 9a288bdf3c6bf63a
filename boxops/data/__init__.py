"""Detection data sets: COCO json, Pascal VOC xml, YOLO text, CSV rows and generated shapes behind one class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from boxops.data import selection, transforms
from boxops.data.coco import Coco
from boxops.data.dataset import BadData, DetectionDataset, Problem, collate
from boxops.data.find import kind_of
from boxops.data.shapes import Shapes
from boxops.data.splits import NoSuchSplit
from boxops.data.table import Table
from boxops.data.voc import Voc
from boxops.data.yolo import Yolo

KINDS: dict[str, Callable[..., DetectionDataset]] = {
    "shapes": Shapes,
    "coco": Coco,
    "voc": Voc,
    "yolo": Yolo,
    "csv": Table,
}


def open_dataset(
    kind: str,
    root: Any = None,
    *,
    split: str = "train",
    transform: Any = None,
    on_bad: str = "skip",
    seed: int = 0,
    only: Sequence[str] | None = None,
    one_object: bool = False,
    **options: Any,
) -> DetectionDataset:
    """Opens a data set by the name of its kind.

    Args:
        kind: ``shapes``, ``coco``, ``voc``, ``yolo``, ``csv``, or ``auto``: what the files look like,
            see :func:`kind_of`.
        root: the folder of the data; ``shapes`` has none.
        split: ``train``, ``val`` or what the files call it.
        transform: ``f(image, target) -> (image, target)``, such as :func:`boxops.data.transforms.train` gives.
        on_bad: ``skip`` leaves bad annotations and images out, listed in ``problems``; ``raise`` stops at the first.
        seed: of the transforms' random numbers, and of the shapes.
        only: take the objects of these classes alone, label 1 for the first; ``notes`` count the others.
        one_object: every object is a sample of its own, see :meth:`DetectionDataset.one_object`; ``shapes`` are drawn
            one an image.
        options: of the kind: see :class:`Shapes`, :class:`Coco`, :class:`Voc`, :class:`Yolo`, :class:`Table`.

    Raises:
        BadData: a file as a whole cannot be read, no image is left, or on_bad is ``raise`` and something is bad.
        FileNotFoundError: annotations or images are not where they were expected; NoSuchSplit: those of this split.
        TypeError: the kind has no such option.
        ValueError: an argument is out of range, or what the files are is not clear.
    """
    if kind == "auto":
        kind = kind_of(root, options.get("annotations"))
    if kind not in KINDS:
        raise ValueError(f"open_dataset: expected a kind of {', '.join(KINDS)} or auto, got {kind!r}")
    if not isinstance(one_object, bool):
        raise ValueError(f"one_object: expected true or false, got {one_object!r}")
    known = [*[*inspect.signature(KINDS[kind]).parameters][5:], "only", "one_object"]
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"{kind}: expected options of {', '.join(known)}, got {', '.join(unknown)}")
    data = KINDS[kind](root, split=split, transform=transform, on_bad=on_bad, seed=seed, **options)
    if only is not None:
        selection.only(data, only)
    return data.one_object() if one_object else data


__all__ = [
    "BadData",
    "Coco",
    "DetectionDataset",
    "NoSuchSplit",
    "Problem",
    "Shapes",
    "Table",
    "Voc",
    "Yolo",
    "collate",
    "kind_of",
    "open_dataset",
    "transforms",
]
