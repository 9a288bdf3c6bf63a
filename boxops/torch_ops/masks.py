"""Fake kernels for the mask operators; neither is differentiable."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import check_dims, loop_over_batch, not_differentiable


@torch.library.register_fake("boxops::paste_masks")
def _(masks, boxes, height, width, padding, threshold):
    dtype = masks.dtype if threshold is None else torch.bool
    return masks.new_empty((*masks.shape[:-2], height, width), dtype=dtype)


@torch.library.register_fake("boxops::masks_to_boxes")
def _(masks):
    check_dims("masks_to_boxes", "masks of shape [N, H, W]", masks, 3)
    return masks.new_empty((masks.shape[0], 4), dtype=torch.float32)


not_differentiable("paste_masks", "masks_to_boxes")
loop_over_batch("paste_masks", "masks_to_boxes")
