"""Detections drawn on their image."""

from __future__ import annotations

import colorsys
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby, zip_longest
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, draw_keypoints, draw_segmentation_masks

Colour = tuple[int, int, int]
LEAST = 640  # pixels of the longer side: smaller images are drawn enlarged, so that labels are readable
GOLDEN = 0.618034  # steps around the colour wheel that never come near one another
LONGEST = 40  # characters of a name
_told: list[str] = []  # the name that was warned of
# Fonts of many scripts that systems have, by their files' names; PIL knows where to look.
FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "SourceHanSans-Regular.ttc", "DroidSansFallbackFull.ttf",
    "DroidSansFallback.ttf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "NanumGothic.ttf", "ipag.ttf", "DejaVuSans.ttf",
    "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Arial Unicode.ttf",  # macOS
    "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "simsun.ttc", "msgothic.ttc", "arial.ttf",  # Windows
)  # fmt: skip


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
        classes: label i is called classes[i - 1]. A name in a script that no font of this system has is drawn as the
            label, with one warning.
        threshold: the smallest score to draw.
        title: written above.
    """
    tensor = image if isinstance(image, Tensor) else F.pil_to_tensor(image.convert("RGB"))
    tensor = F.to_dtype(tensor.as_subclass(Tensor).cpu(), torch.uint8, scale=True)
    kept = {k: v.detach().cpu() for k, v in detections.items() if isinstance(v, Tensor)}
    scores = kept.get("scores")
    if scores is not None:
        order = torch.argsort(scores)  # the highest scores on top
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
    texts = [_drawable(classes[label - 1], label) if 0 < label <= len(classes) else str(label) for label in labels]
    if scores is not None:
        texts = [f"{text} {100 * score:.0f}%" for text, score in zip(texts, kept["scores"].tolist(), strict=True)]
    _write(picture, texts, (kept["boxes"] * factor).tolist(), colours, _text_height(picture))
    return captioned(picture, [title]) if title else picture


def captioned(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture with lines of text above it, on a wider sheet if that is what the text takes."""
    size = _text_height(picture)
    high = round(1.35 * size)
    widths = [sum(font.getlength(part) for part, font in _runs(line, size)) for line in lines]
    strip, width = high * len(lines) + round(0.45 * size), max(picture.width, math.ceil(max(widths)) + 16)
    sheet = Image.new("RGB", (width, strip + picture.height), "white")
    sheet.paste(picture, (0, strip))
    brush = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        _line(brush, 8, (strip - high * len(lines)) / 2 + high * (i + 0.5), line, size, "black")
    return sheet


@cache
def _load(name: str | None, size: int) -> Any:
    """The font of that file, or PIL's own; None where the system has none."""
    try:
        return ImageFont.load_default(size=size) if name is None else ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _font_of(character: str) -> tuple[str | None] | None:
    """The first font with a glyph for it: what a font lacks looks as what no font has."""
    for name in (None, *FONTS):
        font = _load(name, 16)
        if font and (character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask("\U0010ffff"))):
            return (name,)
    return None


def _drawable(name: str, label: int) -> str:
    """The name, cut if it is as long as a sentence; or the label where no font has the name's script."""
    if all(map(_font_of, name)):
        return name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."
    if not _told:
        _told.append(name)
        text = f"no font of this system has the characters of {name!r}: such classes are drawn as their numbers"
        warnings.warn(text, stacklevel=2)
    return str(label)


def _text_height(picture: Image.Image) -> int:
    return max(14, round(max(picture.size) / 42))


def _runs(text: str, size: int) -> list[tuple[str, Any]]:
    """The text in parts of one font each."""
    runs = groupby(text, lambda character: _font_of(character) or (None,))
    return [("".join(part), _load(*font, size)) for font, part in runs]


def _line(brush: Any, x: float, middle: float, text: str, size: int, fill: str) -> None:
    for part, font in _runs(text, size):
        brush.text((x, middle + 0.36 * size), part, fill=fill, font=font, anchor="ls")  # on one baseline
        x += font.getlength(part)


def _write(
    picture: Image.Image, texts: Sequence[str], boxes: Sequence[Sequence[float]], colours: Sequence[Colour], size: int
) -> None:
    """Labels on their colours above the boxes, or inside those that begin at the upper edge."""
    brush, high = ImageDraw.Draw(picture), round(1.35 * size)
    for text, (x1, y1, *_), paint in zip(texts, boxes, colours, strict=True):
        wide = 6 + sum(font.getlength(part) for part, font in _runs(text, size))
        x = max(min(x1, picture.width - wide), 0)
        y = y1 - high if y1 >= high else y1
        dark = 0.299 * paint[0] + 0.587 * paint[1] + 0.114 * paint[2] < 140
        brush.rectangle((x, y, x + wide, y + high), fill=paint)
        _line(brush, x + 3, y + high / 2, text, size, "white" if dark else "black")


def grid(rows: Sequence[Sequence[Image.Image]], gap: int = 6) -> Image.Image:
    """Pictures in rows, each row as high as its highest one and each column as wide as its widest."""
    heights = [max(picture.height for picture in row) for row in rows]
    columns = zip_longest(*([picture.width for picture in row] for row in rows), fillvalue=0)
    widths = [max(column) for column in columns]
    sheet = Image.new("RGB", (sum(widths) + gap * (len(widths) - 1), sum(heights) + gap * (len(rows) - 1)), "white")
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for picture, width in zip(row, widths, strict=False):
            sheet.paste(picture, (x, y))
            x += width + gap
        y += height + gap
    return sheet
