"""YOLO in `boxops bench --models`: an image to its boxes, and what comes after the network alone, on darknet's weights.

Image to boxes: letterbox, network, decoding, suppression, from pixels as they are read; beside OpenCV's dnn, of the
cfg where it reads one (before OpenCV 5), else of our network as ONNX, and beside onnxruntime, each decoded by NumPy
and suppressed by OpenCV as a careful user of it would. After the network: from its numbers to boxes; beside the same
in eager torch, then ultralytics' non_max_suppression or torchvision's batched_nms, whose detections have to be ours.
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

from . import timing
from .machine import rival
from .report import duration, times
from .terminal import Cell, print_table

torch = rival("torch")
tv = rival("torchvision.ops")
cv2 = rival("cv2")
onnxruntime = rival("onnxruntime")

NETWORKS = ("yolov3-tiny", "yolov2-tiny")
SURE, IOU, MOST = 0.25, 0.45, 100  # of image to boxes
THRESHOLDS = (0.005, 0.25)  # after the network: for average precision, and to look at
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
        for least in THRESHOLDS:
            ways, missing = after_the_network(model, least)
            for which in list(ways)[1:]:
                same(model, maps, least, which)
            calls = {which: lambda way=way: [way(some) for some in maps] for which, way in ways.items()}
            rows.append(row(name, f"after the network, score > {least}", clock(calls, seconds), len(images), missing))
    return rows


def row(name: str, job: str, seconds: dict[str, float], images: int, missing: dict[str, str]) -> dict[str, Any]:
    return {"network": name, "job": job, "seconds": {k: v / images for k, v in seconds.items()}, "missing": missing}


def clock(calls: dict[str, timing.Call], seconds: float) -> dict[str, float]:
    """Median seconds of each call, in turns."""
    taken: dict[str, list[float]] = {which: [] for which in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken["boxops"]) < 3:
        for which, call in calls.items():
            start = time.perf_counter()
            call()
            taken[which].append(time.perf_counter() - start)
    return {which: statistics.median(some[1:]) for which, some in taken.items()}


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


# After the network


def after_the_network(model: Any, least: float) -> tuple[dict[str, Callable[[Any], Any]], dict[str, str]]:
    """Ways from raw maps, a list, to detections of each image of the batch."""
    size = model.transform.size

    def ours(maps: Any) -> Any:
        return boxops.detect(*predicted(model, maps), least, IOU, MOST)

    def with_torchvision(maps: Any) -> Any:
        return torchvisions(*eager(model.heads, maps, size), least)

    ways, missing = {"boxops": ours, "torchvision": with_torchvision}, {}
    if (suppress := ultralytics()) is None:
        missing["ultralytics"] = "pip install --no-deps ultralytics"
    else:
        ways["ultralytics"] = lambda maps: suppress(torch.cat(eager(model.heads, maps, size), dim=2).mT, least)
    return ways, missing


def predicted(model: Any, maps: Any) -> tuple[Any, Any]:
    """Corners and scores, as in YOLO.predict."""
    rows = [head.rows(raw) for head, raw in zip(model.heads, maps, strict=True)]
    parts = list(zip(model.heads, rows, maps, strict=True))
    boxes = [head.boxes(some, head.grid(raw), model.transform.size) for head, some, raw in parts]
    return torch.cat(boxes, dim=1), torch.cat([head.scores(some) for head, some, _ in parts], dim=1)


def eager(heads: Any, maps: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    """Centres and sides [B, A, 4], and scores [B, A, C], by torch's own operations."""
    boxes, scores = [], []
    for head, raw in zip(heads, maps, strict=True):
        grid = raw.shape[2:]
        raw = raw.unflatten(1, (-1, head.columns)).permute(0, 3, 4, 1, 2)  # [B, H, W, P, 5 + C]
        y, x = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
        stride = torch.tensor([size[1] / grid[1], size[0] / grid[0]])
        centres = (raw[..., :2].sigmoid() + torch.stack([x, y], dim=-1)[:, :, None]) * stride
        sides = raw[..., 2:4].exp() * torch.tensor(head.priors(grid, size))
        classes = raw[..., 5:].softmax(dim=-1) if getattr(head, "softmax", False) else raw[..., 5:].sigmoid()
        boxes.append(torch.cat([centres, sides], dim=-1).flatten(1, 3))
        scores.append((raw[..., 4:5].sigmoid() * classes).flatten(1, 3))
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)


def torchvisions(boxes: Any, scores: Any, least: float) -> list[Any]:
    """Rows of a box's corners, its score and its label, of each image."""
    found = []
    for box, score in zip(tv.box_convert(boxes, "cxcywh", "xyxy"), scores, strict=True):
        i, label = torch.where(score > least)
        best = score[i, label]
        kept = tv.batched_nms(box[i], best, label, IOU)[:MOST]
        found.append(torch.cat([box[i][kept], best[kept, None], label[kept, None].float()], dim=1))
    return found


def ultralytics() -> Callable[[Any, float], list[Any]] | None:
    """Its non_max_suppression of predictions [B, 4 + C, A], with the rules it shares with ours. Its own are at most
    30,000 pairs, boxes of each class moved by 7680 pixels, and a limit of time."""
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())  # it writes and prints when it is imported
    os.environ.setdefault("YOLO_VERBOSE", "False")
    module = rival("ultralytics.utils.nms")
    if module is None:
        return None
    return lambda found, least: module.non_max_suppression(found, least, IOU, multi_label=True, max_det=MOST)


def same(model: Any, maps: list[Any], least: float, which: str) -> None:
    """The detections of the same boxes and scores are the same, one by one."""
    for some in maps:
        boxes, scores = predicted(model, some)
        *ours, (count,) = boxops.detect(boxes, scores, least, IOU, MOST)
        kept = torch.cat([ours[0][0, :count], ours[1][0, :count, None], ours[2][0, :count, None].float()], dim=1)
        moved = boxops.box_convert(boxes, "xyxy", "cxcywh")
        if which == "torchvision":
            found = torchvisions(moved, scores, least)[0]
        else:
            found = ultralytics()(torch.cat([moved, scores], dim=2).mT, least)[0]  # type: ignore[misc]
        torch.testing.assert_close(found, kept, rtol=1e-4, atol=1e-2, msg=lambda text: f"{which}: {text}")


def show(rows: list[dict[str, Any]]) -> None:
    cells: list[list[Cell]] = []
    for row in rows:
        if "seconds" not in row:
            continue
        ours = row["seconds"]["boxops"]
        name = f"{row['network']} {row['job']}"
        cells.append([(name, ""), ("boxops", ""), (duration(ours), "ours"), ("", "")])
        for which, seconds in row["seconds"].items():
            if which != "boxops":
                cells.append([(name, ""), (which, ""), (duration(seconds), ""), (times(seconds / ours), "")])
    if cells:
        print_table("YOLO, seconds an image", ["job", "by", "time", "ratio"], cells)
    absent = {f"{which}: {why}" for row in rows for which, why in row.get("missing", {}).items()}
    absent |= {f"{row['network']}: {row['skipped']}" for row in rows if "skipped" in row}
    for line in sorted(absent):
        print(f"not measured: {line}")
