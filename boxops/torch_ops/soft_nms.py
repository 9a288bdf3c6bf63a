"""Fake kernel for soft NMS; nothing to differentiate."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import compute_type, loop_over_batch, not_differentiable


@torch.library.register_fake("boxops::soft_nms")
def _(boxes, scores, iou_threshold, method, sigma, score_threshold, idxs):
    size = torch.library.get_ctx().new_dynamic_size()
    dtype = compute_type(boxes.dtype, scores.dtype)
    return boxes.new_empty(size, dtype=torch.int64), boxes.new_empty(size, dtype=dtype)


not_differentiable("soft_nms")
loop_over_batch("soft_nms")
