"""The heads of YOLO v1, v2 and v3: what a cfg says of the numbers that the network has for each cell.

Redmon et al., CVPR 2016; Redmon, Farhadi, CVPR 2017 and 2018. Shapes: B images, C classes without a background, A
boxes: the cells of a grid row by row, the boxes of each inner; G objects of all images, one image's after another's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

import boxops

from .common import GroundTruth
from .darknet_files import Section
from .darknet_layers import Shape
from .labels import smooth_labels

Size = tuple[int, int]  # height, width


class Head:
    """v3's, and what the others share with it: what a section of the cfg says of the numbers before it.

    Args:
        section: [yolo], [region] or [detection].
        shape: of the map before it.

    Raises:
        ValueError: the section's numbers do not fit each other, or the map; with file and line.
    """

    coding, logistic = "yolo_v3", True
    trained: Mapping[str, tuple[int, int]] = {"truth_thresh": (1, 1)}  # options: darknet's default, what losses know

    def __init__(self, section: Section, shape: Shape) -> None:
        self.section, self.classes, self.num = section, section.integer("classes", 20), section.integer("num", 1)
        self.columns = 5 + self.classes
        self.setup()
        expected, found = self.inputs(section), shape[0] * (1 if self.logistic else shape[1] * shape[2])
        if found != expected:
            raise section.error(f"{expected} before it, {self.told}", found)

    @classmethod
    def inputs(cls, section: Section) -> int:
        """How many channels, of v1 numbers, the layer before it has."""
        boxes = len(section.integers("mask")) or section.integer("num", 1)
        return boxes * (5 + section.integer("classes", 20))

    def setup(self) -> None:
        """v3: anchors in pixels, of which ``mask`` names those of this map; parse_yolo."""
        self.mask = self.section.integers("mask") or list(range(self.num))
        if not all(0 <= k < self.num for k in self.mask):
            raise self.section.error(f"mask of 0 to {self.num - 1}, as num says", self.mask, "mask")
        self.anchors = self.pairs()
        self.told = f"{len(self.mask)} boxes of 5 + {self.classes} channels"
        self.thresh = self.section.number("ignore_thresh", 0.5)
        self.coord = self.object = self.noobject = self.class_ = 1.0
        self.rescore = self.softmax = False

    def scales(self) -> None:
        """The weights of v1's and v2's terms."""
        names = "coord_scale", "object_scale", "noobject_scale", "class_scale"
        self.coord, self.object, self.noobject, self.class_ = (self.section.number(name, 1) for name in names)
        self.rescore, self.softmax = self.section.flag("rescore"), self.section.flag("softmax")

    def pairs(self) -> list[tuple[float, float]]:
        """Width and height of each anchor; by default 0.5, as in darknet."""
        flat = self.section.numbers("anchors") or [0.5] * (2 * self.num)
        if len(flat) != 2 * self.num or min(flat) <= 0:
            raise self.section.error(f"anchors as {2 * self.num} numbers > 0 for num = {self.num}", flat, "anchors")
        return list(zip(flat[::2], flat[1::2], strict=True))

    def grid(self, raw: Tensor) -> Size:
        return raw.shape[2], raw.shape[3]

    def all_priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        """Width and height in pixels of all anchors, those of other maps too."""
        return self.anchors

    def priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        """Of the boxes around each cell."""
        priors = self.all_priors(grid, size)
        return [priors[k] for k in self.mask]

    def cells(self, grid: Size, size: Size, like: Tensor) -> Tensor:
        """[A, 4], the anchors of this map around each of its cells."""
        return boxops.cell_anchors(grid, self.priors(grid, size), stride(grid, size), like=like)

    def rows(self, raw: Tensor) -> Tensor:
        """[B, A, 5 + C], cells row by row, their boxes inner: deltas x, y, w, h, objectness and classes, all raw."""
        return raw.permute(0, 2, 3, 1).reshape(raw.shape[0], -1, self.columns).float()

    def deltas(self, deltas: Tensor) -> Tensor:
        """[..., 4] as ``decode_boxes`` takes them."""
        return deltas

    def likely(self, rows: Tensor, least: float) -> Tensor | None:
        """Indices of the boxes that are likely enough in some image for a score above ``least``; None is all."""
        return (self.objectness(rows) > 0.999 * least).any(dim=0).nonzero()[:, 0]  # 0.999: no score is lost by rounding

    def boxes(self, rows: Tensor, grid: Size, size: Size, kept: Tensor | None = None) -> Tensor:
        """[B, A, 4] corners in pixels of a batch of that size, of all boxes or those kept."""
        anchors, side = self.cells(grid, size, rows), stride(grid, size)
        anchors = anchors if kept is None else anchors[kept]
        return boxops.decode_boxes(self.deltas(rows[..., :4]), anchors, coding=self.coding, stride=side, clip=None)

    def objectness(self, rows: Tensor) -> Tensor:
        """[B, A], no less than any score of the box."""
        return rows[..., 4].sigmoid()

    def scores(self, rows: Tensor) -> Tensor:
        """[B, A, C], objectness times class: a logistic for each; v3, section 2.2."""
        likely = rows.sigmoid()  # of all columns: three times as fast as of a part of each row
        return likely[..., 4:5] * likely[..., 5:]

    def losses(self, raw: Tensor, size: Size, truth: GroundTruth, smoothing: float = 0.0) -> dict[str, Tensor]:
        """Of a batch of that size, as sums, each term of an object times its weight. Of the raw numbers they have the
        gradients that darknet computes: its delta is minus them (forward_yolo_layer, forward_region_layer,
        forward_detection_layer)."""
        for name, (default, value) in self.trained.items():
            if (got := self.section.number(name, default)) != value:
                raise self.section.error(f"{name} = {value} to learn from, as others are not built", f"{got:g}", name)
        grid, rows = self.grid(raw), self.rows(raw)
        boxes, anchors = self.boxes(rows, grid, size).detach(), self.cells(grid, size, rows)
        image = torch.cat([truth.offsets.new_full((len(own["boxes"]),), b) for b, own in enumerate(truth.images)])
        cell = self.cell(truth.boxes, grid, size) + image * grid[0] * grid[1]  # [G] of those of all images
        at, mine = self.responsible(rows, boxes, cell, grid, size, truth)  # [G] of all B A boxes, and whether it is so
        own = rows.flatten(0, 1)[at]  # [G, 5 + C]

        target = self.targets(truth.boxes, anchors[at % len(anchors)], stride(grid, size))  # [G, 4]
        centres = self.difference(own[:, :2], target[:, :2]).sum(dim=1)
        sides = half_square(own[:, 2:4], target[:, 2:4]).sum(dim=1)
        box = self.coord * self.small(truth.boxes, size) * (centres + sides)  # [G]

        known = smooth_labels(F.one_hot(truth.labels - 1, self.classes).to(own), smoothing)
        if self.softmax:
            classes = F.cross_entropy(own[:, 5:], known, reduction="none")  # [G]
        else:
            classes = self.of_classes(own[:, 5:], known).sum(dim=1)

        # Where a box that is nobody's overlaps an object well, nothing is said of its objectness; nor in a crowd
        free, _ = boxops.match_max_iou(boxes, truth.boxes, self.thresh, offsets=truth.offsets, **truth.crowds)
        there = (at.where(mine, free.numel()),)  # the others' place is cut off
        iou = boxops.box_iou(boxes.flatten(0, 1)[at], truth.boxes, paired=True)  # [G]
        target = rows.new_zeros(free.numel() + 1).index_put(there, iou if self.rescore else torch.ones_like(iou))[:-1]
        weights = F.pad(self.noobject * (free == -1).flatten().to(rows), (0, 1))
        weights = weights.index_put(there, self.object * truth.weights)[:-1]
        objectness = weights * self.difference(rows[..., 4].flatten(), target)  # [B A]
        return {
            "bbox_regression": (box * mine * truth.weights).sum(),
            "objectness": objectness.sum(),
            "classification": self.class_ * (classes * mine * truth.weights).sum(),
        }

    @staticmethod
    def cell(boxes: Tensor, grid: Size, size: Size) -> Tensor:
        """[G], the cell in its own image with each box's centre."""
        y, x = stride(grid, size)
        column = ((boxes[:, 0] + boxes[:, 2]) / (2 * x)).long().clamp(0, grid[1] - 1)
        row = ((boxes[:, 1] + boxes[:, 3]) / (2 * y)).long().clamp(0, grid[0] - 1)
        return row * grid[1] + column

    def responsible(
        self, rows: Tensor, boxes: Tensor, cell: Tensor, grid: Size, size: Size, truth: GroundTruth
    ) -> tuple[Tensor, Tensor]:
        """For each object, in its cell the box whose anchor is most like it in shape, if this map has that one; of two
        objects with one box the later has it. v3, section 2.1; v2, section 2, with ``bias_match``.

        Returns:
            The boxes [G], as indices into [B A], and whether they are so [G]; where not, the index is any.
        """
        corner = truth.boxes.new_zeros(len(truth.boxes), 2)
        shapes = torch.cat([corner, truth.boxes[:, 2:] - truth.boxes[:, :2]], dim=1)
        priors = shapes.new_tensor([(0, 0, *prior) for prior in self.all_priors(grid, size)])  # [num, 4]
        best = boxops.box_iou(shapes, priors).argmax(dim=1)  # [G]
        here = best[:, None] == torch.tensor(self.mask, device=best.device)  # [G, boxes of a cell]
        at = cell * len(self.mask) + here.int().argmax(dim=1)
        return at, winners(at, here.any(dim=1), boxes.shape[0] * boxes.shape[1], "amax")

    def targets(self, boxes: Tensor, anchors: Tensor, stride: tuple[float, float]) -> Tensor:
        """[G, 4]: the targets: the centre as a fraction of its cell, and the raw sides."""
        deltas = boxops.encode_boxes(boxes, anchors, coding=self.coding, stride=stride)
        return torch.cat([deltas[:, :2].sigmoid(), deltas[:, 2:]], dim=1)

    def small(self, boxes: Tensor, size: Size) -> Tensor:
        """[G], more for small boxes; darknet's 2 - w h."""
        return 2 - boxops.box_area(boxes) / (size[0] * size[1])

    @staticmethod
    def difference(raw: Tensor, target: Tensor) -> Tensor:
        """Of centres and objectness."""
        return cross_entropy(raw, target)

    @staticmethod
    def of_classes(raw: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(raw, target)


class Region(Head):
    """v2's: anchors in cells, and one softmax over the classes; section 2 of its paper, region_layer.c."""

    trained: Mapping[str, tuple[int, int]] = {"bias_match": (0, 1), "classfix": (0, 0)}

    @classmethod
    def inputs(cls, section: Section) -> int:
        return section.integer("num", 1) * (5 + section.integer("classes", 20))

    def setup(self) -> None:
        if self.section.integer("coords", 4) != 4:
            raise self.section.error("coords = 4", self.section.options["coords"], "coords")
        self.scales()
        if self.section.flag("background"):  # a class more, in place of objectness
            raise self.section.error("background = 0", 1, "background")
        self.thresh = self.section.number("thresh", 0.5)
        self.anchors, self.mask = self.pairs(), list(range(self.num))
        self.told = f"{self.num} boxes of 5 + {self.classes} channels"

    def all_priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        y, x = stride(grid, size)
        return [(w * x, h * y) for w, h in self.anchors]

    def scores(self, rows: Tensor) -> Tensor:
        classes = rows[..., 5:]
        return rows[..., 4:5].sigmoid() * (classes.softmax(dim=-1) if self.softmax else classes.sigmoid())

    @staticmethod
    def difference(raw: Tensor, target: Tensor) -> Tensor:
        return half_square(raw.sigmoid(), target)


class Detection(Head):
    """v1's: sides as fractions of the image's, and one set of classes for all boxes of a cell; detection_layer.c.

    The losses are half of equation 3 of its paper."""

    coding, logistic = "yolo_v1", False
    trained: Mapping[str, tuple[int, int]] = {"forced": (0, 0), "random": (0, 0)}
    thresh = 2.0  # nothing is said of boxes with a larger IoU: no such box

    @classmethod
    def inputs(cls, section: Section) -> int:
        cell = section.integer("classes", 20) + 5 * section.integer("num", 1)
        return section.integer("side", 7) ** 2 * cell

    def setup(self) -> None:
        s, self.side = self.section, self.section.integer("side", 7)
        if s.integer("coords", 1) != 4:
            raise s.error("coords = 4", s.options.get("coords", 1), "coords")
        self.scales()
        self.sqrt, cells = s.flag("sqrt"), self.side**2
        self.parts = [cells * self.classes, cells * self.num, cells * self.num * 4]
        self.mask = list(range(self.num))
        self.told = f"{cells} cells of {self.classes} classes and {self.num} boxes of 5"

    def grid(self, raw: Tensor) -> Size:
        return self.side, self.side

    def rows(self, raw: Tensor) -> Tensor:
        # The classes of all cells, the objectness of all boxes, the deltas of all boxes
        classes, objectness, deltas = raw.flatten(1).float().split(self.parts, dim=1)
        classes = classes.unflatten(1, (-1, 1, self.classes)).expand(-1, -1, self.num, -1)  # [B, cells, num, C]
        objectness, deltas = objectness.unflatten(1, (-1, self.num, 1)), deltas.unflatten(1, (-1, self.num, 4))
        return torch.cat([deltas, objectness, classes], dim=3).flatten(1, 2)

    def priors(self, grid: Size, size: Size) -> list[tuple[float, float]]:
        return [(size[1], size[0])] * self.num  # the whole image

    def deltas(self, deltas: Tensor) -> Tensor:
        if self.sqrt:
            return deltas
        return torch.cat(
            [deltas[..., :2], deltas[..., 2:].clamp(min=0).sqrt()], dim=-1
        )  # they are the sides themselves

    def likely(self, rows: Tensor, least: float) -> None:
        return None  # classes may be above 1 without a softmax

    def scores(self, rows: Tensor) -> Tensor:
        classes = rows[..., 5:].softmax(dim=-1) if self.softmax else rows[..., 5:]
        return rows[..., 4:5] * classes

    def responsible(
        self, rows: Tensor, boxes: Tensor, cell: Tensor, grid: Size, size: Size, truth: GroundTruth
    ) -> tuple[Tensor, Tensor]:
        """The first object of a cell has it, and there the box that overlaps it most; where none does, the one at the
        least distance, with sides beside centres. Section 2.2."""
        there, raw = (some.unflatten(1, (-1, self.num)).flatten(0, 1)[cell] for some in (boxes, rows[..., 2:4]))
        iou = boxops.box_iou(there, truth.boxes[:, None]).squeeze(2)  # [G, num]
        whole = truth.boxes.new_tensor([size[1], size[0]] * 2)
        found, target = (boxops.box_convert(b / whole, "xyxy", "cxcywh") for b in (there, truth.boxes[:, None]))
        found = torch.cat([found[..., :2], raw.square() if self.sqrt else raw], dim=2)  # sides < 0 are no boxes
        far = (found - target).square().sum(dim=2)  # [G, num]
        best = iou.argmax(dim=1).where(iou.amax(dim=1) > 0, far.argmin(dim=1))
        mine = winners(cell, torch.ones_like(cell, dtype=torch.bool), boxes.shape[0] * grid[0] * grid[1], "amin")
        return cell * self.num + best, mine

    def targets(self, boxes: Tensor, anchors: Tensor, stride: tuple[float, float]) -> Tensor:
        deltas = boxops.encode_boxes(boxes, anchors, coding=self.coding, stride=stride)
        return deltas if self.sqrt else torch.cat([deltas[:, :2], deltas[:, 2:].square()], dim=1)

    def small(self, boxes: Tensor, size: Size) -> Tensor:
        return torch.ones_like(boxes[:, 0])  # the roots see to it

    @staticmethod
    def difference(raw: Tensor, target: Tensor) -> Tensor:
        return half_square(raw, target)

    of_classes = difference


def stride(grid: Size, size: Size) -> tuple[float, float]:
    """(y, x), a cell's sides in pixels."""
    return size[0] / grid[0], size[1] / grid[1]


def cross_entropy(raw: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(raw, target, reduction="none")


def half_square(raw: Tensor, target: Tensor) -> Tensor:
    return (raw - target).square() / 2


def winners(places: Tensor, valid: Tensor, count: int, reduce: str) -> Tensor:
    """Of the valid objects [G] with one of ``count`` places the last ("amax") or the first ("amin")."""
    index = torch.arange(len(places), device=places.device)
    places = places.where(valid, count)  # a place for the others
    best = index.new_empty(count + 1).scatter_reduce(0, places, index, reduce, include_self=False)
    return valid & (best[places] == index)


HEADS: dict[str, type[Head]] = {"yolo": Head, "region": Region, "detection": Detection}
