"""COCO's average precision and recall, counted by faster-coco-eval. Lin et al. 2014; cocodataset.org, evaluation."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, distributed

import boxops
from boxops.data import segmentation

Row = dict[str, Any]  # one detection, as COCO's result files have it
# By COCO's word: the key in a detector's result, in COCO's json, and in the names of the metrics.
TYPES = {
    "bbox": ("boxes", "bbox", "box"),
    "segm": ("masks", "segmentation", "mask"),
    "keypoints": ("keypoints", "keypoints", "keypoint"),
}
AREAS = {"s": "small", "m": "medium", "l": "large"}


class Detections:
    """Detections of images as COCO's rows, gathered from all processes.

    Args:
        category_ids: of the data's classes, in their order.
        iou_types: of ``bbox``, ``segm`` and ``keypoints``, what to keep; what a model does not give is left out.
        categories: the category id of each label, None for labels whose detections are left out. If not given, label i
            is category_ids[i - 1]; or where labels exceed their number and all are category ids, labels are these.
    """

    def __init__(
        self,
        category_ids: Sequence[int],
        iou_types: Iterable[str] = ("bbox",),
        categories: Mapping[int, int | None] | None = None,
    ) -> None:
        self.iou_types = check_types(iou_types)
        positions, ids = dict(enumerate(category_ids, 1)), {i: i for i in category_ids}
        self._meanings = [positions, ids] if categories is None else [categories]  # those that fit all labels so far
        self.images: dict[int, list[Row]] = {}  # category_id is the label as the model gave it
        self.given: set[str] = set()  # types that the model gives

    def update(self, image_ids: Sequence[int], detections: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds what a detector gives for images: ``boxes`` ``[D, 4]`` xyxy, ``scores``, ``labels`` in 1..C ``[D]``,
        and as the types ask ``masks`` ``[D, 1, H, W]`` (bool, or of the object where > 0.5), ``keypoints``
        ``[D, K, 3]``. An image that comes again counts once."""
        for image_id, found in zip(image_ids, detections, strict=True):
            kinds = [kind for kind in self.iou_types if TYPES[kind][0] in found]
            self.given.update(kinds)
            labels, scores = found["labels"].tolist(), found["scores"].tolist()
            self._narrow(set(labels))
            columns = {TYPES[kind][1]: _column(kind, found[TYPES[kind][0]].detach().cpu()) for kind in kinds}
            self.images[image_id] = [
                {"image_id": image_id, "category_id": label, "score": score}
                | {key: column[d] for key, column in columns.items()}
                for d, (label, score) in enumerate(zip(labels, scores, strict=True))
            ]

    def _narrow(self, labels: set[int]) -> None:
        fitting = [meaning for meaning in self._meanings if labels <= meaning.keys()]
        if not fitting:
            known = sorted(self._meanings[0])
            some = f"{known[0]} to {known[-1]}" if known == [*range(known[0], known[-1] + 1)] else reprlib.repr(known)
            raise ValueError(f"expected labels of {some}, got {sorted(labels)}")
        self._meanings = fitting

    def gather(self) -> None:
        """Collective: every process then has the detections of all."""
        parts: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, (self.images, self.given))
        for images, given in parts:
            self.images |= images
            self.given |= given
        self._narrow({row["category_id"] for rows in self.images.values() for row in rows})

    def rows(self) -> list[Row]:
        """As COCO's result files have them, by image."""
        meaning, *others = self._meanings
        rows = [row for image in sorted(self.images) for row in self.images[image]]
        if any(other[label] != meaning[label] for other in others for label in {row["category_id"] for row in rows}):
            warnings.warn(
                "labels are taken for places in the data's classes, but could be its category ids: say which they are",
                stacklevel=3,
            )
        return [{**row, "category_id": own} for row in rows if (own := meaning[row["category_id"]]) is not None]


def _column(kind: str, values: Tensor) -> list[Any]:
    if kind == "segm":
        return [segmentation.encode((mask > 0.5).numpy()) for mask in values.float().squeeze(1)]
    values = boxops.box_convert(values.double(), "xyxy", "xywh") if kind == "bbox" else values.double()
    return values.flatten(1).tolist()


def check_types(iou_types: Iterable[str]) -> list[str]:
    kinds = [iou_types] if isinstance(iou_types, str) else list(iou_types)
    if not kinds or not set(kinds) <= set(TYPES):
        raise ValueError(f"expected iou_types of {', '.join(TYPES)}, got {kinds}")
    return kinds


def coco_ap(
    ground_truth: Mapping[str, Any],
    rows: Sequence[Row],
    iou_types: Iterable[str] = ("bbox",),
    *,
    image_ids: Collection[int] | None = None,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """COCO's metrics of detections.

    Args:
        ground_truth: as in COCO's json; not changed. Crowds as COCO has them: detections inside one are not counted.
            An annotation with ``ignore`` (VOC's difficult) is neither missed, nor is the detection it matches false.
        rows: as in COCO's result files, with ``bbox``, ``segmentation``, ``keypoints`` as the types ask.
        iou_types: of ``bbox``, ``segm``, ``keypoints``.
        image_ids: the images that count; all of the ground truth if None.
        sigmas: of each of the K keypoints, how exact it can be placed (OKS); by default COCO's for 17, else 0.05.

    Returns:
        For boxes and masks ``box_AP``, ``box_AP50``, ``box_AP75``, ``box_APs``, ``box_APm``, ``box_APl``, ``box_AR1``,
        ``box_AR10``, ``box_AR100``, ``box_ARs``, ``box_ARm``, ``box_ARl`` (``mask_``...); for keypoints
        ``keypoint_AP``, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl; then for each class ``box_AP/NAME`` and
        ``box_AP50/NAME``. In 0..1; -1 where there is nothing to find, as COCO has it.
    """
    counted = set(image_ids) if image_ids is not None else {image["id"] for image in ground_truth["images"]}
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    metrics: dict[str, float] = {}
    for kind in check_types(iou_types):
        run = _count(kind, ground_truth, [row for row in rows if row["image_id"] in counted], counted, sigmas)
        found = _summary(kind, run)
        precision = run.eval["precision"]  # [T, R, K, A, M]: IoU, recall, class, area, detections
        for k, category in enumerate(run.params.catIds):
            found[f"AP/{names[category]}"] = _mean(precision[:, :, k, 0, -1])
            found[f"AP50/{names[category]}"] = _mean(precision[0, :, k, 0, -1])
        metrics |= {f"{TYPES[kind][2]}_{name}": value for name, value in found.items()}
    return metrics


def _count(kind: str, truth: Mapping[str, Any], rows: list[Row], images: set[int], sigmas: Any) -> Any:
    from faster_coco_eval import COCO, COCOeval_faster

    key = TYPES[kind][1]
    others = {other for _, other, _ in TYPES.values()} - {key}  # COCO takes areas from boxes where there are both
    annotations = [a for a in truth["annotations"] if a["image_id"] in images and key in a]
    gt = COCO({"info": {}, "images": [dict(image) for image in truth["images"] if image["id"] in images],
               "categories": [dict(category) for category in truth["categories"]],
               "annotations": [_annotation(kind, i, a) for i, a in enumerate(annotations, 1)]})  # fmt: skip
    found = gt.loadRes([{k: v for k, v in row.items() if k not in others} for row in rows])
    if kind == "keypoints" and sigmas is None:
        count = max((len(a[key]) // 3 for a in [*annotations, *rows]), default=17)
        sigmas = None if count == 17 else [0.05] * count
    run = COCOeval_faster(gt, found, kind, print_function=lambda *_: None, kpt_oks_sigmas=sigmas)
    run.params.catIds = sorted(category["id"] for category in truth["categories"])
    run.evaluate()
    run.accumulate()
    return run


def _annotation(kind: str, number: int, annotation: Mapping[str, Any]) -> Row:
    """A copy, numbered (0 would mean unmatched). COCO's code overwrites ``ignore``, but it ignores what is in no range
    of areas, and people without keypoints."""
    own = {**annotation, "id": number}
    if kind == "keypoints":
        own.setdefault("num_keypoints", sum(v > 0 for v in own["keypoints"][2::3]))
    if annotation.get("ignore") and not annotation.get("iscrowd"):
        own |= {"num_keypoints": 0} if kind == "keypoints" else {"area": -1.0}
    return own


def _summary(kind: str, run: Any) -> dict[str, float]:
    p, r = run.eval["precision"], run.eval["recall"]  # [T, R, K, A, M], [T, K, A, M]
    areas = {
        letter: run.params.areaRngLbl.index(area) for letter, area in AREAS.items() if area in run.params.areaRngLbl
    }
    half, three_quarters = 0, 5  # of the IoUs 0.5, 0.55, ..., 0.95
    ap = {"AP": p[..., 0, -1], "AP50": p[half, ..., 0, -1], "AP75": p[three_quarters, ..., 0, -1]}
    ap |= {f"AP{letter}": p[..., a, -1] for letter, a in areas.items()}
    if kind == "keypoints":
        ar = {"AR": r[..., 0, -1], "AR50": r[half, ..., 0, -1], "AR75": r[three_quarters, ..., 0, -1]}
    else:
        ar = {f"AR{most}": r[..., 0, m] for m, most in enumerate(run.params.maxDets)}
    ar |= {f"AR{letter}": r[..., a, -1] for letter, a in areas.items()}
    return {name: _mean(values) for name, values in (ap | ar).items()}


def _mean(values: Any) -> float:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else -1.0
