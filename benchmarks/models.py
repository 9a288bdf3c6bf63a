"""`boxops bench --models`: a training step and an inference of each detector, and the share that box operations take.

Beside each detector its twin: torchvision's class around the same backbone, heads and numbers, whose box operations are
torchvision's kernels and eager torch; of DETR facebookresearch's. Both are verified to detect the same before they are
timed, in turns. The share is what a stopwatch around the box operations shows in one more run, and of the backward what
the profiler shows.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import boxops

from . import detr, stages, timing, yolo
from .machine import Watch, busy, facts, rival
from .report import duration, times
from .terminal import Cell, print_table, print_warnings

torch = rival("torch")
detection = rival("torchvision.models.detection")

# name, options, images a step, side of the images, left out by --quick
DETECTORS: list[tuple[str, dict[str, Any], int, int, bool]] = [
    ("ssd300_mobilenet_v2", {"num_classes": 21}, 8, 300, False),
    ("ssd300_vgg16", {"num_classes": 21}, 4, 300, True),
    ("faster_rcnn_mobilenet_v2_fpn", {"num_classes": 21}, 4, 320, False),
    ("faster_rcnn_resnet50_fpn", {"num_classes": 91, "min_size": 480}, 2, 480, True),
    ("mask_rcnn_mobilenet_v2_fpn", {"num_classes": 21}, 4, 320, True),
    ("mask_rcnn_resnet50_fpn", {"num_classes": 91, "min_size": 480}, 2, 480, True),
    ("detr_resnet50", detr.OPTIONS, 4, 480, True),
]
COLUMNS = ["detector", "job", "boxops", "its twin", "ratio", "box ops", "share", "the twin's", "its share",
           "ratio of box ops"]  # fmt: skip
SPARE = ["its share", "share", "the twin's", "box ops"]  # left out where there is no room


def twin(model: Any) -> Any:
    """torchvision's detector with the same modules and numbers, or facebookresearch's."""
    if isinstance(model, boxops.models.DETR):
        return detr.twin(model)
    numbers = dataclasses.asdict(model.settings if hasattr(model, "settings") else model.rpn.settings)
    if isinstance(model, boxops.models.SSD):
        size = numbers.pop("size")
        ratios, scales, steps = (numbers.pop(name) for name in ("aspect_ratios", "scales", "steps"))
        anchors = detection.anchor_utils.DefaultBoxGenerator(ratios, scales=scales, steps=steps)
        numbers["positive_fraction"] = 1 / (1 + numbers.pop("negatives"))
        del numbers["variances"]  # torchvision's are the same, and fixed
        normal = {"image_mean": model.transform.image_mean, "image_std": model.transform.image_std}
        classes = model.config["num_classes"]
        other = detection.ssd.SSD(model.backbone, anchors, (size, size), classes, **normal, **numbers)
        other.head.load_state_dict(model.head.state_dict())
        return other
    sizes, ratios = numbers.pop("anchor_sizes"), numbers.pop("aspect_ratios")
    heads = model.roi_heads
    levels = [str(level) for level in range(len(sizes) - 1)]
    align = pooler(levels, heads.pool_size)
    parts = {"box_roi_pool": align, "box_head": heads.box_head, "box_predictor": flat(heads.box_predictor)}
    kind = detection.FasterRCNN
    if hasattr(heads, "mask_head"):
        kind = detection.MaskRCNN
        parts |= {"mask_roi_pool": pooler(levels, 14), "mask_head": heads.mask_head}
        parts["mask_predictor"] = heads.mask_predictor
    anchors = detection.anchor_utils.AnchorGenerator(sizes, [ratios] * len(sizes))
    other = kind(model.backbone, rpn_anchor_generator=anchors, **parts, **numbers)
    other.rpn.head.load_state_dict(model.rpn.head.state_dict())
    return other


def pooler(levels: Sequence[str], size: int) -> Any:
    return rival("torchvision.ops").MultiScaleRoIAlign(levels, size, 2)


def flat(predictor: Any) -> Any:
    """Our predictor gives deltas [K, C, 4], torchvision takes [K, C * 4]."""

    class Predictor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = predictor

        def forward(self, features: Any) -> Any:
            scores, deltas = self.inner(features)
            return scores, deltas.flatten(1)

    return Predictor()


def backward_seconds(call: timing.Call, device: str) -> float:
    """Seconds of the gradients of box operations, RoIAlign's above all."""
    activity = torch.profiler.ProfilerActivity
    activities = [activity.CPU, activity.CUDA] if device == "cuda" else [activity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        call()
    names = re.compile(r"^(boxops|torchvision)::\w+_backward$")
    attribute = "device_time_total" if device == "cuda" else "cpu_time_total"
    return sum(getattr(e, attribute) for e in profile.key_averages() if names.match(e.key)) * 1e-6


def measure(
    name: str, options: dict[str, Any], images: int, side: int, device: str, seconds: float
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = boxops.models.create(name, **options).to(device)
    models = {"boxops": model, "twin": twin(model).to(device)}
    batch, targets = scene(images, side, device)
    stages.settle(model, batch, targets)
    jobs = {
        "training step": {which: training(m, batch, targets) for which, m in models.items()},
        "inference": {which: inference(m, batch) for which, m in models.items()},
    }
    if isinstance(model, boxops.models.DETR):  # of random weights the queries' scores are nearly ties
        detr.compare(*models.values(), batch, targets)
    else:
        compare(*(call() for call in jobs["inference"].values()))
    rows: list[dict[str, Any]] = []
    for job, calls in jobs.items():
        taken: dict[str, list[float]] = {which: [] for which in calls}
        wait = stages.waiting(device)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(taken["boxops"]) < 3:
            for which, call in calls.items():
                wait()
                start = time.perf_counter()
                call()
                wait()
                taken[which].append(time.perf_counter() - start)
        row: dict[str, Any] = {"detector": name, "job": job, "images": images, "side": side}
        for which, call in calls.items():
            parts = sorted((stages.Stopwatch(device)(call) for _ in range(3)), key=lambda part: sum(part.values()))[1]
            backward = backward_seconds(call, device) if job == "training step" else 0.0
            row[which] = {"total": statistics.median(taken[which][1:]), "box_ops": sum(parts.values()) + backward,
                          "stages": parts}  # fmt: skip
        rows.append(row)
    return rows


def scene(images: int, side: int, device: str) -> tuple[list[Any], list[dict[str, Any]]]:
    shapes = boxops.data.open_dataset("shapes", length=images, size=side, keypoints=False)
    pixels, targets, _ = boxops.data.collate([shapes[i] for i in range(images)])
    kept = ("boxes", "labels", "masks")
    moved = [{key: target[key].to(device) for key in kept} for target in targets]
    return [(image.float() / 255).to(device) for image in pixels], moved


def training(model: Any, images: Any, targets: Any) -> timing.Call:
    def step() -> None:
        model.train()
        model.zero_grad()
        sum(model(images, targets).values()).backward()

    return step


def inference(model: Any, images: Any) -> timing.Call:
    def detect() -> Any:
        model.eval()
        with torch.inference_mode():
            return model(images)

    return detect


def compare(ours: Iterable[dict[str, Any]], theirs: Iterable[dict[str, Any]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-2)


def run(
    device: str = "cpu", threads: int = 1, quick: bool = False, patterns: Sequence[str] | None = None
) -> dict[str, Any]:
    """Everything measured, ready for JSON."""
    if detection is None:
        raise ValueError("expected torch and torchvision for --models, got none")
    torch.set_num_threads(threads)
    machine, watch = facts(device, threads), Watch()
    chosen = [d for d in DETECTORS if not (quick and d[-1]) and (not patterns or d[0] in patterns)]
    networks = [name for name in yolo.NETWORKS if device == "cpu" and (not patterns or name in patterns)]
    if not chosen and not networks:
        known = [*(d[0] for d in DETECTORS), *yolo.NETWORKS]
        raise ValueError(f"expected --ops among {', '.join(known)} with --models, got {patterns}")
    rows: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []
    for name, options, images, side, _ in chosen:
        try:
            rows += measure(name, options, images, side, device, 2.0 if quick else 20.0)
        except AssertionError as error:  # of compare
            rows.append({"detector": name, "error": f"wrong detections: {error}"})
        except ModuleNotFoundError as error:  # of DETR's twin
            rows.append({"detector": name, "error": str(error)})
    chosen = [] if quick or patterns else list(stages.DETECTORS)
    swapped = [row for name in chosen for row in stages.measure(name, device, *scene(1, 480, device))]
    for name in networks:
        try:
            seen += yolo.measure(name, threads, 0.5 if quick else 20.0, quick)
        except AssertionError as error:
            seen.append({"network": name, "error": f"wrong detections: {error}"})
    machine["others"] = watch.others()
    warnings = busy(machine["load"], machine["others"], machine["cores"])
    return {"schema": 1, "machine": machine, "warnings": warnings, "models": rows, "stages": swapped, "yolo": seen}


def show(result: dict[str, Any]) -> None:
    rows: list[list[Cell]] = []
    for row in result["models"]:
        if "error" in row:
            continue
        ours, theirs = row["boxops"], row["twin"]
        cells = [f"{row['detector']} {row['images']} x {row['side']} px", row["job"]]
        cells += [duration(ours["total"]), duration(theirs["total"]), times(theirs["total"] / ours["total"])]
        for one in (ours, theirs):
            cells += [duration(one["box_ops"]), f"{one['box_ops'] / one['total']:.1%}"]
        cells.append(times(theirs["box_ops"] / ours["box_ops"]))
        rows.append([(cell, "ours" if i in (2, 5) else "") for i, cell in enumerate(cells)])
    if rows:
        print_table("a training step, an inference, and what box operations take of it", COLUMNS, rows, SPARE)
    detr.show(result["models"])
    if result["stages"]:
        stages.show(result["stages"])
    yolo.show(result["yolo"])
    machine = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    print(f"{machine['device']}, {machine['threads']} threads; {packages}")
    failed = [row for row in result["models"] + result["yolo"] if "error" in row]
    wrong = [f"NOT TIMED {row.get('detector') or row['network']}: {row['error']}" for row in failed]
    print_warnings(wrong + result["warnings"])
