"""Fake kernels, gradients, autocast and vmap for the IoU operators."""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.boxes import compute_type

iou = torch.ops.boxops.iou.default
iou_backward = torch.ops.boxops.iou_backward.default


def _lead(boxes1: Tensor, boxes2: Tensor, paired: bool) -> torch.Size:
    drop = 1 if paired else 2
    return torch.broadcast_shapes(boxes1.shape[:-drop], boxes2.shape[:-drop])


@torch.library.register_fake("boxops::iou")
def _(boxes1, boxes2, measure, paired, iou_eps, eps):
    shape = _lead(boxes1, boxes2, paired)
    if not paired:
        shape = (*shape, boxes1.shape[-2], boxes2.shape[-2])
    return boxes1.new_empty(shape, dtype=compute_type(boxes1.dtype))


@torch.library.register_fake("boxops::iou_backward")
def _(grad, boxes1, boxes2, measure, paired, iou_eps, eps):
    lead, start = _lead(boxes1, boxes2, paired), -1 if paired else -2
    return grad.new_empty((*lead, *boxes1.shape[start:])), grad.new_empty((*lead, *boxes2.shape[start:]))


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _backward(ctx, grad: Tensor):
    boxes1, boxes2 = ctx.saved_tensors
    grad1, grad2 = iou_backward(grad, boxes1, boxes2, *ctx.rest)
    # The kernel's gradients have the broadcast shape; each input takes the sum over what was broadcast.
    return (
        grad1.sum_to_size(boxes1.shape).to(boxes1.dtype),
        grad2.sum_to_size(boxes2.shape).to(boxes2.dtype),
        None, None, None, None,
    )  # fmt: skip


torch.library.register_autograd("boxops::iou", _backward, setup_context=_setup)
