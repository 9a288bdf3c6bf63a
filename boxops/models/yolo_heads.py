"""The heads of YOLO v1, v2 and v3: what a cfg says of the numbers that the network has for each cell.

Redmon et al., CVPR 2016; Redmon, Farhadi, CVPR 2017 and 2018. Shapes: B images, C classes without a background, A
boxes: the cells of a grid row by row, the boxes of each inner.
"""

from __future__ import annotations

import torch
from torch import Tensor

import boxops

from .darknet_files import Section
from .darknet_layers import Shape
from .dense import Branch

Size = tuple[int, int]  # height, width


class Head:
    """v3's, and what v2's shares with it: what a section of the cfg says of the numbers that the network has for it.

    Args:
        section: [yolo], [region] or [detection].
        shape: of the map before it.

    Raises:
        ValueError: the section's numbers do not fit each other, or the map; with file and line.
    """

    coding = "yolo_v3"

    def __init__(self, section: Section, shape: Shape) -> None:
        self.section, self.classes, self.num = section, section.integer("classes", 20), section.integer("num", 1)
        self.columns = 5 + self.classes
        self.setup(shape)

    def setup(self, shape: Shape) -> None:
        """v3: anchors in pixels, of which ``mask`` names those of this map; parse_yolo."""
        mask = self.section.integers("mask") or list(range(self.num))
        if not all(0 <= k < self.num for k in mask):
            raise self.section.error(f"mask of 0 to {self.num - 1}, as num says", mask, "mask")
        anchors = self.pairs()
        self.anchors = [anchors[k] for k in mask]
        self.check(shape[0], len(mask) * self.columns, f"{len(mask)} boxes of 5 + {self.classes} channels")

    def check(self, values: int, expected: int, what: str) -> None:
        if values != expected:
            raise self.section.error(f"{expected} before it, {what}", values)

    def pairs(self) -> list[tuple[float, float]]:
        """Width and height of each anchor; by default 0.5, as in darknet."""
        flat = self.section.numbers("anchors") or [0.5] * (2 * self.num)
        if len(flat) != 2 * self.num or min(flat) <= 0:
            raise self.section.error(f"anchors as {2 * self.num} numbers > 0 for num = {self.num}", flat, "anchors")
        return list(zip(flat[::2], flat[1::2], strict=True))

    def grid(self, raw: Tensor) -> Size:
        return raw.shape[2], raw.shape[3]

    def priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        """Width and height in pixels of the boxes around each cell."""
        return self.anchors

    def rows(self, raw: Tensor) -> Tensor:
        """[B, A, 5 + C], cells row by row, their boxes inner: codes x, y, w, h, objectness and classes, all raw."""
        return Branch.rows([raw], self.columns)

    def likely(self, rows: Tensor, least: float) -> Tensor | None:
        """Indices of the boxes that are likely enough in some image for a score above ``least``; None is all."""
        return (self.objectness(rows) > 0.999 * least).any(dim=0).nonzero()[:, 0]  # 0.999: no score is lost by rounding

    def boxes(self, rows: Tensor, grid: Size, size: Size, kept: Tensor | None = None) -> Tensor:
        """[B, A, 4] corners in pixels of a batch of that size, of all boxes or those kept."""
        stride = size[0] / grid[0], size[1] / grid[1]
        anchors = boxops.cell_anchors(grid, self.priors(grid, size), stride, like=rows)
        anchors = anchors if kept is None else anchors[kept]
        return boxops.decode_boxes(rows[..., :4], anchors, coding=self.coding, stride=stride, clip=None)

    def objectness(self, rows: Tensor) -> Tensor:
        """[B, A], no less than any score of the box."""
        return rows[..., 4].sigmoid()

    def scores(self, rows: Tensor) -> Tensor:
        """[B, A, C], objectness times class: a logistic for each; v3, section 2.2."""
        likely = rows.sigmoid()  # of all columns: three times as fast as of a part of each row
        return likely[..., 4:5] * likely[..., 5:]


class Region(Head):
    """v2's: anchors in cells, and one softmax over the classes; section 2 of its paper, region_layer.c."""

    def setup(self, shape: Shape) -> None:
        if self.section.integer("coords", 4) != 4:
            raise self.section.error("coords = 4", self.section.options["coords"], "coords")
        self.softmax, self.background = self.section.flag("softmax"), self.section.flag("background")
        self.anchors = self.pairs()
        self.check(shape[0], self.num * self.columns, f"{self.num} boxes of 5 + {self.classes} channels")

    def priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        return [(w * size[1] / grid[1], h * size[0] / grid[0]) for w, h in self.anchors]

    def objectness(self, rows: Tensor) -> Tensor:
        return rows[..., 4] if self.background else rows[..., 4].sigmoid()

    def scores(self, rows: Tensor) -> Tensor:
        objectness, classes = self.objectness(rows)[..., None], rows[..., 5:]
        return objectness * (classes.softmax(dim=-1) if self.softmax else classes.sigmoid())


class Detection(Head):
    """v1's: sides as shares of the image, and one set of classes for all boxes of a cell; detection_layer.c."""

    coding = "yolo_v1"

    def setup(self, shape: Shape) -> None:
        s, self.side = self.section, self.section.integer("side", 7)
        if s.integer("coords", 1) != 4:
            raise s.error("coords = 4", s.options.get("coords", 1), "coords")
        self.softmax, self.sqrt, cells = s.flag("softmax"), s.flag("sqrt"), self.side**2
        self.parts = [cells * self.classes, cells * self.num, cells * self.num * 4]
        said = f"{cells} cells of {self.classes} classes and {self.num} boxes of 5"
        self.check(shape[0] * shape[1] * shape[2], sum(self.parts), said)

    def grid(self, raw: Tensor) -> Size:
        return self.side, self.side

    def rows(self, raw: Tensor) -> Tensor:
        # The classes of all cells, the objectness of all boxes, the codes of all boxes
        classes, objectness, codes = raw.flatten(1).float().split(self.parts, dim=1)
        classes = classes.unflatten(1, (-1, 1, self.classes)).expand(-1, -1, self.num, -1)  # [B, cells, num, C]
        objectness, codes = objectness.unflatten(1, (-1, self.num, 1)), codes.unflatten(1, (-1, self.num, 4))
        return torch.cat([codes, objectness, classes], dim=3).flatten(1, 2)

    def priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        return [(size[1], size[0])] * self.num  # the whole image

    def likely(self, rows: Tensor, least: float) -> None:
        return None  # classes may be above 1 without a softmax

    def boxes(self, rows: Tensor, grid: Size, size: Size, kept: Tensor | None = None) -> Tensor:
        if not self.sqrt:  # the codes are the sides, not their roots
            rows = torch.cat([rows[..., :2], rows[..., 2:4].clamp(min=0).sqrt()], dim=-1)
        return super().boxes(rows, grid, size, kept)

    def scores(self, rows: Tensor) -> Tensor:
        classes = rows[..., 5:].softmax(dim=-1) if self.softmax else rows[..., 5:]
        return rows[..., 4:5] * classes


HEADS: dict[str, type[Head]] = {"yolo": Head, "region": Region, "detection": Detection}
