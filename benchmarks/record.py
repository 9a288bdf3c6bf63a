"""Writes what real networks put out, for outputs.recorded and outputs.candidates.

    python -m boxops.benchmarks.record [SSD]

YOLOv3-tiny (darknet's weights) on the COCO images of BOXOPS_TEST_DATA: of each place its centre and sides in 1/32 px,
and each score above 0.001. With the checkpoint of an SSD that `boxops train` trained on BCCD, also its corners in
1/32 px, classes and scores above 0.05 on the first 8 test images there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import boxops
from boxops.data.images import read_image
from boxops.training import load_model

from .outputs import RECORDED, RECORDED_SSD

LEAST = 0.001


def pixels_of(file: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(read_image(file))).permute(2, 0, 1) / 255


def in_32nds(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes * 32).round().clamp(-(2**15), 2**15 - 1).to(torch.int16)


def record(data: Path) -> dict[str, np.ndarray]:
    cfg = data / "darknet" / "yolov3-tiny.cfg"
    model = boxops.models.darknet_yolo(cfg, cfg.with_suffix(".weights"), score_thresh=LEAST).fold()
    parts: dict[str, list[Any]] = {"boxes": [], "places": [], "classes": [], "scores": [], "counts": []}
    for file in sorted((data / "coco" / "images").rglob("*.jpg")):
        with torch.inference_mode():
            maps = model.network(model.transform([pixels_of(file)])[0].tensors)
            (boxes,), (scores,) = model.decode(maps, model.transform.size)
        places, classes = torch.where(scores > LEAST)
        of_place = boxops.box_convert(boxes, "xyxy", "cxcywh")[places.unique()]
        parts["boxes"].append(in_32nds(of_place))
        parts["places"].append(places.to(torch.int16))
        parts["classes"].append(classes.to(torch.uint8))
        parts["scores"].append(scores[places, classes])
        parts["counts"].append(torch.tensor([len(places)]))
    return {name: torch.cat(some).numpy() for name, some in parts.items()} | {"shape": np.array(scores.shape)}


def record_ssd(data: Path, checkpoint: str, least: float = 0.05) -> dict[str, np.ndarray]:
    model, _ = load_model(checkpoint)
    parts: dict[str, list[Any]] = {"boxes": [], "classes": [], "scores": [], "counts": []}
    for name in (data / "bccd" / "ImageSets" / "Main" / "test.txt").read_text().split()[:8]:
        file = data / "bccd" / "JPEGImages" / f"{name}.jpg"
        with torch.inference_mode():
            (logits,), (deltas,), anchors = model.predict(model.transform([pixels_of(file)])[0])
        size = model.settings.size
        boxes = boxops.decode_boxes(deltas, anchors, variances=model.settings.variances, image_size=(size, size))
        scores = logits.softmax(dim=-1)[..., 1:]
        places, classes = torch.where(scores > least)
        parts["boxes"].append(in_32nds(boxes[places]))
        parts["classes"].append(classes.to(torch.uint8))
        parts["scores"].append(scores[places, classes])
        parts["counts"].append(torch.tensor([len(places)]))
    return {name: torch.cat(some).numpy() for name, some in parts.items()}


if __name__ == "__main__":
    np.savez_compressed(RECORDED, **record(Path(os.environ["BOXOPS_TEST_DATA"])))
    if len(sys.argv) > 1:
        np.savez_compressed(RECORDED_SSD, **record_ssd(Path(os.environ["BOXOPS_TEST_DATA"]), sys.argv[1]))
