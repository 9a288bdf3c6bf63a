"""Fake kernels and autocast for the operators on rotated boxes; their gradient is refused."""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import compute_type, differentiable, keep_nothing, loop_over_batch


@torch.library.register_fake("boxops::rotated_box_iou")
def _(boxes1, boxes2, paired):
    drop = 1 if paired else 2
    if min(boxes1.dim(), boxes2.dim()) < drop:
        raise ValueError(
            f"rotated_box_iou: expected boxes of shape [..., N, 5], got {[*boxes1.shape]} and {[*boxes2.shape]}"
        )
    shape = torch.broadcast_shapes(boxes1.shape[:-drop], boxes2.shape[:-drop])
    if not paired:
        shape = (*shape, boxes1.shape[-2], boxes2.shape[-2])
    return boxes1.new_empty(shape, dtype=compute_type(boxes1.dtype, boxes2.dtype))


def _no_gradient(ctx, grad: Tensor):
    raise RuntimeError("rotated_box_iou: expected no request for a gradient, got one (not implemented)")


differentiable("rotated_box_iou", keep_nothing, _no_gradient)
torch.library.register_autocast("boxops::rotated_box_iou", "cpu", torch.float32)
torch.library.register_autocast("boxops::rotated_box_iou", "cuda", torch.float32)


@torch.library.register_fake("boxops::rotated_nms")
def _(boxes, scores, iou_threshold):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@torch.library.register_fake("boxops::batched_rotated_nms")
def _(boxes, scores, idxs, iou_threshold):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


loop_over_batch("rotated_box_iou", "rotated_nms", "batched_rotated_nms")
