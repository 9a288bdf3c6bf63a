"""The metrics by their names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from boxops.evaluation.coco import Row, coco_ap
from boxops.evaluation.localization import localization
from boxops.evaluation.voc import voc_ap

# Those that are of boxes alone; "coco" is of masks and keypoints too.
OF_BOXES: dict[str, Callable[..., dict[str, float]]] = {
    "voc": voc_ap,
    "voc2007": partial(voc_ap, eleven_points=True),
    "localization": localization,
}


def check_metric(metric: str) -> None:
    if metric != "coco" and metric not in OF_BOXES:
        raise ValueError(f"evaluate: expected metric to be one of coco, {', '.join(OF_BOXES)}, got {metric!r}")


def measure(
    metric: str,
    ground_truth: Mapping[str, Any],
    rows: Sequence[Row],
    iou_types: Sequence[str],
    *,
    image_ids: Collection[int] | None,
    sigmas: Sequence[float] | None,
) -> dict[str, float]:
    """The values of a metric; see :func:`coco_ap` for the arguments."""
    if metric == "coco":
        return coco_ap(ground_truth, rows, iou_types, image_ids=image_ids, sigmas=sigmas)
    return OF_BOXES[metric](ground_truth, rows, image_ids=image_ids)
