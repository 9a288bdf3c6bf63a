"""Metrics of a result file against an annotation file, both in COCO's json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from boxops.data import BadData, Problem, segmentation
from boxops.evaluation.coco import TYPES, check_types
from boxops.evaluation.metrics import check_metric, measure

PARTS = {"images": ("id", "height", "width"), "annotations": ("id", "image_id", "category_id"),
         "categories": ("id", "name")}  # fmt: skip


def evaluate_files(
    annotations: str | Path,
    results: str | Path,
    iou_types: Iterable[str] | None = None,
    *,
    metric: str = "coco",
    image_ids: Iterable[int] | None = None,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """Average precision of a result file (a list of ``image_id``, ``category_id``, ``score`` and ``bbox``,
    ``segmentation`` or ``keypoints``).

    Args:
        annotations, results: the files.
        iou_types: of ``bbox``, ``segm``, ``keypoints``; by default what the first result has.
        metric: ``coco``, or ``voc``, ``voc2007`` or ``localization``, which are of boxes alone; see :func:`evaluate`.
        image_ids, sigmas: see :func:`coco_ap`.

    Raises:
        BadData: a ValueError; a file is none of COCO's, or an entry is corrupt or of other images or categories.
        OSError: a file cannot be read.
    """
    check_metric(metric)
    truth, rows = _load(annotations), _load(results)
    _check_truth(annotations, truth)
    if not isinstance(rows, list):
        raise _bad(results, "", f"expected a list of detections, got {type(rows).__name__}")
    if metric != "coco":
        iou_types = ["bbox"]
    elif iou_types is None:
        iou_types = [
            kind for kind, (_, key, _) in TYPES.items() if rows and isinstance(rows[0], dict) and key in rows[0]
        ]
    kinds = check_types(iou_types or ["bbox"])
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for i, annotation in enumerate(truth["annotations"], 1):
        needed = ["area", *(TYPES[kind][1] for kind in kinds)]
        _check(annotations, f"annotation {i}", annotation, kinds, sizes, categories, needed)
    for i, row in enumerate(rows, 1):
        needed = ["image_id", "category_id", "score", *(TYPES[kind][1] for kind in kinds)]
        _check(results, f"entry {i}", row, kinds, sizes, categories, needed)
    ids = None if image_ids is None else set(image_ids)
    return measure(metric, truth, rows, kinds, image_ids=ids, sigmas=sigmas)


def _load(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _bad(path, "", f"expected json, got {error}") from error


def _check_truth(path: str | Path, truth: Any) -> None:
    for part, keys in PARTS.items():
        if not isinstance(truth, dict) or not isinstance(truth.get(part), list):
            got = sorted(truth) if isinstance(truth, dict) else type(truth).__name__
            raise _bad(path, "", f"expected lists of {', '.join(PARTS)}, got {got}")
        for i, entry in enumerate(truth[part], 1):
            _check_keys(path, f"{part} {i}", entry, keys)


def _check_keys(path: str | Path, place: str, entry: Any, keys: Iterable[str]) -> None:
    missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if missing:
        got = sorted(entry) if isinstance(entry, dict) else type(entry).__name__
        raise _bad(path, place, f"expected {', '.join(missing)}, got {got}")


def _check(
    path: str | Path, place: str, entry: Any, kinds: list[str], sizes: dict[Any, Any], categories: set[Any],
    needed: list[str],
) -> None:  # fmt: skip
    _check_keys(path, place, entry, needed)
    for key, known in (("image_id", sizes), ("category_id", categories)):
        if not isinstance(entry[key], int) or entry[key] not in known:
            raise _bad(path, place, f"expected {key} of one in the annotation file, got {entry[key]!r}")
    for key in ("score", "area"):
        if key in needed:
            _numbers(path, place, key, [entry[key]], 1)
    if "bbox" in kinds:
        _numbers(path, place, "bbox", entry["bbox"], 4)
    if "keypoints" in kinds:
        _numbers(path, place, "keypoints", entry["keypoints"], None)
    if "segm" in kinds:
        try:
            segmentation.check(entry["segmentation"], *sizes[entry["image_id"]])
        except ValueError as error:
            raise _bad(path, place, str(error)) from error


def _numbers(path: str | Path, place: str, key: str, values: Any, count: int | None) -> None:
    good = isinstance(values, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values
    )
    if not good or (len(values) != count if count else len(values) % 3):
        raise _bad(path, place, f"expected {key} of {count or '3 K'} finite numbers, got {values!r}")


def _bad(path: str | Path, place: str, text: str) -> BadData:
    return BadData(Problem(str(path), place, text))
