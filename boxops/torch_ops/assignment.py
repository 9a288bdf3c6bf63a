"""Fake kernels for assignment; a matcher is not differentiated."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import check_dims, compute_type, loop_over_batch, not_differentiable


@torch.library.register_fake("boxops::linear_sum_assignment")
def _(cost, maximize, offsets, on_invalid):
    words, dims = ("[n, m] or [B, n, m]", (2, 3)) if offsets is None else ("[R, m]", (2,))
    check_dims("linear_sum_assignment", f"cost of shape {words}", cost, *dims)
    rows, columns = cost.shape[-2:]
    shape = (rows,) if offsets is not None else (*cost.shape[:-2], torch.sym_min(rows, columns))
    return cost.new_empty(shape, dtype=torch.int64), cost.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("boxops::detr_cost")
def _(logits, boxes, gt_labels, gt_boxes, offsets, *rest):
    check_dims("detr_cost", "logits of shape [B, Q, C]", logits, 3)
    check_dims("detr_cost", "gt_boxes of shape [G, 4]", gt_boxes, 2)
    dtype = compute_type(logits.dtype, boxes.dtype, gt_boxes.dtype)
    return logits.new_empty((gt_boxes.shape[0], logits.shape[1]), dtype=dtype)


not_differentiable("detr_cost")
loop_over_batch("linear_sum_assignment", "detr_cost")
