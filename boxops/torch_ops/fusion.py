"""Fake kernel for weighted boxes fusion; nothing to differentiate."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import compute_type, loop_over_batch, not_differentiable


@torch.library.register_fake("boxops::weighted_boxes_fusion")
def _(boxes, scores, labels, weights, iou_threshold, skip_box_threshold, confidence, allows_overflow):
    size = torch.library.get_ctx().new_dynamic_size()
    out = boxes[0].new_empty((size, 4), dtype=compute_type(*(array.dtype for array in (*boxes, *scores))))
    return out, out.new_empty(size), labels[0].new_empty(size)


not_differentiable("weighted_boxes_fusion")
loop_over_batch("weighted_boxes_fusion")
