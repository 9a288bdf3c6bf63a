"""Fake kernels and autocast for the matching operators; nothing to differentiate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boxops.torch_ops.common import compute_type, loop_over_batch, not_differentiable

match_greedy = torch.ops.boxops.match_greedy.default
match_greedy_matrix = torch.ops.boxops.match_greedy_matrix.default
match_max_iou = torch.ops.boxops.match_max_iou.default


def _results(like: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    return like.new_empty(shape, dtype=torch.int64), like.new_empty(shape, dtype=compute_type(like.dtype))


def _of_anchors(op: str, anchors: Tensor, offsets: Tensor | None) -> tuple[Tensor, Tensor]:
    if anchors.dim() not in (2, 3):
        raise ValueError(f"{op}: expected anchors of shape [A, 4], got {[*anchors.shape]}")
    lead = () if offsets is None else (offsets.shape[0] - 1,)
    return _results(anchors, (*lead, anchors.shape[-2]))


@torch.library.register_fake("boxops::match_greedy")
def _(anchors, gt_boxes, iou_threshold, offsets):
    return _of_anchors("match_greedy", anchors, offsets)


@torch.library.register_fake("boxops::match_greedy_matrix")
def _(iou, iou_threshold):
    return _results(iou, iou.shape[:-1])


@torch.library.register_fake("boxops::match_max_iou")
def _(anchors, gt_boxes, high, low, allow_low_quality, offsets, *ignore):
    return _of_anchors("match_max_iou", anchors, offsets)


not_differentiable("match_greedy", "match_greedy_matrix", "match_max_iou")
loop_over_batch("match_greedy", "match_greedy_matrix", "match_max_iou")
for _op in ("match_greedy", "match_greedy_matrix", "match_max_iou"):
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"boxops::{_op}", _device, torch.float32)
