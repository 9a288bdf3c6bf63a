"""Draws what a trained detector does on held-out images, as docs/pictures/NAME.jpg.

    python docs/draw_detectors.py ssd CHECKPOINT --data voc --root DIR --split test

Three steps of each image, from real calls: the anchors that match an object, what is proposed, what is detected.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

import boxops
from boxops.data import open_dataset, transforms
from boxops.draw import draw_detections
from boxops.training import load_model

FOLDER = Path(__file__).parent / "pictures"
LEVELS = ["#2563eb", "#16a34a", "#ea7317", "#dc2626", "#9333ea", "#0891b2"]


@torch.inference_mode()
def steps(model, image, target):
    """(title, [(boxes [N, 4], colour)]) of what comes before the detections, in pixels of the image."""
    batch, _ = model.transform([image])
    size, (height, width) = image.shape[-2:], batch.image_sizes[0]
    scale = torch.tensor([size[1] / width, size[0] / height] * 2)
    truth = target["boxes"].as_subclass(torch.Tensor) / scale
    ssd = isinstance(model, boxops.models.SSD)
    if ssd:
        logits, deltas, anchors = model.predict(batch)
        matches, _ = boxops.match_greedy(anchors, truth, model.settings.iou_thresh)
        maps = [f.shape[-2:] for f in model.backbone(batch.tensors).values()]
        per_cell = [2 + 2 * len(ratios) for ratios in model.settings.aspect_ratios]
        counts = [h * w * n for (h, w), n in zip(maps, per_cell, strict=True)]
        best = logits.softmax(-1)[0, :, 1:].amax(-1).topk(100).indices
        later = boxops.decode_boxes(deltas[0, best], anchors[best], variances=model.settings.variances)
        title = "the 100 surest boxes, before suppression"
    else:
        s, (features, _) = model.rpn.settings, model.features(batch)
        grids = [(f.shape[-2], f.shape[-1]) for f in features]
        ratios = [s.aspect_ratios] * len(grids)
        anchors = boxops.grid_anchors((height, width), grids, s.anchor_sizes, ratios, like=truth)
        counts = [
            h * w * len(sizes) * len(s.aspect_ratios) for (h, w), sizes in zip(grids, s.anchor_sizes, strict=True)
        ]
        matches, _ = boxops.match_max_iou(anchors, truth, s.rpn_fg_iou_thresh, s.rpn_bg_iou_thresh, True)
        boxes, real, _ = model.rpn(features, batch, None)
        later, title = boxes[0, : min(100, int(real))], "the 100 surest proposals"
    levels = zip(anchors.split(counts), matches.split(counts), LEVELS, strict=False)
    first = [((some[match >= 0] * scale), colour) for some, match, colour in levels]
    return [("anchors that match an object, by level", first), (title, [(later * scale, "#facc15")])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("checkpoint")
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--root")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threshold", type=float, default=0.5)
    args = parser.parse_args()
    model, checkpoint = load_model(args.checkpoint)
    data = open_dataset(args.data, args.root, split=args.split, transform=transforms.evaluate())
    figure, rows = plt.subplots(len(args.images), 3, figsize=(12, 3.2 * len(args.images)), layout="constrained")
    for axes, index in zip(rows.reshape(-1, 3), args.images, strict=True):
        image, target = data[index]
        image = image.as_subclass(torch.Tensor)
        for axis, (title, groups) in zip(axes, steps(model, image, target), strict=False):
            axis.imshow(image.permute(1, 2, 0))
            axis.set_title(title, fontsize=9)
            for boxes, colour in groups:
                for x1, y1, x2, y2 in boxes.tolist():
                    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=0.8))
            axis.set_xlim(0, image.shape[-1])
            axis.set_ylim(image.shape[-2], 0)
        with torch.inference_mode():
            found = model([image])[0]
        axes[2].imshow(draw_detections(image, found, checkpoint["classes"], args.threshold))
        axes[2].set_title("detections", fontsize=9)
        for axis in axes:
            axis.set_axis_off()
    file = FOLDER / f"{args.name}.jpg"
    figure.savefig(file, dpi=110, pil_kwargs={"quality": 85})
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
