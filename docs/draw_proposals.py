"""Draws the first proposals of images, and recalls of `boxops study proposals`, as docs/pictures/proposals.jpg.

    python docs/draw_proposals.py --row voc DIR test 0 STUDY/proposals.json --row ... [--checkpoint FILE]

Each row is a kind of data, its folder, split, the index of an image, and a study of that data.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

import boxops
from boxops.data import open_dataset
from boxops.models.proposals import Proposals
from boxops.studies.proposals import COLOURS, of_checkpoint

FIRST = 100


def draw_boxes(axis, image, record, boxes, colour, title):
    """The first boxes, and fat the best one of each object that has one at IoU 0.5."""
    boxes = torch.as_tensor(boxes)[:FIRST]
    overlaps = boxops.box_iou(torch.tensor(record.boxes), boxes)
    best = overlaps.argmax(1)[overlaps.amax(1) >= 0.5].tolist()
    axis.imshow(image)
    for width, alpha, shown in ((0.4, 0.5, boxes), (1.8, 1, boxes[best])):
        for x1, y1, x2, y2 in shown.tolist():
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, lw=width, alpha=alpha))
    axis.set_title(f"{title}: {len(best)} of {len(overlaps)} objects", fontsize=9)
    axis.set_axis_off()


def draw_recall(axis, study):
    for colour, (name, found) in zip(COLOURS, study["methods"].items(), strict=False):
        for iou, style in (("0.5", "-"), ("0.7", "--")):
            axis.plot(
                study["counts"], found["recall"][iou], style, color=colour, lw=1.4, label=name if iou == "0.5" else None
            )
    axis.set(xscale="log", ylim=(0, 1), xlabel="proposals of an image")
    axis.set_title(f"recall at IoU 0.5 (dashed: 0.7), {study['images']} images", fontsize=9)
    axis.legend(fontsize=7, loc="upper left", frameon=False)
    axis.grid(alpha=0.25)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", nargs=5, action="append", required=True)
    parser.add_argument("--checkpoint", help="of a Faster R-CNN, for the rows whose study has an RPN")
    args = parser.parse_args()
    args.device, args.max_proposals, args.min_size = "cpu", 2000, 1
    columns = {"selective_search_fast": "selective search", "edge_boxes": "edge boxes", "RPN": "RPN"}
    figure, axes = plt.subplots(
        len(args.row), 4, figsize=(15, 3.1 * len(args.row)), layout="constrained", squeeze=False
    )
    for row, (kind, root, split, index, study) in zip(axes, args.row, strict=True):
        study = json.loads(Path(study).read_text())
        image, record, _ = open_dataset(kind, root, split=split).load(int(index))
        for axis, (name, title) in zip(row, columns.items(), strict=False):
            if name in study["methods"]:
                find = of_checkpoint(args)[0] if name == "RPN" else Proposals(name)
                draw_boxes(axis, image, record, find(image), COLOURS[list(study["methods"]).index(name)], title)
            else:
                axis.set_axis_off()
        draw_recall(row[3], study)
    file = Path(__file__).parent / "pictures/proposals.jpg"
    figure.savefig(file, dpi=110, pil_kwargs={"quality": 85})
    print(f"wrote {file}")


if __name__ == "__main__":
    main()
