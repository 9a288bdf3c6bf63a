"""Draws what a localizer answers on held-out images, beside the truth, as docs/pictures/localizer.jpg.

python docs/draw_localizer.py SHAPES_CHECKPOINT CELLS_CHECKPOINT --root BCCD
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
from boxops.training import load_model

FILE = Path(__file__).parent / "pictures" / "localizer.jpg"
COLUMNS = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", help="checkpoint of a run on shapes")
    parser.add_argument("--cells", help="checkpoint of a run on BCCD, for a second row")
    parser.add_argument("--root", help="the folder of BCCD")
    args = parser.parse_args()
    runs = [(args.shapes, "shapes", None, "val")]
    if args.cells is not None:
        runs.append((args.cells, "voc", args.root, "test"))
    figure, rows = plt.subplots(len(runs), COLUMNS, figsize=(12, 2.3 * len(runs)), layout="constrained", squeeze=False)
    for axes, (checkpoint, kind, root, split) in zip(rows, runs, strict=True):
        model, run = load_model(checkpoint)
        data = open_dataset(kind, root, split=split, one_object=True, transform=transforms.evaluate())
        for k, axis in enumerate(axes):
            image, target = data[k * (len(data) - 1) // (COLUMNS - 1)]
            with torch.inference_mode():
                (found,) = model([image])
            truth = target["boxes"].as_subclass(torch.Tensor)
            iou = boxops.box_iou(found["boxes"], truth, paired=True).item()
            axis.imshow(image.permute(1, 2, 0))
            for box, style in ((truth, "--"), (found["boxes"], "-")):
                x1, y1, x2, y2 = box[0].tolist()
                for colour, width in (("black", 3.2), ("white" if style == "--" else "#facc15", 1.6)):
                    patch = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=width)
                    axis.add_patch(patch).set_linestyle(style if colour != "black" else "-")
            name = run["classes"][found["labels"].item() - 1]
            axis.set_title(f"{name} {found['scores'].item():.2f}, IoU {iou:.2f}", fontsize=9)
            axis.set_axis_off()
    figure.savefig(FILE, dpi=110, pil_kwargs={"quality": 85})
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
