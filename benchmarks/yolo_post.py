"""What follows YOLO's network in `boxops bench --models`: "detect" is from boxes and scores above a threshold to
detections, "decode, detect" from the network's numbers.

Beside torchvision's batched_nms and ultralytics' non_max_suppression, the network's numbers decoded by eager torch.
Their detections have to be ours before they are timed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import boxops

from . import timing
from .machine import rival

torch = rival("torch")
tv = rival("torchvision.ops")

IOU, MOST = 0.45, 100
THRESHOLDS = (0.005, 0.25)  # for average precision, and to look at


def jobs(model: Any, maps: list[Any]) -> Iterator[tuple[str, dict[str, timing.Call], dict[str, str]]]:
    """Name, a call for all images in each way, and why others are not here. Verified."""
    size, suppress = model.transform.size, ultralytics()
    missing = {} if suppress else {"ultralytics": "pip install --no-deps ultralytics"}
    decoded = [model.decode(some, size) for some in maps]
    centres = [(boxops.box_convert(boxes, "xyxy", "cxcywh"), scores) for boxes, scores in decoded]
    joint = [torch.cat(some, dim=2).mT.contiguous() for some in centres]  # as ultralytics' networks give it
    for least in THRESHOLDS:
        ways: dict[str, timing.Call] = {
            "boxops": lambda least=least: [boxops.detect(*some, least, IOU, MOST) for some in decoded],
            "torchvision": lambda least=least: [torchvisions(*some, least) for some in centres],
        }
        raw: dict[str, timing.Call] = {
            "boxops": lambda least=least: [
                boxops.detect(*model.decode(m, size, least), least, IOU, MOST) for m in maps
            ],
            "torchvision": lambda least=least: [torchvisions(*eager(model.heads, m, size), least) for m in maps],
        }
        if suppress:
            ways["ultralytics"] = lambda least=least: [suppress(some, least) for some in joint]
            raw["ultralytics"] = lambda least=least: [
                suppress(torch.cat(eager(model.heads, m, size), dim=2).mT, least) for m in maps
            ]
        for which in list(ways)[1:]:
            for job in (ways, raw):
                same(ways["boxops"](), job[which](), which)
        yield f"detect > {least}", ways, missing
        yield f"decode, detect > {least}", raw, missing


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
    """Its non_max_suppression of predictions [B, 4 + C, A] (centre, sides, scores), with the rules that are ours too.

    Its own do not matter here: no more than 30,000 pairs, boxes of each class moved by 7680 pixels, a limit of time.
    """
    module = ultralytics_nms()
    if module is None:
        return None
    return lambda found, least: module.non_max_suppression(found, least, IOU, multi_label=True, max_det=MOST)


def ultralytics_nms() -> Any:
    """The module, or None."""
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())  # it writes and prints when it is imported
    os.environ.setdefault("YOLO_VERBOSE", "False")
    return rival("ultralytics.utils.nms")


def same(ours: list[Any], theirs: list[Any], which: str) -> None:
    """The detections are the same, one by one."""
    for (boxes, scores, labels, (count,)), (found,) in zip(ours, theirs, strict=True):
        kept = torch.cat([boxes[0, :count], scores[0, :count, None], labels[0, :count, None].float()], dim=1)
        torch.testing.assert_close(found, kept, rtol=1e-4, atol=1e-2, msg=lambda text: f"{which}: {text}")
