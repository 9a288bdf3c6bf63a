"""Draws what DETR's queries read: python docs/draw_detr.py runs/detr/best.pt image.jpg docs/pictures/detr.jpg"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from boxops.models import DETR
from boxops.training import load_model


@torch.inference_mode()
def attention(model: DETR, image: Tensor) -> Tensor:
    """Of an image [3, H, W] what each query read of it in the last decoder layer, the mean of the heads: [Q, h, w], in
    the order of the detections."""
    kept: dict[str, Any] = {}
    reader: Any = model.transformer.decoder.layers[-1].multihead_attn

    def ask(module: Any, args: Any, options: dict[str, Any]) -> Any:
        return args, {**options, "need_weights": True}

    def keep(module: Any, args: Any, options: Any, output: Any) -> None:
        kept["weights"] = output[1][0]  # [Q, cells]

    def measure(module: Any, args: Any, output: Tensor) -> None:
        kept["grid"] = output.shape[-2:]

    hooks = [
        reader.register_forward_pre_hook(ask, with_kwargs=True),
        reader.register_forward_hook(keep, with_kwargs=True),
        model.input_proj.register_forward_hook(measure),
    ]
    try:
        logits, _ = model.predict(model.transform([image])[0])
    finally:
        for hook in hooks:
            hook.remove()
    scores = logits[-1, 0].softmax(dim=-1)[:, 1:-1].amax(dim=-1)
    return kept["weights"][scores.argsort(descending=True, stable=True)].unflatten(1, kept["grid"])


@torch.inference_mode()
def draw(model: DETR, classes: list[str], picture: Image.Image, queries: int) -> plt.Figure:
    image = pil_to_tensor(picture).float() / 255
    found, weights = model([image])[0], attention(model, image)
    figure, axes = plt.subplots(1, queries + 1, figsize=(3 * (queries + 1), 3.4), layout="constrained")
    height, width = image.shape[1:]
    for i, axis in enumerate(axes):
        axis.axis("off")
        axis.imshow(picture)
        for k in range(queries) if i == 0 else [i - 1]:
            x1, y1, x2, y2 = found["boxes"][k].tolist()
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=2, edgecolor=f"C{k}"))
        if i > 0:
            label, score = int(found["labels"][i - 1]), float(found["scores"][i - 1])
            read = {"extent": (0, width, height, 0), "alpha": 0.6, "cmap": "inferno", "interpolation": "bilinear"}
            axis.imshow(weights[i - 1], **read)
            axis.set_title(f"{classes[label - 1]} {score:.2f}", color=f"C{i - 1}")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("image")
    parser.add_argument("out")
    parser.add_argument("--queries", type=int, default=4, help="how many of the surest (4)")
    args = parser.parse_args()
    model, checkpoint = load_model(args.checkpoint)
    picture = ImageOps.exif_transpose(Image.open(args.image)).convert("RGB")
    draw(model, checkpoint["classes"], picture, args.queries).savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
