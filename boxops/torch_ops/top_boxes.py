"""Fake kernel for top_boxes; nothing to differentiate."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import compute_type, loop_over_batch, not_differentiable


@torch.library.register_fake("boxops::top_boxes")
def _(boxes, scores, min_score, method):
    size = torch.library.get_ctx().new_dynamic_size()
    dtype = compute_type(boxes.dtype, scores.dtype)
    return boxes.new_empty(size, dtype=torch.int64), boxes.new_empty(size, dtype=dtype)


not_differentiable("top_boxes")
loop_over_batch("top_boxes")
