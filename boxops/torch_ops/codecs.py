"""Fake kernels, derivatives, vmap and autocast for the codecs."""

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

_ops = torch.ops.boxops

encode_boxes_backward = entry("encode_boxes_backward")
decode_boxes_backward = entry("decode_boxes_backward")


def _coded(first: Tensor, anchors: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(first.shape[:-1], anchors.shape[:-1])
    return first.new_empty((*lead, 4), dtype=compute_type(first.dtype, anchors.dtype))


@torch.library.register_fake("boxops::encode_boxes")
def _(boxes, anchors, coding, weights, stride):
    return _coded(boxes, anchors)


@torch.library.register_fake("boxops::decode_boxes")
def _(deltas, anchors, coding, weights, stride, clip, image_size):
    return _coded(deltas, anchors)


def _gradients(grad: Tensor, of_anchors: bool) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), grad.new_empty(grad.shape if of_anchors else (0,))


@torch.library.register_fake("boxops::encode_boxes_backward")
def _(grad, boxes, anchors, coding, weights, stride, of_anchors):
    return _gradients(grad, of_anchors)


@torch.library.register_fake("boxops::decode_boxes_backward")
def _(grad, deltas, anchors, coding, weights, stride, clip, image_size, of_anchors):
    return _gradients(grad, of_anchors)


def _keep(ctx, inputs, output):
    first, anchors, *ctx.rest = inputs
    return first, anchors


def _backward_by(operator):
    def backward(ctx, grad: Tensor):
        first, anchors = ctx.saved_tensors
        of_anchors = ctx.needs_input_grad[1]
        grad_first, grad_anchors = operator(grad, first, anchors, *ctx.rest, of_anchors)
        # The kernel's gradients have the broadcast shape; each input takes the sum over what was broadcast.
        return (
            grad_first.sum_to_size(first.shape).to(first.dtype),
            grad_anchors.sum_to_size(anchors.shape).to(anchors.dtype) if of_anchors else None,
        )

    return backward


def _jvp_by(operator):
    def jvp(ctx, *tangents):
        both = torch.broadcast_tensors(*(tensor.unsqueeze(-2) for tensor in ctx.saved_tensors))
        first, anchors = (tensor.expand(*tensor.shape[:-2], 4, 4) for tensor in both)
        # The gradients of each of the four numbers are the rows of the Jacobian.
        ones = torch.eye(4, dtype=compute_type(anchors.dtype), device=anchors.device).expand(anchors.shape)
        rows = operator(ones, first, anchors, *ctx.rest, tangents[1] is not None)
        return contracted(rows, [t if t is None else t.unsqueeze(-2) for t in tangents])

    return jvp


for _op, _backward in (("encode_boxes", encode_boxes_backward), ("decode_boxes", decode_boxes_backward)):
    differentiable(_op, _keep, _backward_by(_backward), _jvp_by(_backward))
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"boxops::{_op}", _device, torch.float32)

differentiable_once("encode_boxes, decode_boxes", "encode_boxes_backward", "decode_boxes_backward")
broadcast_over_batch(2, "encode_boxes")


def _mapped_dim(image_size: list[float]) -> int:
    """Where it goes: the sizes of several images are those along the first dim."""
    return 1 if len(image_size) > 2 else 0


def _vmap_decode(info, in_dims, *args):
    dim = _mapped_dim(args[-1])
    tensors = (t.movedim(0, dim) for t in batch_first(args[:2], in_dims[:2]))
    return _ops.decode_boxes.default(*tensors, *args[2:]), dim


torch.library.register_vmap("boxops::decode_boxes", _vmap_decode)


def _vmap_by(operator, takes_size: bool):
    def rule(info, in_dims, *args):
        dim = _mapped_dim(args[-2]) if takes_size else 0
        tensors = (t.expand(info.batch_size, *t.shape[1:]).movedim(0, dim) for t in batch_first(args[:3], in_dims[:3]))
        of_anchors = args[-1]
        return operator(*tensors, *args[3:]), (dim, dim if of_anchors else None)

    return rule


torch.library.register_vmap("boxops::encode_boxes_backward", _vmap_by(encode_boxes_backward, False))
torch.library.register_vmap("boxops::decode_boxes_backward", _vmap_by(decode_boxes_backward, True))
