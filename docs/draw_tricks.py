"""Draws the tricks of training on real images, as docs/pictures/tricks*, from real calls.

    python docs/draw_tricks.py --root DIR

DIR is of data in VOC's layout, BCCD's.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import count
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

from boxops.data import open_dataset, transforms
from boxops.data.mixing import Mixup
from boxops.training import Options
from boxops.training.parts import make_schedule

FOLDER = Path(__file__).parent / "pictures"
COLOURS = {"RBC": "#2563eb", "WBC": "#16a34a", "Platelets": "#ea7317"}
IMAGE, OTHER = "BloodImage_00004", "BloodImage_00066"
PARTS = {
    "flip": 0.05,
    "colour": 0.1,
    "jitter": 0.04,
    "exposure": 0.08,
    "expand": 0,
    "crop": 0,
    "shift": 0.05,
    "mosaic": 0.05,
}


def show(axis, image, target, classes, title):
    image = image / 255 if image.dtype == torch.uint8 else image
    axis.imshow(image.permute(1, 2, 0))
    weights = target.get("weights", torch.ones(len(target["labels"])))
    for (x1, y1, x2, y2), label, weight in zip(target["boxes"].tolist(), target["labels"], weights, strict=True):
        style = {"edgecolor": COLOURS[classes[label - 1]], "alpha": 0.25 + 0.75 * float(weight), "linewidth": 1.3}
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def first_epoch(data, index, wanted):
    """The sample of the first epoch that is as wanted."""
    for epoch in count():
        data.set_epoch(epoch)
        if wanted(*data[index]):
            return data[index]


def differs(raw, least, image, target):
    """In shape or colour, and still shows some objects."""
    return len(target["boxes"]) > 2 and (
        image.shape != raw.shape or float((image - raw / 255).abs().mean()) > least > 0
    )


def pictures(root):
    """One image as it is, after each transform alone, mixed with another, and after all together."""
    data = open_dataset("voc", root, split="trainval")
    names = [data.image_path(i).stem for i in range(len(data))]
    at, other = names.index(IMAGE), names.index(OTHER)
    figure, axes = plt.subplots(3, 4, figsize=(13, 7.9), layout="constrained")
    places = iter(axes.flat)
    raw, target = data[at]
    show(next(places), raw, target, data.classes, "as it is")
    for part, least in PARTS.items():
        transforms.augment(data, part)
        show(next(places), *first_epoch(data, at, partial(differs, raw, least)), data.classes, part)
    transforms.augment(data, "none")
    data.transform = None
    show(next(places), *data[other], data.classes, "another")
    show(next(places), *Mixup.mix(data[at], data[other], 0.6), data.classes, "mixup, lambda = 0.6")
    transforms.augment(data, "mosaic,ssd", mixup=1.5)
    image, target = first_epoch(
        data, at, lambda image, target: 2 > image.numel() / raw.numel() > 0.5 and len(target["boxes"]) > 8
    )
    share = float(target["weights"].max())
    show(next(places), image, target, data.classes, f"mosaic,ssd and mixup, lambda = {share:.2f}")
    figure.savefig(FOLDER / "tricks.jpg", dpi=100, pil_kwargs={"quality": 85})


def schedules():
    """The learning rate at every step of a run of 1000, of which 100 warm it up."""
    figure, axis = plt.subplots(figsize=(6.5, 2.8), layout="constrained")
    for kind, colour in (("cosine", "#2563eb"), ("multistep", "#ea7317"), ("constant", "#64748b")):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        rule = make_schedule(optimizer, Options(schedule=kind, warmup=100), 1000).lr_lambdas[0]
        axis.plot([0.1 * rule(step) for step in range(1000)], color=colour, label=f"--schedule {kind}")
    axis.set(xlabel="step", ylabel="learning rate", xlim=(0, 1000), ylim=(0, None))
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    plt.rcParams["svg.hashsalt"] = "boxops"
    figure.savefig(FOLDER / "tricks_rates.svg", metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True)
    args = parser.parse_args()
    pictures(args.root)
    schedules()
    print(f"wrote {FOLDER / 'tricks.jpg'} and tricks_rates.svg")


if __name__ == "__main__":
    main()
