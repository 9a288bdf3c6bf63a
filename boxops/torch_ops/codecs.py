"""Fake kernels, gradients and autocast for the codecs."""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import compute_type, refuse_tangents

encode_boxes_backward = torch.ops.boxops.encode_boxes_backward.default
decode_boxes_backward = torch.ops.boxops.decode_boxes_backward.default


def encode_boxes(boxes: Tensor, anchors: Tensor, *rest) -> Tensor:
    refuse_tangents("encode_boxes", boxes, anchors)
    return torch.ops.boxops.encode_boxes.default(boxes, anchors, *rest)


def decode_boxes(codes: Tensor, anchors: Tensor, *rest) -> Tensor:
    refuse_tangents("decode_boxes", codes, anchors)
    return torch.ops.boxops.decode_boxes.default(codes, anchors, *rest)


def _coded(first: Tensor, anchors: Tensor) -> Tensor:
    lead = torch.broadcast_shapes(first.shape[:-1], anchors.shape[:-1])
    return first.new_empty((*lead, 4), dtype=compute_type(first.dtype, anchors.dtype))


@torch.library.register_fake("boxops::encode_boxes")
def _(boxes, anchors, coding, weights, stride):
    return _coded(boxes, anchors)


@torch.library.register_fake("boxops::decode_boxes")
def _(codes, anchors, coding, weights, stride, clip, size):
    return _coded(codes, anchors)


def _gradients(grad: Tensor, of_anchors: bool) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), grad.new_empty(grad.shape if of_anchors else (0,))


@torch.library.register_fake("boxops::encode_boxes_backward")
def _(grad, boxes, anchors, coding, weights, stride, of_anchors):
    return _gradients(grad, of_anchors)


@torch.library.register_fake("boxops::decode_boxes_backward")
def _(grad, codes, anchors, coding, weights, stride, clip, size, of_anchors):
    return _gradients(grad, of_anchors)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _backward_by(operator):
    def backward(ctx, grad: Tensor):
        first, anchors = ctx.saved_tensors
        of_anchors = ctx.needs_input_grad[1]
        grad_first, grad_anchors = operator(grad, first, anchors, *ctx.rest, of_anchors)
        # The kernel's gradients have the broadcast shape; each input takes the sum over what was broadcast.
        return (
            grad_first.sum_to_size(first.shape).to(first.dtype),
            grad_anchors.sum_to_size(anchors.shape).to(anchors.dtype) if of_anchors else None,
            *[None] * len(ctx.rest),
        )

    return backward


def _no_second_derivative(ctx, *grads):
    raise RuntimeError(
        "encode_boxes, decode_boxes: expected one derivative at most, got a request for the second (not implemented)"
    )


for _op, _backward in (("encode_boxes", encode_boxes_backward), ("decode_boxes", decode_boxes_backward)):
    torch.library.register_autograd(f"boxops::{_op}", _backward_by(_backward), setup_context=_setup)
    torch.library.register_autograd(f"boxops::{_op}_backward", _no_second_derivative)
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"boxops::{_op}", _device, torch.float32)
