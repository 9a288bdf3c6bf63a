"""What users call for a network's whole post-processing where they have no boxops: the rivals of postprocess.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import outputs, specialists, yolo_post
from .machine import later, rival

detection = rival("torchvision.models.detection")
later("ultralytics", "sahi")


def ultralytics(prediction: Any, conf: float, iou: float, **options: Any) -> list[Any]:
    """With more time than it gives itself, after which it would leave out images."""
    found: list[Any] = yolo_post.ultralytics_nms().non_max_suppression(
        prediction, conf, iou, max_det=300, max_time_img=60, **options
    )
    return found


def onnx_yolo(prediction: Any, conf: float = 0.001, iou: float = 0.7, max_det: int = 300) -> list[Any]:
    """The nodes of an exported network's end, and the best of each image."""
    xywh, scores = np.ascontiguousarray(prediction[:, :4].swapaxes(1, 2)), prediction[:, 4:]
    image, label, box = specialists.suppression(iou, conf, max_det, centre=True)(xywh, scores).T
    score = scores[image, label, box]
    found = []
    for index in range(len(prediction)):
        best = np.flatnonzero(image == index)
        best = best[np.argsort(-score[best], kind="stable")[:max_det]]
        boxes = xywh[index, box[best]]
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        found.append(np.concatenate([boxes, score[best, None], label[best, None]], axis=1))
    return found


def opencv_yolo(prediction: Any, conf: float = 0.001, iou: float = 0.7, max_det: int = 300) -> list[Any]:
    found = []
    for image in prediction:
        label, box = np.nonzero(image[4:] > conf)
        score, xywh = image[4:][label, box], image[:4].T[box]
        xywh[:, :2] -= xywh[:, 2:] / 2
        kept = np.asarray(specialists.opencv().dnn.NMSBoxesBatched(xywh, score, label, conf, iou), int)[:max_det]
        boxes = xywh[kept]
        boxes[:, 2:] += boxes[:, :2]
        found.append(np.concatenate([boxes, score[kept, None], label[kept, None]], axis=1))
    return found


def coder(weights: tuple[float, ...]) -> Any:
    return rival("torchvision.models.detection._utils").BoxCoder(weights)


def ssd(logits: Any, deltas: Any, anchors: Any, size: tuple[int, int]) -> Any:
    numbers = {"score_thresh": 0.01, "nms_thresh": 0.45, "detections_per_img": 200, "topk_candidates": 400}
    model = SimpleNamespace(box_coder=coder((10.0, 10.0, 5.0, 5.0)), **numbers)
    head = {"bbox_regression": deltas, "cls_logits": logits}
    images = [anchors] * len(deltas), [size] * len(deltas)
    return detection.ssd.SSD.postprocess_detections(model, head, *images)


def retinanet(logits: Any, deltas: Any, anchors: Any, size: tuple[int, int], levels: list[int]) -> Any:
    numbers = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 300, "topk_candidates": 1000}
    model = SimpleNamespace(box_coder=coder((1.0, 1.0, 1.0, 1.0)), **numbers)
    head = {"bbox_regression": deltas.split(levels, 1), "cls_logits": logits.split(levels, 1)}
    images = [anchors.split(levels)] * len(deltas), [size] * len(deltas)
    return detection.retinanet.RetinaNet.postprocess_detections(model, head, *images)


def faster_rcnn(logits: Any, deltas: Any, proposals: Any, size: tuple[int, int]) -> Any:
    numbers = {"score_thresh": 0.05, "nms_thresh": 0.5, "detections_per_img": 100}
    model = SimpleNamespace(box_coder=coder((10.0, 10.0, 5.0, 5.0)), **numbers)
    flat = logits.flatten(0, 1), deltas.flatten(2).flatten(0, 1)
    found = detection.roi_heads.RoIHeads.postprocess_detections(model, *flat, list(proposals), [size] * len(proposals))
    return list(zip(*found, strict=True))


@functools.cache
def listed(count: int) -> list[Any]:
    """SAHI's own objects, of outputs.slices."""
    from sahi.prediction import ObjectPrediction

    return [
        ObjectPrediction(bbox=row[:4], score=row[4], category_id=int(row[5]), category_name=str(int(row[5])))
        for row in outputs.slices(count)[0].tolist()
    ]


def sahi_objects(post: Callable[[], Any], rows: Any) -> np.ndarray:
    predictions = listed(len(rows))
    return np.array(post()(0.5, "IOU", class_agnostic=False)(predictions), object)


def sahi_class() -> Any:
    from sahi.postprocess.combine import NMSPostprocess

    return NMSPostprocess


def sahi_arrays(rows: Any) -> list[int]:
    from sahi.postprocess.combine import batched_nms

    kept: list[int] = batched_nms(rows, "IOU", 0.5)
    return kept


def by_row(batched_nms: Callable[..., Any], rows: Any) -> Any:
    return batched_nms(rows[:, :4], rows[:, 4], rows[:, 5], 0.5)
