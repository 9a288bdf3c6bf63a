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


# The operators, and what follows the boxes in a call of iou_backward: measure, paired, fmt, eps, loss.
_OPERATORS = {
    "box_iou": lambda fmt, paired: ("box_iou", paired, fmt, 0.0, False),
    "box_ioa": lambda fmt, paired: ("box_ioa", paired, fmt, 0.0, False),
    "generalized_box_iou": lambda fmt, paired: ("generalized_box_iou", paired, fmt, 0.0, False),
    "distance_box_iou": lambda eps, fmt, paired: ("distance_box_iou", paired, fmt, eps, False),
    "complete_box_iou": lambda eps, fmt, paired: ("complete_box_iou", paired, fmt, eps, False),
    "iou_of_loss": lambda measure, eps: (measure, True, "xyxy", eps, True),
}


def _fake(op: str):
    def fake(boxes1, boxes2, *rest):
        measure, paired, *_ = _OPERATORS[op](*rest)
        shape = _lead(boxes1, boxes2, paired)
        if not paired:
            if min(boxes1.dim(), boxes2.dim()) < 2:
                shapes = f"{[*boxes1.shape]} and {[*boxes2.shape]}"
                raise ValueError(f"{measure}: expected boxes of shape [..., N, 4], got {shapes}")
            shape = (*shape, boxes1.shape[-2], boxes2.shape[-2])
        return boxes1.new_empty(shape, dtype=compute_type(boxes1.dtype, boxes2.dtype))

    return fake


@torch.library.register_fake("boxops::iou_backward")
def _(grad, boxes1, boxes2, measure, paired, fmt, eps, loss):
    lead, start = _lead(boxes1, boxes2, paired), -1 if paired else -2
    return grad.new_empty((*lead, *boxes1.shape[start:])), grad.new_empty((*lead, *boxes2.shape[start:]))


def _keep(op: str):
    def keep(ctx, inputs, output):
        boxes1, boxes2, *rest = inputs
        ctx.rest = _OPERATORS[op](*rest)
        ctx.dtype = output.dtype
        return boxes1, boxes2

    return keep


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


for _op in _OPERATORS:
    torch.library.register_fake(f"boxops::{_op}", _fake(_op))
    differentiable(_op, _keep(_op), _backward, _jvp)
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"boxops::{_op}", _device, torch.float32)
differentiable_once("box_iou", "iou_backward")
broadcast_over_batch(2, *_OPERATORS)


@torch.library.register_vmap("boxops::iou_backward")
def _(info, in_dims, grad, boxes1, boxes2, *rest):
    size = info.batch_size
    grad = grad.expand(size, *grad.shape) if in_dims[0] is None else grad.movedim(in_dims[0], 0)
    batched = [b.expand(size, *b.shape[1:]) for b in batch_first((boxes1, boxes2), in_dims[1:3])]
    return iou_backward(grad, *batched, *rest), (0, 0)
