"""Fake kernels for assignment; a matcher is not differentiated."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import check_dims, compute_type, loop_over_batch, not_differentiable


@torch.library.register_fake("boxops::linear_sum_assignment")
def _(cost, maximize, offsets, on_invalid):
    if cost.dim() not in ((2,) if offsets is not None else (2, 3)):
        words = "[R, m]" if offsets is not None else "[n, m] or [B, n, m]"
        raise ValueError(f"linear_sum_assignment: expected cost of shape {words}, got {[*cost.shape]}")
    rows, columns = cost.shape[-2:]
    shape = (rows,) if offsets is not None else (*cost.shape[:-2], torch.sym_min(rows, columns))
    return cost.new_empty(shape, dtype=torch.int64), cost.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("boxops::detr_cost")
def _(logits, boxes, gt_labels, gt_boxes, offsets, *rest):
    check_dims("detr_cost", logits, 3, "logits of shape [B, Q, C]")
    check_dims("detr_cost", gt_boxes, 2, "gt_boxes of shape [G, 4]")
    dtype = compute_type(logits.dtype, boxes.dtype, gt_boxes.dtype)
    return logits.new_empty((gt_boxes.shape[0], logits.shape[1]), dtype=dtype)


not_differentiable("detr_cost")
loop_over_batch("linear_sum_assignment", "detr_cost")
