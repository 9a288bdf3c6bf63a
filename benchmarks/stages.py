"""Where a detector's time goes: a stopwatch around its box operations, and torchvision's detectors with boxops' inside.

For `boxops bench --models`.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any
from unittest import mock

import boxops

from . import detr, timing
from .machine import rival
from .report import duration, times
from .terminal import Cell, print_table

torch = rival("torch")
detection = rival("torchvision.models.detection")

DETECTORS = {  # torchvision's, options
    "fasterrcnn_resnet50_fpn": {"min_size": 480, "max_size": 640},
    "maskrcnn_resnet50_fpn": {"min_size": 480, "max_size": 640},
    "ssd300_vgg16": {},
}
COLUMNS = ["stage", "torchvision", "patched", "ratio"]


def places() -> list[tuple[Any, str, str]]:
    """(owner, function, stage) of every op of boxops, and of what torchvision's detectors have in their place.

    torchvision's hard negatives, heatmaps and losses are left out: they are not functions of their own there.
    DETR's matching is a stage of ours and of facebookresearch's.
    """
    d, pooler = detection, rival("torchvision.ops").MultiScaleRoIAlign
    theirs = [
        (d.anchor_utils.AnchorGenerator, "forward", "anchors"),
        (d.anchor_utils.DefaultBoxGenerator, "forward", "anchors"),
        (d._utils.BoxCoder, "encode", "deltas"),
        (d._utils.BoxCoder, "encode_single", "deltas"),
        (d._utils.BoxCoder, "decode", "proposals"),
        (d.rpn.RegionProposalNetwork, "filter_proposals", "proposals"),
        (boxops.swap.detectors, "propose", "proposals"),
        (d.rpn.RegionProposalNetwork, "assign_targets_to_anchors", "matching"),
        (d.roi_heads.RoIHeads, "assign_targets_to_proposals", "matching"),
        (d.ssd.box_ops, "box_iou", "matching"),
        (d._utils.SSDMatcher, "__call__", "matching"),
        (d._utils.BalancedPositiveNegativeSampler, "__call__", "sampling"),
        (pooler, "forward", "RoI pooling"),
        (d.roi_heads, "project_masks_on_boxes", "mask targets"),
        (d.roi_heads.RoIHeads, "postprocess_detections", "postprocessing"),
        (d.ssd.SSD, "postprocess_detections", "postprocessing"),
        (d.transform, "paste_masks_in_image", "mask pasting"),
    ]
    if boxops.swap.Patch._depth:  # under it, a function set by hand would keep its place
        theirs = [place for place in theirs if place[1] != "filter_proposals"]
    theirs.append((boxops.models.DETR, "match", "matching"))
    if detr.official() is not None:
        theirs.append((rival("models.matcher").HungarianMatcher, "forward", "matching"))
        theirs += [(rival("util.box_ops"), name, "boxes") for name in ("box_cxcywh_to_xyxy", "generalized_box_iou")]
    return [(boxops, name, "boxops") for name in boxops.__all__] + theirs


class Stopwatch:
    """Seconds of each stage in one call; of nested ones the outermost counts."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inside, self.wait = False, waiting(device)

    def __call__(self, call: timing.Call) -> dict[str, float]:
        with ExitStack() as stack:
            for owner, name, stage in places():
                stack.enter_context(mock.patch.object(owner, name, self.around(getattr(owner, name), stage)))
            call()
        return self.seconds

    def around(self, function: Any, stage: str) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return function(*args, **kwargs)
            self.inside = True
            self.wait()
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.wait()
                self.seconds[stage] += time.perf_counter() - start
                self.inside = False

        return timed


def waiting(device: str) -> Callable[[], None]:
    """What waits until the device has done all it was given."""

    def nothing() -> None: ...

    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else nothing
    return wait


def settle(model: Any, images: Any, targets: Any) -> None:
    """Takes the statistics of these images into the norms: without, random weights give every anchor the same score."""
    norms = [module for module in model.train().modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for momentum in (1.0, 0.1):
        for norm in norms:
            norm.momentum = momentum
        with torch.no_grad():
            model(images, targets)


def measure(name: str, device: str, images: Any, targets: Any, rounds: int = 5) -> list[dict[str, Any]]:
    """The stages of one of torchvision's detectors, as it is and under patch_torchvision, in turns."""
    torch.manual_seed(0)
    build = getattr(detection, name)
    model = build(weights=None, weights_backbone=None, num_classes=91, **DETECTORS[name]).to(device)
    settle(model, images, targets)

    def inference() -> None:
        with torch.inference_mode():
            model.eval()(images)

    def training() -> None:
        with torch.no_grad():
            model.train()(images, targets)

    taken: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for which, context in (("torchvision", nullcontext), ("patched", boxops.patch_torchvision)):
            with context():
                for job, call in (("training, forward", training), ("inference", inference)):
                    start = time.perf_counter()
                    seconds = Stopwatch(device)(call)
                    taken[which, job].append({**seconds, "all": time.perf_counter() - start})
    rows = []
    for job in ("training, forward", "inference"):
        for stage in taken["torchvision", job][0]:
            which = ("torchvision", "patched")
            values = {w: statistics.median(some.get(stage, 0.0) for some in taken[w, job][1:]) for w in which}
            rows.append({"detector": name, "job": job, "stage": stage, **values})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table; stages that take no time in one of the two have no ratio: boxops does them within another."""
    cells: list[list[Cell]] = []
    for row in rows:
        ratio = times(row["torchvision"] / row["patched"]) if row["patched"] else "-"
        cells.append([(f"{row['detector']} {row['job']}: {row['stage']}", ""), (duration(row["torchvision"]), ""),
                      (duration(row["patched"]), "ours"), (ratio, "")])  # fmt: skip
    print_table("torchvision's detectors, as they are and under patch_torchvision()", COLUMNS, cells)
