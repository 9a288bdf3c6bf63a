"""A generated set: coloured shapes on textured backgrounds, with boxes, masks and keypoints."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from boxops.data import segmentation
from boxops.data.dataset import DetectionDataset, Transform
from boxops.data.records import Object, Record, pack

CORNERS = {"circle": 0, "square": 4, "triangle": 3}
CONTRAST = 110  # the least distance of a colour from what it is painted on, in levels summed over R, G and B


class Shapes(DetectionDataset):
    """Circles, squares and triangles of any colour, size and rotation, which may hide parts of each other.

    Image i is a function of (seed, split, i). Masks and boxes are of the visible part, the pixels as drawn; a box ends
    one past the last pixel. Keypoints are the extreme points of the whole outline, visibility 1 where another shape
    hides them.

    Args:
        root: None: there are no files.
        length: how many images, by default 1000 for the split ``train`` and 100 for any other.
        size: side of the images in pixels, 48 or more, or (least, greatest): each side is drawn from these.
        max_objects: 1 to this many objects an image.
        visible: the smallest fraction of an object that later ones leave visible, in 0..1.
        masks, keypoints: whether samples and ``coco()`` have them.
    """

    def __init__(
        self,
        root: None = None,
        *,
        split: str = "train",
        transform: Transform | None = None,
        on_bad: str = "skip",
        seed: int = 0,
        length: int | None = None,
        size: int | Sequence[int] = 256,
        max_objects: int = 6,
        visible: float = 0.7,
        masks: bool = True,
        keypoints: bool = True,
    ) -> None:
        super().__init__(transform, on_bad, seed)
        if root is not None:
            raise ValueError(f"shapes: expected no root, since the images are generated, got {root!r}")
        self.length = length if length is not None else 1000 if split == "train" else 100
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if self.length < 1 or max_objects < 1:
            raise ValueError(f"shapes: expected length and max_objects of 1 or more, got {length}, {max_objects}")
        if len(self.size) != 2 or not 48 <= self.size[0] <= self.size[1]:
            raise ValueError(f"shapes: expected size, or (least, greatest), of 48 or more, got {size}")
        if not 0 <= visible <= 1:
            raise ValueError(f"shapes: expected visible in 0..1, got {visible}")
        self.split, self.max_objects, self.visible, self.has_masks = split, max_objects, visible, masks
        self.classes, self.category_ids = list(CORNERS), list(range(1, len(CORNERS) + 1))
        if keypoints:
            self.keypoint_names, self.keypoint_flip = ["top", "right", "bottom", "left"], [0, 3, 2, 1]
        self._all: list[Record] = []

    def __len__(self) -> int:
        return self.length

    @property
    def ids(self) -> list[int]:
        return list(range(1, self.length + 1))

    def image_path(self, index: int) -> None:
        """There is none."""

    def has_objects(self) -> bool:
        return True

    def one_object(self) -> Shapes:
        """The images of ``max_objects=1``."""
        other = copy.copy(self)
        other.max_objects, other._all = 1, []
        other._epoch = self._epoch.clone().share_memory_()
        return other

    def image(self, index: int) -> Image.Image:
        return self.load(index)[0]

    def load(self, index: int) -> tuple[Image.Image, Record, np.ndarray | None]:
        pixels, masks, labels, points = draw(
            np.random.default_rng((self.seed, zlib.crc32(self.split.encode()), index)),
            self.size,
            self.max_objects,
            self.visible,
        )
        height, width = pixels.shape[:2]
        objects = [
            Object(label, _box(mask), area=int(mask.sum()), keypoints=point)
            for label, mask, point in zip(labels, masks, points, strict=True)
        ]
        count = None if self.keypoint_names is None else len(self.keypoint_names)
        record = pack(None, index + 1, (width, height), objects, count, False)
        return Image.fromarray(pixels), record, masks if self.has_masks else None

    def records(self) -> Sequence[Record]:
        """The records of all images: draws each the first time."""
        if not self._all:
            for index in range(self.length):
                _, record, masks = self.load(index)
                if masks is not None:
                    record.segmentations = [json.dumps(segmentation.encode(mask)).encode() for mask in masks]
                self._all.append(record)
        return self._all

    def report(self, first: int = 5) -> str:
        return f"{self.length} generated images, {len(self.classes)} classes, 0 problems"


def draw(
    random: np.random.Generator, sizes: tuple[int, ...], max_objects: int, visible: float
) -> tuple[np.ndarray, np.ndarray, list[int], list[np.ndarray]]:
    """One image: pixels uint8 [H, W, 3], masks uint8 [G, H, W], labels, and keypoints [4, 3] of each object."""
    height, width = (int(side) for side in random.integers(sizes[0], sizes[1] + 1, 2))
    pixels = background(random, height, width)
    owner = np.zeros((height, width), np.uint8)  # which object is seen at a pixel, 0 the background
    areas: list[int] = []
    labels: list[int] = []
    outlines: list[np.ndarray] = []
    wanted = int(random.integers(1, max_objects + 1))
    for _ in range(20 * wanted):
        if len(areas) == wanted:
            break
        label = int(random.integers(1, len(CORNERS) + 1))
        shape = _shape(random, list(CORNERS.values())[label - 1], min(height, width))
        top, left = (
            int(random.integers(0, full - part + 1)) for full, part in zip(owner.shape, shape.shape, strict=True)
        )
        window = np.s_[top : top + shape.shape[0], left : left + shape.shape[1]]
        hidden = np.bincount(owner[window][shape], minlength=len(areas) + 1)[1:]
        seen = np.bincount(owner.ravel(), minlength=len(areas) + 1)[1:] if hidden.any() else np.array(areas)
        if (seen - hidden < visible * np.array(areas)).any():
            continue
        colour = _colour(random, pixels[window][shape].mean(0))
        owner[window][shape] = len(areas) + 1
        pixels[window][shape] = colour
        areas.append(int(shape.sum()))
        labels.append(label)
        outlines.append(_extremes(shape) + np.array([left, top]))
    noise = random.integers(-8, 9, pixels.shape, np.int8)  # as of a camera
    pixels = np.clip(pixels + noise.astype(np.int16), 0, 255).astype(np.uint8)
    masks = (owner == np.arange(1, len(areas) + 1, dtype=np.uint8)[:, None, None]).astype(np.uint8)
    points = []
    for outline, mask in zip(outlines, masks, strict=True):
        x, y = outline.astype(int).T
        points.append(np.concatenate([outline, 1.0 + mask[y, x][:, None]], 1))
    return pixels, masks, labels, points


def background(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth noise, a gradient or stripes between two colours, with spots, int16 [H, W, 3]."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    kind = random.integers(3)
    if kind == 0:
        cells = random.random((int(random.integers(3, 10)),) * 2, np.float32)
        mix = np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))
    else:
        angle = random.uniform(0, 2 * np.pi)
        mix = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
        if kind == 2:
            mix = np.sin(mix * np.float32(random.uniform(20, 70)))
        mix = (mix - mix.min()) / (np.ptp(mix) + 1e-6)
    first = random.uniform(30, 225, 3)
    second = np.clip(first + random.uniform(-60, 60, 3), 0, 255)
    mixed: np.ndarray = first.astype(np.float32) + mix[..., None] * (second - first).astype(np.float32)
    strength = int(random.integers(10, 60))
    spots = Image.fromarray(random.integers(0, strength, (16, 16, 3), np.uint8)).resize((width, height))
    return mixed.astype(np.int16) + np.asarray(spots, np.int16) - strength // 2


def _shape(random: np.random.Generator, corners: int, side: int) -> np.ndarray:
    """A filled shape of that many corners (0: a circle) in its bounding box, bool [h, w]."""
    radius = random.uniform(max(0.07 * side, 6), 0.24 * side)
    turn = random.uniform(0, 2 * np.pi)
    canvas = Image.new("1", (int(2 * radius) + 3,) * 2)
    middle = canvas.width / 2
    if corners:
        angles = turn + 2 * np.pi * np.arange(corners) / corners
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * radius + middle
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in points.tolist()], fill=1)
    else:
        low, high = middle - 0.8 * radius, middle + 0.8 * radius
        ImageDraw.Draw(canvas).ellipse((low, low, high, high), fill=1)
    mask: np.ndarray = np.asarray(canvas)
    x1, y1, x2, y2 = map(int, _box(mask))
    return mask[y1:y2, x1:x2]


def _box(mask: np.ndarray) -> list[float]:
    """The box of a mask, ending one past the last pixel."""
    ys, xs = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return [float(edge) for edge in (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)]


def _extremes(shape: np.ndarray) -> np.ndarray:
    """x, y of the middle of the pixels in the topmost row, rightmost column, lowest row and leftmost column: [4, 2]."""
    height, width = shape.shape

    def middle(line: np.ndarray) -> float:
        return float(np.flatnonzero(line).mean())

    return np.array([[middle(shape[0]), 0], [width - 1, middle(shape[:, -1])],
                     [middle(shape[-1]), height - 1], [0, middle(shape[:, 0])]])  # fmt: skip


def _colour(random: np.random.Generator, under: np.ndarray) -> np.ndarray[Any, Any]:
    """A colour that stands out from the one under it."""
    colours = random.integers(0, 256, (32, 3), np.int16)
    distances = np.abs(colours - under).sum(1)
    far = np.flatnonzero(distances >= CONTRAST)
    return colours[far[0] if len(far) else distances.argmax()]
