"""Writes what a real network puts out, for outputs.recorded: `python -m boxops.benchmarks.record`.

YOLOv3-tiny (darknet's weights) on the COCO images of BOXOPS_TEST_DATA: of each place its centre and sides in 1/32 px,
and each score above 0.001.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

import boxops
from boxops.data.images import read_image

from .outputs import RECORDED

LEAST = 0.001


def record(data: Path) -> dict[str, np.ndarray]:
    cfg = data / "darknet" / "yolov3-tiny.cfg"
    model = boxops.models.darknet_yolo(cfg, cfg.with_suffix(".weights"), score_thresh=LEAST).fold()
    parts: dict[str, list[Any]] = {"boxes": [], "places": [], "classes": [], "scores": [], "counts": []}
    for file in sorted((data / "coco" / "images").rglob("*.jpg")):
        pixels = torch.from_numpy(np.array(read_image(file))).permute(2, 0, 1) / 255
        with torch.inference_mode():
            maps = model.network(model.transform([pixels])[0].tensors)
            (boxes,), (scores,) = model.decode(maps, model.transform.size)
        places, classes = torch.where(scores > LEAST)
        of_place = boxops.box_convert(boxes, "xyxy", "cxcywh")[places.unique()]
        parts["boxes"].append((of_place * 32).round().clamp(-(2**15), 2**15 - 1).to(torch.int16))
        parts["places"].append(places.to(torch.int16))
        parts["classes"].append(classes.to(torch.uint8))
        parts["scores"].append(scores[places, classes])
        parts["counts"].append(torch.tensor([len(places)]))
    return {name: torch.cat(some).numpy() for name, some in parts.items()} | {"shape": np.array(scores.shape)}


if __name__ == "__main__":
    np.savez_compressed(RECORDED, **record(Path(os.environ["BOXOPS_TEST_DATA"])))
