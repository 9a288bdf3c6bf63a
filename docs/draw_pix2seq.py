"""Draws an image's objects and their tokens in Pix2Seq's three orderings, as docs/pictures/pix2seq.jpg.

    python docs/draw_pix2seq.py --data voc --root BCCD --split test --image 29

Real calls make the tokens, and the boxes that are drawn are read back from them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle

from boxops.data import open_dataset, transforms
from boxops.models.pix2seq import Settings
from boxops.models.sequences import EOS, ORDERINGS, Vocabulary, order, sequence

FILE = Path(__file__).parent / "pictures" / "pix2seq.jpg"
COLOURS = ["#2563eb", "#ea7317", "#16a34a", "#dc2626", "#9333ea", "#0891b2"]
GREY = "#6b7280"
NAMES = {"random": "random: drawn anew in each step", "area": "area: the largest first",
         "dist2ori": "dist2ori: the nearest to the upper left corner first"}  # fmt: skip
MONO = {"family": "DejaVu Sans Mono", "va": "center", "ha": "center"}


def line(axis, y, fives, owners, title):
    """A sequence in the colours of its objects: each object's tokens in a cell of their own."""
    axis.text(0, y + 0.62, title, fontsize=10, va="center")
    for k, (tokens, owner) in enumerate(zip(fives.tolist(), owners, strict=True)):
        colour = GREY if owner is None else COLOURS[owner]
        axis.add_patch(Rectangle((k * 10, y - 0.28), 9.6, 0.56, facecolor=(*matplotlib.colors.to_rgb(colour), 0.12),
                                 edgecolor=colour))  # fmt: skip
        text = str(EOS) if tokens[0] == EOS else " ".join(map(str, tokens))
        axis.text(k * 10 + 4.8, y, text, color=colour, fontsize=8.2, weight="bold", **MONO)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--root")
    parser.add_argument("--split", default="val")
    parser.add_argument("--image", type=int, default=0)
    args = parser.parse_args()
    data = open_dataset(args.data, args.root, split=args.split, transform=transforms.evaluate())
    image, target = data[args.image]
    boxes, labels = target["boxes"].as_subclass(torch.Tensor), target["labels"]
    height, width = image.shape[-2:]
    side, count = max(height, width), len(boxes)
    vocabulary = Vocabulary(Settings.n_bins, len(data.classes) + 1, side)
    torch.manual_seed(1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 4.6), width_ratios=(1, 1.75), layout="constrained")
    left.imshow(image.permute(1, 2, 0))
    read, _, real = vocabulary.objects(vocabulary.tokens(boxes, labels).flatten())
    for k in torch.nonzero(real).flatten().tolist():
        (x1, y1, x2, y2), colour = read[k].tolist(), COLOURS[k % len(COLOURS)]
        left.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2.2))
        name = data.classes[int(labels[k]) - 1]
        left.text(
            x1 + 6, y1 + 8, name, color="white", fontsize=9, va="top", bbox={"facecolor": colour, "pad": 1.5, "lw": 0}
        )
    ticks = [0, 250, 500, 750, 999]
    places = [bin_ * side / (vocabulary.n_bins - 1) for bin_ in ticks]
    left.set_xticks(places, [str(bin_ + 1) for bin_ in ticks])
    left.set_yticks(
        [p for p in places if p <= height], [str(t + 1) for t, p in zip(ticks, places, strict=True) if p <= height]
    )
    left.set_title(f"{height} x {width} pixels; the axes are tokens 1 to {vocabulary.n_bins}", fontsize=10)
    for row, ordering in enumerate(ORDERINGS):
        torch.manual_seed(1)
        _, said, _ = sequence(vocabulary, boxes, labels, (height, width), count + 1, ordering, noise=False)
        torch.manual_seed(1)
        owners = [k % len(COLOURS) for k in order(boxes, ordering).tolist()]
        line(right, -1.35 * row, said.view(-1, 5), [*owners, None], NAMES[ordering])
    torch.manual_seed(4)
    read_, said, weights = sequence(vocabulary, boxes, labels, (height, width), count + 1, "area", noise=True)
    fives = [read_.view(-1, 5)[-1].tolist(), said.view(-1, 5)[-1].tolist(), weights.view(-1, 5)[-1].int().tolist()]
    noise = [" ".join(f"{token:4d}" for token in five) for five in fives]
    right.text(0, -4.05 + 0.35, "or, instead of EOS, noise fills up", fontsize=10, va="center")
    for k, (name, text) in enumerate(zip(("read", "said", "weight"), noise, strict=True)):
        right.text(0, -4.12 - 0.36 * k, f"{name:7s}{text}", color=GREY, fontsize=8.6, **(MONO | {"ha": "left"}))
    classes = ", ".join(f"{vocabulary.n_bins + k + 1} {name}" for k, name in enumerate(data.classes))
    right.set_title(f"y1 x1 y2 x2 class; {classes}, {vocabulary.noise} noise, {EOS} the end", fontsize=10)
    right.set_xlim(-0.3, 10 * count + 10)
    right.set_ylim(-5.1, 0.95)
    right.set_axis_off()
    figure.savefig(FILE, dpi=110, pil_kwargs={"quality": 85})
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
