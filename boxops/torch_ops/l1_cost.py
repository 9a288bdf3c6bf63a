"""Fake kernel, derivatives and vmap for the L1 cost."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import broadcast_over_batch, compute_type, differentiable


@torch.library.register_fake("boxops::box_l1_cost")
def _(boxes1, boxes2):
    lead = torch.broadcast_shapes(boxes1.shape[:-2], boxes2.shape[:-2])
    shape = (*lead, boxes1.shape[-2], boxes2.shape[-2])
    return boxes1.new_empty(shape, dtype=compute_type(boxes1.dtype, boxes2.dtype))


def _keep(ctx, inputs, output):
    return inputs


def _signs(ctx):
    """[..., N, M, 4]: the derivative by the first box of each pair."""
    boxes1, boxes2 = (boxes.to(compute_type(*(b.dtype for b in ctx.saved_tensors))) for boxes in ctx.saved_tensors)
    return torch.sign(boxes1.unsqueeze(-2) - boxes2.unsqueeze(-3))


def _backward(ctx, grad):
    boxes1, boxes2 = ctx.saved_tensors
    pulled = _signs(ctx) * grad.unsqueeze(-1)
    grad1, grad2 = pulled.sum(-2), -pulled.sum(-3)
    return grad1.sum_to_size(boxes1.shape).to(boxes1.dtype), grad2.sum_to_size(boxes2.shape).to(boxes2.dtype)


def _jvp(ctx, tangent1, tangent2, *_):
    signs = _signs(ctx)
    moved1 = 0 if tangent1 is None else tangent1.unsqueeze(-2)
    moved2 = 0 if tangent2 is None else tangent2.unsqueeze(-3)
    return (signs * (moved1 - moved2)).sum(-1)


differentiable("box_l1_cost", _keep, _backward, _jvp)
broadcast_over_batch(2, "box_l1_cost")
