"""Detections drawn on their image."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, draw_keypoints, draw_segmentation_masks

Colour = tuple[int, int, int]
LEAST = 640  # pixels of the longer side: smaller images are drawn enlarged, so that labels are readable
GOLDEN = 0.618034  # steps around the colour wheel that never come near one another


def colour(label: int) -> Colour:
    """The colour of a class: the hues of all are far apart."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + GOLDEN * (label - 1)) % 1, 0.85, 0.95 - 0.2 * (label // 8 % 2))
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: Tensor | Image.Image,
    detections: Mapping[str, Any],
    classes: Sequence[str] = (),
    threshold: float = 0.5,
    title: str = "",
) -> Image.Image:
    """Boxes with class and score, and masks and keypoints where there are any.

    Args:
        image: uint8 ``[3, H, W]`` or floating in 0..1, or a PIL image; small ones are enlarged.
        detections: ``boxes`` ``[D, 4]`` in pixels, ``labels`` ``[D]``, and maybe ``scores`` ``[D]`` (ground truth has
            none: all is drawn), ``masks`` ``[D, 1, H, W]`` or ``[D, H, W]``, ``keypoints`` ``[D, K, 3]``.
        classes: label i is called classes[i - 1].
        threshold: the least score.
        title: written above.
    """
    tensor = image if isinstance(image, Tensor) else F.pil_to_tensor(image.convert("RGB"))
    tensor = F.to_dtype(tensor.as_subclass(Tensor).cpu(), torch.uint8, scale=True)
    kept = {k: v.detach().cpu() for k, v in detections.items() if isinstance(v, Tensor)}
    scores = kept.get("scores")
    if scores is not None:
        order = torch.argsort(scores)  # the surest on top
        order = order[scores[order] >= threshold]
        kept = {key: kept[key][order] for key in ("boxes", "labels", "scores", "masks", "keypoints") if key in kept}
    height, width = tensor.shape[-2:]
    factor = max(1.0, LEAST / max(height, width))
    size = [round(height * factor), round(width * factor)]
    tensor = F.resize(tensor, size, antialias=True)
    labels = kept["labels"].tolist()
    colours = [colour(label) for label in labels]
    line = max(3, round(max(size) / 240))
    if len(labels):
        if "masks" in kept:
            masks = F.resize(kept["masks"].reshape(len(labels), height, width).float(), size) >= 0.5
            tensor = draw_segmentation_masks(tensor, masks, alpha=0.45, colors=colours)
        boxes = (kept["boxes"].as_subclass(Tensor) * factor).round()
        around = boxes + torch.tensor([-1, -1, 1, 1])  # dark edges: seen on any ground
        tensor = draw_bounding_boxes(tensor, around, colors="black", width=line + 2)
        tensor = draw_bounding_boxes(tensor, boxes, colors=colours, width=line)
        if "keypoints" in kept:
            tensor = draw_keypoints(
                tensor,
                kept["keypoints"][..., :2] * factor,
                colors="white",
                radius=line + 1,
                visibility=kept["keypoints"][..., 2] > 0,
            )
    picture: Image.Image = F.to_pil_image(tensor)
    texts = [classes[label - 1] if 0 < label <= len(classes) else str(label) for label in labels]
    if scores is not None:
        texts = [f"{text} {100 * score:.0f}%" for text, score in zip(texts, kept["scores"].tolist(), strict=True)]
    height = max(14, round(max(picture.size) / 42))
    font = ImageFont.load_default(size=height)
    _write(picture, texts, (kept["boxes"] * factor).tolist(), colours, font)
    if title:
        strip = round(1.8 * height)
        picture = ImageOps.expand(picture, (0, strip, 0, 0), "white").crop(
            (0, 0, picture.width, strip + picture.height)
        )
        ImageDraw.Draw(picture).text((8, strip // 2), title, fill="black", font=font, anchor="lm")
    return picture


def _write(
    picture: Image.Image, texts: Sequence[str], boxes: Sequence[Sequence[float]], colours: Sequence[Colour], font: Any
) -> None:
    """Labels on their colours above the boxes, or inside those that begin at the upper edge."""
    brush = ImageDraw.Draw(picture)
    for text, (x1, y1, *_), paint in zip(texts, boxes, colours, strict=True):
        left, top, right, bottom = brush.textbbox((0, 0), text, font=font)
        wide, high = right - left + 6, bottom - top + 6
        x = min(max(x1, 0), picture.width - wide)
        y = y1 - high if y1 >= high else y1
        dark = 0.299 * paint[0] + 0.587 * paint[1] + 0.114 * paint[2] < 140
        brush.rectangle((x, y, x + wide, y + high), fill=paint)
        brush.text((x + 3 - left, y + 3 - top), text, fill="white" if dark else "black", font=font)


def grid(rows: Sequence[Sequence[Image.Image]], gap: int = 6) -> Image.Image:
    """Pictures in rows, each row as high as its highest one."""
    heights = [max(picture.height for picture in row) for row in rows]
    width = max(sum(picture.width + gap for picture in row) for row in rows) - gap
    sheet = Image.new("RGB", (width, sum(heights) + gap * (len(rows) - 1)), "white")
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + gap
        y += height + gap
    return sheet
