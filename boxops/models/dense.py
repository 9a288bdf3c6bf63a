"""What detectors share that classify every place of a feature pyramid at once: the head, its loss, its best candidates.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017. Shapes: B images, A anchors (or points), N candidates, C
classes with the background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

import boxops

from .common import GroundTruth

PRIOR = 0.01  # what every class scores everywhere at the start; section 4.1, "Initialization"


class Branch(nn.Module):
    """Convolutions that all levels share; at the end each of ``outputs`` has so many numbers for each anchor."""

    def __init__(self, conv: nn.Sequential, channels: int, anchors: int, **outputs: int) -> None:
        super().__init__()
        self.conv, self.outputs = conv, outputs
        for name, columns in outputs.items():
            self.add_module(name, nn.Conv2d(channels, anchors * columns, 3, padding=1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        if "cls_logits" in outputs:
            nn.init.constant_(self.cls_logits.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type, union-attr]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:  # [B, A, columns] of each output
        hidden = [self.conv(feature) for feature in features]
        return [self.rows([self.get_submodule(name)(h) for h in hidden], k) for name, k in self.outputs.items()]

    @staticmethod
    def rows(maps: Sequence[Tensor], columns: int) -> Tensor:
        # [B, anchors * columns, H, W] -> [B, H * W * anchors, columns]: cells row by row, their anchors inner
        rows = [some.permute(0, 2, 3, 1).reshape(some.shape[0], -1, columns) for some in maps]
        return torch.cat(rows, dim=1).float()


def focal_loss(logits: Tensor, matches: Tensor, truth: GroundTruth, alpha: float, gamma: float) -> Tensor:
    """Of logits [B, A, C] the loss of each anchor [B, A], 0 where the match is -2, and weighed; equation 5."""
    labels, positive = truth.take(truth.labels, matches), matches >= 0
    target = torch.zeros_like(logits).scatter(2, labels[..., None], positive[..., None].to(logits))
    loss = sigmoid_focal_loss(logits, target, alpha, gamma).sum(dim=-1)
    return loss * (matches != -2) * truth.weigh(matches)


def candidates(scores: Tensor, levels: Sequence[int], topk: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of anchor and class on each level, of scores [B, A, C]; section 4.1, "Inference".

    Returns:
        The anchors, the classes and the scores of N pairs, [B, N] each, by ascending level, anchor and class.
    """
    first, found = 0, []
    for level in scores.split(list(levels), dim=1):
        # The best pairs are among the anchors with the best maxima: there are few of them to look through.
        anchors = top(level.amax(dim=2), topk)  # [B, n]
        pairs = level.gather(1, anchors[..., None].expand(-1, -1, level.shape[2])).flatten(1)
        best = top(pairs, topk)
        at, labels = anchors.gather(1, best // level.shape[2]), best % level.shape[2]
        found.append((first + at, labels, pairs.gather(1, best)))
        first += level.shape[1]
    at, labels, values = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return at, labels, values


def top(values: Tensor, k: int) -> Tensor:  # [B, n] -> the indices of the largest, ascending
    return values.topk(min(k, values.shape[1]), sorted=False).indices.sort().values


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, score_thresh: float, nms_thresh: float, max_output: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The detections, as ``Detector.padded`` gives them, of candidates [B, N, 4], [B, N] and [B, N]."""
    kept, counts = boxops.nms_padded(
        boxes, scores, nms_thresh, max_output, idxs=labels, score_threshold=score_thresh
    )  # [B, max_output], [B]
    at = torch.arange(len(kept), device=kept.device)[:, None], kept.clamp(min=0)
    real = kept >= 0
    found = {"boxes": boxes[at].where(real[..., None], 0.0), "scores": scores[at] * real, "labels": labels[at] * real}
    return found, counts
