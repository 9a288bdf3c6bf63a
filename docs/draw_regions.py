"""Draws how the detectors of given proposals see regions, as docs/pictures/NAME.jpg, from real calls.

    python docs/draw_regions.py rcnn --root DIR --checkpoint FILE
    python docs/draw_regions.py sppnet --root DIR --backbone-weights FILE
    python docs/draw_regions.py fast_rcnn --root DIR --checkpoint FILE

DIR is of data in VOC's layout.
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
from boxops import models
from boxops.data import open_dataset, transforms
from boxops.draw import draw_detections
from boxops.models.common import GroundTruth
from boxops.models.rcnn import with_context
from boxops.models.roi_heads import scale_of
from boxops.models.sppnet import pyramid
from boxops.training import load_model

FOLDER = Path(__file__).parent / "pictures"
POSITIVE, NEGATIVE, PROPOSED = "#16a34a", "#dc2626", "#facc15"


def show(axis, image, boxes=(), colour=PROPOSED, title=""):
    axis.imshow(image.as_subclass(torch.Tensor).permute(1, 2, 0).clamp(0, 1))
    for x1, y1, x2, y2 in torch.as_tensor(boxes).tolist():
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=0.9))
    axis.set_xlim(0, image.shape[-1])
    axis.set_ylim(image.shape[-2], 0)
    axis.set_title(title, fontsize=9)


@torch.inference_mode()
def rcnn(args, data):
    """Proposals near objects and elsewhere, their warped crops with context, and what is detected."""
    model, checkpoint = load_model(args.checkpoint)
    s = model.settings
    figure, axes = plt.subplots(len(args.images), 3, figsize=(12, 3.2 * len(args.images)), layout="constrained")
    for row, index in zip(axes.reshape(-1, 3), args.images, strict=True):
        image, target = data[index]
        image = image.as_subclass(torch.Tensor)
        proposals = model.proposals(image)
        _, ious = boxops.match_max_iou(proposals, target["boxes"].as_subclass(torch.Tensor), 0.5)
        surest, rest = (ious >= 0.7).nonzero()[:, 0], (ious < 0.3).nonzero()[:, 0]
        near, far = (some[torch.linspace(0, len(some) - 1, 12).long()] for some in (surest, rest))
        show(row[0], image, proposals[far], NEGATIVE)
        show(row[0], image, proposals[near], POSITIVE, f"24 of {len(proposals)} proposals")
        wide = with_context(proposals[torch.cat([near, far])], s.crop_size, s.context)
        crops = boxops.roi_align(image[None], [wide], s.crop_size, 1.0, 0, aligned=True)
        crops = torch.nn.functional.pad(crops, (2, 2, 2, 2), value=1.0)
        mosaic = crops.unflatten(0, (4, 6)).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2)
        show(row[1], mosaic, title=f"their crops of {s.crop_size} pixels, {s.context} on each side are context")
        found = model([image], [{"proposals": proposals}])[0]
        row[2].imshow(draw_detections(image, found, checkpoint["classes"], args.threshold))
        row[2].set_title("detections", fontsize=9)
    return figure, axes.flatten()


@torch.inference_mode()
def sppnet(args, data):
    """One region's cells of one channel, and their largest values in every bin of the pyramid's levels."""
    model = models.create("sppnet", len(data.classes) + 1, backbone_weights=args.backbone_weights).eval()
    image, target = data[args.images[0]]
    batch, (resized,) = model.transform([image.as_subclass(torch.Tensor)], [target])
    boxes = resized["boxes"].as_subclass(torch.Tensor)
    box = boxes[((boxes[:, 2:] - boxes[:, :2]).prod(dim=1)).argmax()]
    features = model.backbone(batch.tensors)["0"]
    scale, bins = scale_of(features, batch.tensors), model.settings.bins
    x1, y1, x2, y2 = (box * scale).round().int().tolist()
    cells = features[0, :, y1:y2, x1:x2]
    channel = int((cells.amax(dim=(1, 2)) - features[0].mean(dim=(1, 2))).argmax())
    pooled = pyramid(features[:, channel : channel + 1], [box[None]], bins, scale)[0].split([n * n for n in bins])
    figure, axes = plt.subplots(2, 5, figsize=(12, 4.6), layout="constrained")
    back = torch.tensor([image.shape[-1] / batch.image_sizes[0][1], image.shape[-2] / batch.image_sizes[0][0]] * 2)
    left, top, right, bottom = (box * back).round().int().tolist()
    show(axes[0, 0], image, [(left, top, right, bottom)], POSITIVE, "a region")
    limits = {"vmin": float(cells[channel].min()), "vmax": float(cells[channel].max()), "cmap": "viridis"}
    axes[1, 0].imshow(cells[channel], **limits)
    axes[1, 0].set_title(f"its {x2 - x1} x {y2 - y1} cells, of one channel", fontsize=9)
    for (above, below), n, values in zip(axes.T[1:], bins, pooled, strict=True):
        show(above, image[:, top:bottom, left:right], title=f"{n} x {n} bins")
        for i in range(1, n):
            above.axvline(i * (right - left) / n, color="white", linewidth=1)
            above.axhline(i * (bottom - top) / n, color="white", linewidth=1)
        below.imshow(values.view(n, n), extent=(0, x2 - x1, y2 - y1, 0), **limits)
        below.set_title("the largest in each", fontsize=9)
    axes = axes.flatten()
    return figure, axes


@torch.inference_mode()
def fast_rcnn(args, data):
    """What is proposed, what one step learns from it, and what is detected."""
    model, checkpoint = load_model(args.checkpoint)
    figure, axes = plt.subplots(len(args.images), 3, figsize=(12, 3.2 * len(args.images)), layout="constrained")
    for row, index in zip(axes.reshape(-1, 3), args.images, strict=True):
        image, target = data[index]
        image = image.as_subclass(torch.Tensor)
        target = {key: target[key].as_subclass(torch.Tensor) for key in ("boxes", "labels")}
        batch, resized = model.transform([image], [target])
        proposals = model.proposals(image)
        model.add_proposals(batch, [image], [{"proposals": proposals}])
        given, counts, _ = model.rpn([], batch, None)
        torch.manual_seed(0)
        sample, boxes, _ = model.roi_heads.sample(given, counts, GroundTruth.of(resized))
        boxes = models.common.scaled(boxes[0], (image.shape[-2], image.shape[-1]), batch.image_sizes[0])
        show(row[0], image, proposals[:100], PROPOSED, f"100 of {len(proposals)} proposals")
        show(row[1], image, boxes[sample.real[0] & ~sample.positive[0]], NEGATIVE)
        show(row[1], image, boxes[sample.positive[0]], POSITIVE, "RoIs of a step: objects, background near them")
        found = model([image], [{"proposals": proposals}])[0]
        drawn = draw_detections(image, found, checkpoint["classes"], args.threshold)
        row[2].imshow(drawn)
        row[2].set_title("detections", fontsize=9)
    return figure, axes.flatten()


PICTURES = {"rcnn": rcnn, "fast_rcnn": fast_rcnn, "sppnet": sppnet}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=PICTURES)
    parser.add_argument("--root", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--checkpoint")
    parser.add_argument("--backbone-weights")
    parser.add_argument("--images", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--threshold", type=float, default=0.5)
    args = parser.parse_args()
    data = open_dataset("voc", args.root, split=args.split, transform=transforms.evaluate())
    figure, axes = PICTURES[args.name](args, data)
    for axis in axes:
        axis.set_axis_off()
    file = FOLDER / f"{args.name}.jpg"
    figure.savefig(file, dpi=110, pil_kwargs={"quality": 85})
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
