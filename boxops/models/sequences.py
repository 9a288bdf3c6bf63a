"""Objects as sequences of tokens, and back: the format of Pix2Seq, without a model.

Chen et al., "Pix2seq: A Language Modeling Framework for Object Detection", ICLR 2022, sections 2.1 and 2.3.
An object is five tokens: y1, x1, y2, x2 and its class. Shapes: G objects, N objects of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import boxops

EOS = 0  # ends a sequence and fills it up; a decoder reads it before the first token
OBJECT = 5  # tokens
ORDERINGS = ("random", "area", "dist2ori")
CORNERS = [1, 0, 3, 2]  # from x1, y1, x2, y2 to y1, x1, y2, x2, and back


@dataclass(frozen=True)
class Vocabulary:
    """What the numbers mean: 0 is EOS, 1 to n_bins are coordinates, n_bins + c is class c, the last one is noise.

    Bin 1 is at coordinate 0, the last at ``size``, the others evenly between them: a coordinate and its token's are at
    most half a bin apart, size / (n_bins - 1) / 2, and the edges of the image are exact.
    """

    n_bins: int
    num_classes: int  # with the background, as the detectors count: class 0 has no token
    size: int  # side in pixels of the square in which the boxes lie

    @property
    def noise(self) -> int:
        return self.n_bins + self.num_classes

    def __len__(self) -> int:
        return self.noise + 1

    def tokens(self, boxes: Tensor, labels: Tensor) -> Tensor:
        """Boxes [..., 4] in pixels and labels [...] in 1..num_classes - 1 as int64 tokens [..., 5].

        What lies beyond the square is cut. Both sides of a box narrower than half a bin can have one token.
        """
        inside = boxops.clip_boxes_to_image(boxes, (self.size, self.size))
        bins = (inside * ((self.n_bins - 1) / self.size) + 0.5).floor().long() + 1
        return torch.cat([bins[..., CORNERS], self.n_bins + labels[..., None]], dim=-1)

    def objects(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What any integers [..., L] say: boxes [..., L // 5, 4] in pixels, labels, which are objects [..., L // 5].

        A token's meaning is that of its place. Five of them are no object if one is not of its place's kind, which
        noise and EOS never are, or if the box is empty; the next five are not concerned, but for those after an EOS,
        where the sequence has ended. Tokens beyond the last five are left out. Rows without an object are 0.
        """
        whole = tokens.shape[-1] // OBJECT * OBJECT
        fives = tokens[..., :whole].unflatten(-1, (-1, OBJECT))  # [..., N, 5]
        bins, labels = fives[..., :4], fives[..., 4] - self.n_bins
        boxes = (bins.clamp(1, self.n_bins) - 1)[..., CORNERS] * (self.size / (self.n_bins - 1))
        real = ((bins >= 1) & (bins <= self.n_bins)).all(dim=-1) & (labels >= 1) & (labels < self.num_classes)
        real &= (bins[..., 2:] > bins[..., :2]).all(dim=-1)
        real &= (fives == EOS).any(dim=-1).cumsum(dim=-1) == 0
        return boxes * real[..., None], labels * real, real


def order(boxes: Tensor, ordering: str) -> Tensor:
    """In which order the boxes [G, 4] come, indices [G]: ``random``, ``area`` (the largest first) or ``dist2ori`` (the
    nearest to the image's upper left corner with its own first); of equals the first. Section 2.1 and figure 4."""
    if ordering == "random":
        return torch.randperm(len(boxes), device=boxes.device)
    if ordering == "area":
        return boxops.box_area(boxes).argsort(descending=True, stable=True)
    if ordering == "dist2ori":
        return boxes[:, :2].square().sum(dim=1).argsort(stable=True)
    raise ValueError(f"ordering: expected one of {', '.join(ORDERINGS)}, got {ordering!r}")


def noise_boxes(boxes: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """So many boxes [count, 4] that are no objects of an image of size (height, width) with the boxes [G, 4].

    A random share of them are the image's own again, each side moved by about a twentieth of the box and by at most a
    tenth. Of the others, half are its own somewhere else, half of any size anywhere. Appendix on sequence augmentation.
    """
    image = boxes.new_tensor([size[1], size[0]])
    own = boxops.box_convert(boxes, "xyxy", "cxcywh")
    if not len(boxes):
        own = image.repeat(1, 2)
    own = own[torch.randint(len(own), (count,), device=boxes.device)]  # [count, 4]
    kind = torch.rand(count, 1, device=boxes.device)
    again = torch.rand(1, device=boxes.device) * bool(len(boxes))  # the share
    middles = torch.rand(count, 2, device=boxes.device) * image
    any_size = torch.randn(count, 2, device=boxes.device).abs().clamp(max=2) / 2 * image
    sides = own[:, 2:].where((kind < (1 + again) / 2) & bool(len(boxes)), any_size)
    elsewhere = boxops.box_convert(torch.cat([middles, sides], dim=1), "cxcywh", "xyxy")
    moved = torch.randn(count, 4, device=boxes.device).clamp(-2, 2) / 20 * own[:, 2:].repeat(1, 2)
    near = boxops.box_convert(own, "cxcywh", "xyxy") + moved
    return boxops.clip_boxes_to_image(near.where(kind < again, elsewhere), size)


def sequence(
    vocabulary: Vocabulary,
    boxes: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    max_objects: int,
    ordering: str,
    noise: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What a decoder learns of one image of size (height, width): tokens it reads, tokens it is to say, and weights of
    these, [N * 5] each with N = max_objects; token t is said from those read before t.

    Of more objects than that the last of the ordering are left out: any, the smallest, or the farthest.

    Args:
        noise: fill up with boxes that are none; said is that they are noise, whatever their coordinates (weight 0), and
            what is read says any class. Else EOS ends the sequence if there is room, and what is after it has weight 0.
    """
    kept = order(boxes, ordering)[:max_objects]
    count, rest = len(kept), max_objects - len(kept)
    read = boxes.new_zeros((max_objects, OBJECT), dtype=torch.int64)
    read[:count] = vocabulary.tokens(boxes[kept], labels[kept])
    said, weights = read.clone(), boxes.new_zeros((max_objects, OBJECT))
    weights[:count] = 1
    if noise:
        some = torch.randint(1, vocabulary.num_classes, (rest,), device=labels.device)
        read[count:] = vocabulary.tokens(noise_boxes(boxes, rest, size), some)
        said[count:, 4], weights[count:, 4] = vocabulary.noise, 1
    else:
        weights[count : count + 1, 0] = 1
    return read.flatten(), said.flatten(), weights.flatten()
