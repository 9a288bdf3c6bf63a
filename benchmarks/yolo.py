"""YOLO in `boxops bench --models`: an image to its boxes, on darknet's weights; for the steps after it yolo_post.py.

Letterbox, network, decoding and suppression, from pixels as they are read. Beside OpenCV's dnn, of the cfg where it
reads one (before OpenCV 5), else of our network as ONNX, and beside onnxruntime, each decoded by NumPy and suppressed
by OpenCV as a careful user of it would. What they are sure of has to be among our detections.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import boxops

from . import timing, yolo_post
from .machine import rival
from .report import duration, times
from .terminal import Cell, print_table
from .yolo_post import IOU, MOST

torch = rival("torch")
cv2 = rival("cv2")
onnxruntime = rival("onnxruntime")

NETWORKS = ("yolov3-tiny", "yolov2-tiny")
SURE = 0.25
PAUSE = 0.02  # seconds
Maps = list[np.ndarray]


def measure(name: str, threads: int, seconds: float, quick: bool) -> list[dict[str, Any]]:
    """The rows of one network; a row with "skipped" where its files are not here."""
    folder = Path(os.environ.get("BOXOPS_TEST_DATA", ""), "darknet")
    cfg, weights = folder / f"{name}.cfg", folder / f"{name}.weights"
    if not cfg.is_file() or not weights.is_file():
        return [{"network": name, "skipped": "BOXOPS_TEST_DATA has no darknet/ with its cfg and weights"}]
    from boxops.data.images import read_image

    model = boxops.models.darknet_yolo(cfg, weights, score_thresh=SURE, nms_thresh=IOU, detections_per_img=MOST).fold()
    images = [np.array(read_image(file)) for file in sorted(folder.glob("*.jpg"))]  # RGB
    with torch.inference_mode():
        networks, missing = rivals(model, cfg, weights, threads, quick)
        calls = {"boxops": lambda: [detections(model, image) for image in images]}
        for which, network in networks.items():
            calls[which] = lambda network=network: [theirs(model, network, image) for image in images]
            compare(calls["boxops"](), calls[which](), which)
        rows = [row(name, "image to boxes", clock(calls, seconds), len(images), missing)]
        maps = [model.network(model.transform([pixels(image)])[0].tensors) for image in images]
        for job, ways, missing in yolo_post.jobs(model, maps):
            rows.append(row(name, job, clock(ways, seconds), len(images), missing))
    return rows


def row(name: str, job: str, seconds: dict[str, float], images: int, missing: dict[str, str]) -> dict[str, Any]:
    return {"network": name, "job": job, "seconds": {k: v / images for k, v in seconds.items()}, "missing": missing}


def clock(calls: dict[str, timing.Call], seconds: float) -> dict[str, float]:
    """Median seconds of each call, in turns, each after a pause and a call that does not count: the threads of the one
    before spin for a while, and would have a core of its own time."""
    taken: dict[str, list[float]] = {which: [] for which in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken["boxops"]) < 3:
        for which, call in calls.items():
            time.sleep(PAUSE)
            call()
            start = time.perf_counter()
            call()
            taken[which].append(time.perf_counter() - start)
    return {which: statistics.median(some) for which, some in taken.items()}


# Image to boxes


def pixels(image: np.ndarray) -> Any:
    return torch.from_numpy(image).permute(2, 0, 1) / 255


def detections(model: Any, image: np.ndarray) -> tuple[np.ndarray, ...]:
    """Boxes, scores, labels from 0."""
    found = model([pixels(image)])[0]
    return found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy() - 1


def rivals(
    model: Any, cfg: Path, weights: Path, threads: int, quick: bool
) -> tuple[dict[str, Callable[[np.ndarray], Maps]], dict[str, str]]:
    """Networks: a blob [1, 3, H, W] to the raw maps of the heads, or to rows decoded by OpenCV; and why others are not
    here."""
    networks: dict[str, Callable[[np.ndarray], Maps]] = {}
    missing: dict[str, str] = {}
    if cv2 is None:
        return networks, {"OpenCV dnn": "pip install opencv-python-headless"}
    cv2.setNumThreads(threads)  # again for each network: ultralytics sets 0
    if hasattr(cv2.dnn, "readNetFromDarknet"):
        networks["OpenCV dnn, cfg"] = opencv(cv2.dnn.readNetFromDarknet(str(cfg), str(weights)))
    else:
        missing["OpenCV dnn, cfg"] = 'OpenCV 5 reads no cfg: pip install "opencv-python-headless<5"'
    if quick:
        return networks, {**missing, "ONNX": "left out by --quick"}
    if rival("onnx") is None or rival("onnxscript") is None:
        return networks, {**missing, "ONNX": "pip install onnx onnxscript"}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "network.onnx"))
        torch.onnx.export(model.network, (torch.rand(1, *model.network.shape),), file,
                          dynamo=True, external_data=False, verbose=False)  # fmt: skip
        engine = [cv2.dnn.ENGINE_CLASSIC] if hasattr(cv2.dnn, "ENGINE_CLASSIC") else []  # the faster one of OpenCV 5's
        networks["OpenCV dnn, ONNX"] = opencv(cv2.dnn.readNetFromONNX(file, *engine))
        if onnxruntime is None:
            return networks, {**missing, "onnxruntime": "pip install onnxruntime"}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    blob = session.get_inputs()[0].name
    networks["onnxruntime"] = lambda image: session.run(None, {blob: image})
    return networks, missing


def opencv(net: Any) -> Callable[[np.ndarray], Maps]:
    names = net.getUnconnectedOutLayersNames()

    def network(blob: np.ndarray) -> Maps:
        net.setInput(blob)
        return list(net.forward(names))

    return network


def theirs(model: Any, network: Callable[[np.ndarray], Maps], image: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same as :func:`detections`, the best class of each box as in OpenCV's sample."""
    (height, width), size = image.shape[:2], model.transform.size
    h, w = model.transform.inner((height, width), size)
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    bottom, right = size[0] - h - top, size[1] - w - left
    inner = cv2.resize(image, (w, h))
    inner = cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(127, 127, 127))
    maps = network(cv2.dnn.blobFromImage(inner, 1 / 255))
    if maps[0].ndim == 2:  # decoded rows: x, y, w, h as shares of the image, objectness, scores
        rows = np.concatenate(maps)
        rows = rows[rows[:, 4] > SURE]
        boxes, scores = rows[:, :4] * [size[1], size[0], size[1], size[0]], rows[:, 5:]
    else:
        by_grid = {head_map[0].shape[1:]: head_map[0] for head_map in maps}  # engines have their own order
        shapes = [model.network.layers[i].shape for i in model.network.heads]
        parts = [decode(by_grid[shape[1:]], head, size) for head, shape in zip(model.heads, shapes, strict=True)]
        boxes, scores = (np.concatenate(some) for some in zip(*parts, strict=True))
    labels = scores.argmax(axis=1)
    scores = scores[np.arange(len(scores)), labels]
    sure = scores > SURE
    boxes, scores, labels = boxes[sure], scores[sure], labels[sure]
    corner = boxes[:, :2] - boxes[:, 2:] / 2
    boxes = np.concatenate([corner, boxes[:, 2:]], axis=1)
    kept = np.array(cv2.dnn.NMSBoxesBatched(boxes, scores, labels, SURE, IOU), int) if len(boxes) else []
    boxes, scale = boxes[kept], np.array([width / w, height / h])
    low = (boxes[:, :2] - [left, top]) * scale
    return np.concatenate([low, low + boxes[:, 2:] * scale], axis=1), scores[kept], labels[kept]


def decode(raw: np.ndarray, head: Any, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Centres and sides in pixels, and scores, of the boxes whose objectness alone is sure enough."""
    grid = raw.shape[1:]
    raw = raw.reshape(-1, head.columns, *grid)
    p, y, x = np.nonzero(raw[:, 4] > np.log(SURE / (1 - SURE)))
    rows = raw[p, :, y, x]
    centres = (logistic(rows[:, :2]) + np.stack([x, y], axis=1)) * [size[1] / grid[1], size[0] / grid[0]]
    sides = np.exp(rows[:, 2:4]) * np.array(head.priors(grid, size))[p]
    classes = rows[:, 5:]
    if getattr(head, "softmax", False):
        classes = np.exp(classes - classes.max(axis=1, keepdims=True))
        classes = classes / classes.sum(axis=1, keepdims=True)
    else:
        classes = logistic(classes)
    return np.concatenate([centres, sides], axis=1), logistic(rows[:, 4:5]) * classes


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def compare(ours: list[tuple[np.ndarray, ...]], other: list[tuple[np.ndarray, ...]], which: str) -> None:
    """What they are rather sure of is among ours: resized by another rule, so scores and boxes differ a little."""
    for (boxes, scores, labels), found in zip(ours, other, strict=True):
        for box, score, label in zip(*found, strict=True):
            iou = np.asarray(boxops.box_iou(box[None].astype(np.float32), boxes))[0]
            like = (labels == label) & (iou > 0.7) & (abs(scores - score) < 0.15)
            assert score < 0.5 or like.any(), f"{which}: {label} {score:.2f} {box} is not among ours"


def show(rows: list[dict[str, Any]]) -> None:
    cells: list[list[Cell]] = []
    for row in rows:
        if "seconds" not in row:
            continue
        ours = row["seconds"]["boxops"]
        name: list[Cell] = [(row["network"], ""), (row["job"], "")]
        cells.append([*name, ("boxops", ""), (duration(ours), "ours"), ("", "")])
        for which, seconds in row["seconds"].items():
            if which != "boxops":
                cells.append([*name, (which, ""), (duration(seconds), ""), (times(seconds / ours), "")])
    if cells:
        print_table("YOLO, seconds an image", ["network", "job", "by", "time", "ratio"], cells)
    absent = {f"{which}: {why}" for row in rows for which, why in row.get("missing", {}).items()}
    absent |= {f"{row['network']}: {row['skipped']}" for row in rows if "skipped" in row}
    for line in sorted(absent):
        print(f"not measured: {line}")
