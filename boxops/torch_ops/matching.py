"""Fake kernels and autocast for the matching operators; nothing to differentiate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boxops.torch_ops.common import check_dims, compute_type, loop_over_batch, not_differentiable


def _results(shape: Sequence[int], *inputs: Tensor) -> tuple[Tensor, Tensor]:
    dtype = compute_type(*(tensor.dtype for tensor in inputs))
    return inputs[0].new_empty(shape, dtype=torch.int64), inputs[0].new_empty(shape, dtype=dtype)


def _of_anchors(op: str, offsets: Tensor | None, anchors: Tensor, *boxes: Tensor) -> tuple[Tensor, Tensor]:
    check_dims(op, "anchors of shape [A, 4]", anchors, 2, 3)
    if offsets is None:
        return _results((anchors.shape[-2],), anchors, *boxes)
    check_dims(op, "offsets of shape [B + 1]", offsets, 1)
    return _results((offsets.shape[0] - 1, anchors.shape[-2]), anchors, *boxes)


@torch.library.register_fake("boxops::match_greedy")
def _(anchors, gt_boxes, iou_threshold, offsets):
    return _of_anchors("match_greedy", offsets, anchors, gt_boxes)


@torch.library.register_fake("boxops::match_greedy_matrix")
def _(iou, iou_threshold):
    return _results(iou.shape[:-1], iou)


@torch.library.register_fake("boxops::match_max_iou")
def _(anchors, gt_boxes, high, low, allow_low_quality, offsets, ignore_boxes, *rest):
    boxes = (gt_boxes,) if ignore_boxes is None else (gt_boxes, ignore_boxes)
    return _of_anchors("match_max_iou", offsets, anchors, *boxes)


not_differentiable("match_greedy", "match_greedy_matrix", "match_max_iou")
loop_over_batch("match_greedy", "match_greedy_matrix", "match_max_iou")
for _op in ("match_greedy", "match_greedy_matrix", "match_max_iou"):
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"boxops::{_op}", _device, torch.float32)
