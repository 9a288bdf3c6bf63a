"""Fake kernels, derivatives, autocast and vmap for the IoU operators."""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import (
    batch_first,
    broadcast_over_batch,
    compute_type,
    contracted,
    differentiable,
    differentiable_once,
    entry,
)

iou_backward = entry("iou_backward")


def _lead(boxes1: Tensor, boxes2: Tensor, paired: bool) -> torch.Size:
    drop = 1 if paired else 2
    return torch.broadcast_shapes(boxes1.shape[:-drop], boxes2.shape[:-drop])


@torch.library.register_fake("boxops::iou")
def _(boxes1, boxes2, measure, paired, fmt, eps, loss):
    shape = _lead(boxes1, boxes2, paired)
    if not paired:
        if min(boxes1.dim(), boxes2.dim()) < 2:
            raise ValueError(
                f"box_iou: expected boxes of shape [..., N, 4], got {[*boxes1.shape]} and {[*boxes2.shape]}"
            )
        shape = (*shape, boxes1.shape[-2], boxes2.shape[-2])
    return boxes1.new_empty(shape, dtype=compute_type(boxes1.dtype, boxes2.dtype))


@torch.library.register_fake("boxops::iou_backward")
def _(grad, boxes1, boxes2, measure, paired, fmt, eps, loss):
    lead, start = _lead(boxes1, boxes2, paired), -1 if paired else -2
    return grad.new_empty((*lead, *boxes1.shape[start:])), grad.new_empty((*lead, *boxes2.shape[start:]))


def _keep(ctx, inputs, output):
    boxes1, boxes2, *ctx.rest = inputs
    ctx.dtype = output.dtype
    return boxes1, boxes2


def _backward(ctx, grad: Tensor):
    boxes1, boxes2 = ctx.saved_tensors
    grads = iou_backward(grad, boxes1, boxes2, *ctx.rest)
    # The kernel's gradients have the broadcast shape; each input takes the sum over what was broadcast.
    return tuple(g.sum_to_size(b.shape).to(b.dtype) for g, b in zip(grads, (boxes1, boxes2), strict=True))


def _jvp(ctx, *tangents):
    measure, paired, *rest = ctx.rest
    both, moves = ctx.saved_tensors, tangents[:2]
    if not paired:  # all with all are pairs too, and the gradients of a pair are the rows of its Jacobian
        both, moves = (
            [a if a is None else a.unsqueeze(-2), b if b is None else b.unsqueeze(-3)] for a, b in (both, moves)
        )
    ones = both[0].new_ones(_lead(*both, True), dtype=ctx.dtype)
    return contracted(iou_backward(ones, *both, measure, True, *rest), moves)


differentiable("iou", _keep, _backward, _jvp)
differentiable_once("box_iou", "iou_backward")
broadcast_over_batch(2, "iou")


@torch.library.register_vmap("boxops::iou_backward")
def _(info, in_dims, grad, boxes1, boxes2, *rest):
    size = info.batch_size
    grad = grad.expand(size, *grad.shape) if in_dims[0] is None else grad.movedim(in_dims[0], 0)
    batched = [b.expand(size, *b.shape[1:]) for b in batch_first((boxes1, boxes2), in_dims[1:3])]
    return iou_backward(grad, *batched, *rest), (0, 0)


torch.library.register_autocast("boxops::iou", "cpu", torch.float32)
torch.library.register_autocast("boxops::iou", "cuda", torch.float32)
