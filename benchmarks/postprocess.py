"""Whole post-processing, from what a network puts out to detections, beside the functions that users call for it.

Each is verified against the NumPy reference, and timed beside a rival only if both found the same boxes with the same
scores and labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from . import outputs
from . import post_ours as ours
from . import post_theirs as theirs
from .case import Arrays, Case, Rival, Wrong, numpy, sets, whole
from .machine import ABSENT
from .outputs import DOTA, IMAGE, LEVELS, SSD_SIDE

# What is compared


def rows(result: Any) -> list[np.ndarray]:
    """Detections [K, 6 or 7] of each image, as post_ours or post_theirs give them."""
    if isinstance(result, tuple):  # padded
        *fields, counts = result
        result = [[field[image][:count] for field in fields] for image, count in enumerate(counts.tolist())]
    result = [tuple(image.values()) if isinstance(image, dict) else image for image in result]
    lists = [isinstance(image, (tuple, list)) for image in result]
    return [_joined(*image) if is_list else _float(image) for image, is_list in zip(result, lists, strict=True)]


def _joined(boxes: Any, scores: Any, labels: Any) -> np.ndarray:
    return np.concatenate([_float(boxes), _float(scores)[:, None], _float(labels)[:, None]], axis=1)


def _float(array: Any) -> np.ndarray:
    return numpy(array.double() if hasattr(array, "double") else array).astype(float)


def alike(one: Any, other: Any) -> tuple[set[Any], set[Any]]:
    """Both as sets, in which detections are one that differ by 0.01 px and 0.0001 of score and angle at most.

    So the order of ties does not matter, but it does which of them are in where no more are taken.
    """
    found, wanted = set(), set()
    for image, (some, own) in enumerate(zip(rows(one), rows(other), strict=True)):
        tolerance = np.array([1e-2] * 4 + [1e-4] * (own.shape[1] - 4))
        near = (abs(some[:, None] - own) <= tolerance).all(axis=-1)
        for i, line in enumerate(near):
            at = int(line.argmax()) if line.any() else -1 - i
            if at >= 0:
                near[:, at] = False  # each stands for one
            found.add((image, at))
        wanted |= {(image, i) for i in range(len(own))}
    return found, wanted


def as_reference(case: Case, arrays: Arrays, result: Any) -> str:
    want, got = alike(result, case.reference(*arrays))
    if want != got:
        raise Wrong(f"of {len(got | want)} detections {len(got ^ want)} are not those of the reference")
    return f"all {len(got)} detections by the reference"


def softmax(logits: Any) -> np.ndarray:
    e = np.exp(logits.astype(np.float32) - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def reference_yolo(prediction: Any, conf: float = 0.001, best: bool = False) -> Any:
    prediction = prediction.astype(np.float32)
    xywh, scores = prediction[:, :4].swapaxes(1, 2), prediction[:, 4:].swapaxes(1, 2)
    if best:
        scores = scores * (np.arange(scores.shape[2]) == scores.argmax(axis=2)[..., None])
    return reference.detect(reference.box_convert(xywh, "cxcywh", "xyxy"), scores, conf, 0.7, 300)


def reference_rotated(prediction: Any, classes: int) -> Any:
    """By the rule: box after box, held against those that are kept."""
    (image,) = prediction
    boxes, scores, angle = image[:4].T, image[4 : 4 + classes].max(axis=0), image[-1:].T
    label, turned = image[4 : 4 + classes].argmax(axis=0), np.concatenate([boxes, -np.degrees(angle)], axis=1)
    kept: list[int] = []
    for i in (i for i in np.argsort(-scores, kind="stable") if scores[i] > 0.25):
        others = [k for k in kept if label[k] == label[i] and abs(boxes[k, :2] - boxes[i, :2]).max() < 300]
        if not others or reference.rotated_box_iou(turned[others], turned[[i]]).max() <= np.float32(0.7):
            kept.append(i)
    kept = kept[:300]
    return [np.concatenate([boxes, scores[:, None], label[:, None], angle], axis=1)[kept]]


def reference_ssd(logits: Any, deltas: Any, anchors: Any, size: tuple[int, int]) -> Any:
    boxes = reference.decode_boxes(deltas, anchors, (10, 10, 5, 5), image_size=size)
    found = reference.detect(boxes, softmax(logits)[..., 1:], 0.01, 0.45, 200, topk_per_class=400)
    return *found[:2], found[2] + 1, found[3]


def reference_rcnn(logits: Any, deltas: Any, proposals: Any, size: tuple[int, int]) -> Any:
    boxes = reference.decode_boxes(deltas[:, :, 1:], proposals[:, :, None], (10, 10, 5, 5), image_size=size)
    found = reference.detect(boxes, softmax(logits)[..., 1:], 0.05, 0.5, 100, min_size=1e-2)
    return *found[:2], found[2] + 1, found[3]


def reference_retinanet(logits: Any, deltas: Any, anchors: Any, size: tuple[int, int], levels: list[int]) -> Any:
    scores = outputs.softly(logits.astype(np.float32))
    for level in np.split(scores, np.cumsum(levels)[:-1], axis=1):  # views: what is not among the best is struck
        for image in level:
            sure = image[image > 0.05]
            if len(sure) > 1000:
                image[image < np.partition(sure, -1000)[-1000]] = 0
    boxes = np.zeros((*deltas.shape[:2], 4), np.float32)
    at = (scores > 0.05).any(axis=2)
    boxes[at] = reference.decode_boxes(deltas[at], anchors[np.nonzero(at)[1]], image_size=size)
    return reference.detect(boxes, scores, 0.05, 0.5, 300)


# The cases


def case(label: str, n: int, make: Any, mine: Any, slow: Any, rivals: dict[str, Any], **options: Any) -> Case:
    compared = {name: Rival(call, answer=alike, heavy=True) for name, call in rivals.items()}
    common = {"check": as_reference, "goal": (next(iter(rivals)), 1.0), "heavy": True, "tensors_only": True}
    return Case("postprocess", label, n, make, mine, slow, rivals=compared, **common | options)


def image(label: str, n: int, make: Any, mine: Any, slow: Any, rival: Any, **known: Any) -> Case:
    """A detector of torchvision, with what it knows besides the network's output."""
    calls = [partial(call, **known) for call in (mine, slow, rival)]
    return case(label, n, make, *calls[:2], {"torchvision": calls[2]})


def arrays_or_tensors(prediction: Any) -> Any:
    return (ours.yolo_arrays if isinstance(prediction, np.ndarray) else ours.yolo_multi_label)(prediction)


def slices(count: int) -> list[Case]:
    arrays = Case(
        "postprocess",
        f"SAHI arrays, {count:,} boxes of slices",
        count,
        make=partial(outputs.slices, count),
        ours=partial(theirs.by_row, boxops.batched_nms),
        reference=partial(theirs.by_row, reference.batched_nms),
        rivals={"SAHI": Rival(theirs.sahi_arrays, answer=sets, heavy=True)},
        check=whole,
        goal=("SAHI", 1.0),
        heavy=True,
    )
    objects = dataclasses.replace(
        arrays,
        label=f"SAHI objects, {count:,} boxes of slices",
        ours=partial(theirs.sahi_objects, ours.sahi_class),
        rivals={"SAHI": Rival(partial(theirs.sahi_objects, theirs.sahi_class), answer=by_identity, heavy=True)},
        check=kept_objects,
    )
    return [arrays] if "SAHI" in ABSENT else [arrays, objects]  # ours too takes its objects


def kept_objects(case: Case, arrays: Arrays, result: Any) -> str:
    wanted = case.reference(*outputs.slices(len(arrays[0])))  # the objects have no other dtype
    everyone = theirs.listed(len(arrays[0]))
    if [id(one) for one in result] != [id(everyone[i]) for i in wanted]:
        raise Wrong("the kept objects are not those of the reference")
    return f"all {len(wanted):,} kept objects by the reference"


def by_identity(one: Iterable[Any], other: Iterable[Any]) -> tuple[set[int], set[int]]:
    return {id(kept) for kept in one}, {id(kept) for kept in other}


YOLO = 8400 * outputs.COCO
CASES = [
    case("YOLO 8,400 x 80, multi-label > 0.001", YOLO, outputs.yolo, ours.yolo_multi_label, reference_yolo,
         {"ultralytics": partial(theirs.ultralytics, conf=0.001, iou=0.7, multi_label=True)}),
    case("YOLOv3-tiny on COCO, 33 x 2,535 x 80, multi-label > 0.001", 33 * 2535 * 80, outputs.recorded,
         ours.yolo_multi_label, reference_yolo,
         {"ultralytics": partial(theirs.ultralytics, conf=0.001, iou=0.7, multi_label=True)}),
    case("YOLO 8,400 x 80, best class > 0.25", YOLO, outputs.yolo, ours.yolo_best_class,
         partial(reference_yolo, conf=0.25, best=True),
         {"ultralytics": partial(theirs.ultralytics, conf=0.25, iou=0.7)}),
    case("YOLO arrays 8,400 x 80 > 0.001", YOLO, outputs.yolo, arrays_or_tensors, reference_yolo,
         {"onnxruntime": theirs.onnx_yolo, "OpenCV": theirs.opencv_yolo}, tensors_only=False),
    case("YOLO rotated 21,504 x 15 > 0.25", 21_504 * DOTA, outputs.oriented, partial(ours.yolo_rotated, classes=DOTA),
         partial(reference_rotated, classes=DOTA),
         {"ultralytics": partial(theirs.ultralytics, conf=0.25, iou=0.7, nc=DOTA, rotated=True)}),
    image("SSD 8,732 x 90", 8732 * 90, outputs.ssd, ours.ssd, reference_ssd, theirs.ssd, size=(SSD_SIDE, SSD_SIDE)),
    image("Faster R-CNN 2 x 1,000 x 90", 180_000, outputs.rcnn, ours.faster_rcnn, reference_rcnn, theirs.faster_rcnn,
          size=IMAGE),
    image("RetinaNet 201,600 x 91", sum(LEVELS) * 91, outputs.retinanet, ours.retinanet, reference_retinanet,
          theirs.retinanet, size=IMAGE, levels=LEVELS),
    *slices(20_000),
]  # fmt: skip
