"""What a user writes with boxops for a network's whole post-processing, as docs/postprocessing.md shows it.

B images, A places or anchors, C classes.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

import boxops

from .machine import rival

if TYPE_CHECKING:
    from torch import Tensor

torch = rival("torch")


def yolo_multi_label(prediction: Tensor, conf: float = 0.001, iou: float = 0.7, max_det: int = 300) -> list[Tensor]:
    found = []
    for image in prediction.float().mT:  # [A, 4 + C]
        image = image[image[:, 4:].amax(dim=1) > conf]
        boxes = boxops.box_convert(image[:, :4], "cxcywh", "xyxy")
        boxes, scores, labels, counts = boxops.detect(boxes[None], image[None, :, 4:], conf, iou, max_det)
        rows = torch.cat([boxes, scores[..., None], labels[..., None]], dim=2)[0]  # [max_det, 6]
        found.append(rows[: int(counts)])
    return found


def yolo_arrays(prediction: np.ndarray, conf: float = 0.001, iou: float = 0.7, max_det: int = 300) -> list[np.ndarray]:
    boxes = boxops.box_convert(prediction[:, :4].swapaxes(1, 2).astype(np.float32), "cxcywh", "xyxy")
    scores = np.ascontiguousarray(prediction[:, 4:].swapaxes(1, 2), np.float32)
    boxes, scores, labels, counts = boxops.detect(boxes, scores, conf, iou, max_det)
    rows = np.concatenate([boxes, scores[..., None], labels[..., None].astype(boxes.dtype)], axis=2)
    return [row[:count] for row, count in zip(rows, counts, strict=True)]


def yolo_best_class(prediction: Tensor, conf: float = 0.25, iou: float = 0.7, max_det: int = 300) -> list[Tensor]:
    found = []
    for image in prediction.float().mT:  # [A, 4 + C]
        image = image[image[:, 4:].amax(dim=1) > conf]
        scores, labels = image[:, 4:].max(dim=1)
        boxes = boxops.box_convert(image[:, :4], "cxcywh", "xyxy")
        kept = boxops.batched_nms(boxes, scores, labels, iou)[:max_det]
        found.append(torch.cat([boxes, scores[:, None], labels[:, None]], dim=1)[kept])
    return found


def yolo_rotated(
    prediction: Tensor, classes: int, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
) -> list[Tensor]:
    found = []
    for image in prediction.float().mT:  # [A, 4 + C + 1]
        image = image[image[:, 4 : 4 + classes].amax(dim=1) > conf]
        scores, labels = image[:, 4 : 4 + classes].max(dim=1)
        xywh, angle = image[:, :4], image[:, -1:]
        boxes = torch.cat([xywh, -angle.rad2deg()], dim=1)  # boxops turns counter-clockwise, in degrees
        kept = boxops.batched_rotated_nms(boxes, scores, labels, iou)[:max_det]
        found.append(torch.cat([xywh, scores[:, None], labels[:, None], angle], dim=1)[kept])
    return found


def ssd(logits: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    boxes = boxops.decode_boxes(deltas, anchors, (10, 10, 5, 5), image_size=size)  # [B, A, 4]
    scores = logits.float().softmax(dim=-1)[..., 1:]
    boxes, scores, labels, counts = boxops.detect(boxes, scores, 0.01, 0.45, 200, topk_per_class=400)
    return boxes, scores, labels + 1, counts


def faster_rcnn(logits: Tensor, deltas: Tensor, proposals: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
    boxes = boxops.decode_boxes(
        deltas[:, :, 1:], proposals[:, :, None], (10, 10, 5, 5), image_size=size
    )  # [B, P, C, 4]
    scores = logits.float().softmax(dim=-1)[..., 1:]
    boxes, scores, labels, counts = boxops.detect(boxes, scores, 0.05, 0.5, 100, min_size=1e-2)
    return boxes, scores, labels + 1, counts


def retinanet(
    logits: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int], levels: list[int]
) -> tuple[Tensor, ...]:
    from boxops.models.dense import candidates, suppress

    # Anchors, classes and logits [B, N] of the best pairs on each level; levels: the anchors that each has.
    at, labels, best = candidates(logits.float(), levels, 1000)
    deltas = deltas[torch.arange(len(at), device=at.device)[:, None], at]  # [B, N, 4]
    boxes = boxops.decode_boxes(deltas, anchors[at], image_size=size)
    found, counts = suppress(boxes, best.sigmoid(), labels, 0.05, 0.5, 300)
    return found["boxes"], found["scores"], found["labels"], counts


@functools.cache
def sahi_class() -> Any:
    from sahi.postprocess.combine import PostprocessPredictions

    class Slices(PostprocessPredictions):
        def __call__(self, predictions: list[Any]) -> list[Any]:
            boxes = np.array([side for p in predictions for side in p.bbox.box], np.float32).reshape(-1, 4)
            scores = np.array([p.score.value for p in predictions], np.float32)
            labels = np.array([0 if self.class_agnostic else p.category.id for p in predictions], np.int64)
            kept = boxops.batched_nms(boxes, scores, labels, self.match_threshold)
            return [predictions[i] for i in kept.tolist()]

    return Slices
