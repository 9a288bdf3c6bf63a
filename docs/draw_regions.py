"""Draws how the detectors of given proposals see regions, as docs/pictures/NAME.jpg, from real calls.

    python docs/draw_regions.py rcnn --root DIR --checkpoint FILE

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
from boxops.data import open_dataset, transforms
from boxops.draw import draw_detections
from boxops.models.rcnn import with_context
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


PICTURES = {"rcnn": rcnn}


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
