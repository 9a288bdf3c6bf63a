"""Fake kernels, derivatives and vmap for the elementwise box operators."""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import broadcast_over_batch, compute_type, differentiable, entry, loop_over_batch

box_convert = entry("box_convert")


@torch.library.register_fake("boxops::box_area")
def _(boxes, fmt):
    return boxes.new_empty(boxes.shape[:-1], dtype=compute_type(boxes.dtype))


@torch.library.register_fake("boxops::box_convert")
def _(boxes, in_fmt, out_fmt):
    dtype = boxes.dtype if boxes.dtype.is_floating_point else compute_type(boxes.dtype)
    return boxes.new_empty(boxes.shape, dtype=dtype)


@torch.library.register_fake("boxops::clip_boxes_to_image")
def _(boxes, height, width):
    return boxes.new_empty(boxes.shape)


@torch.library.register_fake("boxops::remove_small_boxes")
def _(boxes, min_size):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


# How the corners (x1, x2) depend on the two numbers of a format, and back; y alike. A row per output.
_TO_CORNERS = {
    "xyxy": ((1.0, 0.0), (0.0, 1.0)),
    "xywh": ((1.0, 0.0), (1.0, 1.0)),
    "cxcywh": ((1.0, -0.5), (1.0, 0.5)),
}
_FROM_CORNERS = {
    "xyxy": ((1.0, 0.0), (0.0, 1.0)),
    "xywh": ((1.0, 0.0), (-1.0, 1.0)),
    "cxcywh": ((0.5, 0.5), (-1.0, 1.0)),
}


def _transposed(matrix, grad: Tensor) -> Tensor:
    (a, b), (c, d) = matrix
    first, second = grad[..., :2], grad[..., 2:]
    return torch.cat((a * first + c * second, b * first + d * second), -1)


def _keep_boxes(ctx, inputs, output):
    boxes, *ctx.rest = inputs
    return (boxes,)


def _keep_formats(ctx, inputs, output):
    _, *ctx.rest = inputs
    return ()


def _side_slopes(ctx, dtype: torch.dtype) -> Tensor:
    """How the area moves with width and height: by the other one. A clamp passes nothing from its limit on."""
    (boxes,) = ctx.saved_tensors
    corners = box_convert(boxes.to(dtype), *ctx.rest, "xyxy")
    size = corners[..., 2:] - corners[..., :2]
    return size.clamp(min=0).flip(-1) * (size > 0)


def _area_backward(ctx, grad: Tensor):
    (boxes,) = ctx.saved_tensors
    slope = grad[..., None] * _side_slopes(ctx, grad.dtype)
    return (_transposed(_TO_CORNERS[ctx.rest[0]], torch.cat((-slope, slope), -1)).to(boxes.dtype),)


def _area_jvp(ctx, tangent: Tensor, _):
    corners = box_convert(tangent.to(compute_type(tangent.dtype)), *ctx.rest, "xyxy")
    return (_side_slopes(ctx, corners.dtype) * (corners[..., 2:] - corners[..., :2])).sum(-1)


def _convert_backward(ctx, grad: Tensor):
    in_fmt, out_fmt = ctx.rest
    corners = _transposed(_FROM_CORNERS[out_fmt], grad.to(compute_type(grad.dtype)))
    return (_transposed(_TO_CORNERS[in_fmt], corners).to(grad.dtype),)


def _convert_jvp(ctx, tangent: Tensor, *_):
    return box_convert(tangent, *ctx.rest)


def _where_inside(ctx, grad: Tensor) -> Tensor:
    """A clip passes nothing from its limits on, as torch's clamp."""
    (boxes,) = ctx.saved_tensors
    height, width = ctx.rest
    x, y = boxes[..., 0::2], boxes[..., 1::2]
    inside = torch.stack(((x > 0) & (x < width), (y > 0) & (y < height)), -1).flatten(-2)
    return torch.where(inside, grad, 0)


def _clip_backward(ctx, grad: Tensor):
    return (_where_inside(ctx, grad),)


def _clip_jvp(ctx, tangent: Tensor, *_):
    return _where_inside(ctx, tangent)


differentiable("box_area", _keep_boxes, _area_backward, _area_jvp)
differentiable("box_convert", _keep_formats, _convert_backward, _convert_jvp)
differentiable("clip_boxes_to_image", _keep_boxes, _clip_backward, _clip_jvp)
broadcast_over_batch(1, "box_area", "box_convert", "clip_boxes_to_image")
loop_over_batch("remove_small_boxes")
