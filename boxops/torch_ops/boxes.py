"""Fake kernels and gradients for the elementwise box operators."""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import compute_type

box_area = torch.ops.boxops.box_area.default
box_convert = torch.ops.boxops.box_convert.default
clip_boxes = torch.ops.boxops.clip_boxes.default
remove_small_boxes = torch.ops.boxops.remove_small_boxes.default


@torch.library.register_fake("boxops::box_area")
def _(boxes, format):
    return boxes.new_empty(boxes.shape[:-1], dtype=compute_type(boxes.dtype))


@torch.library.register_fake("boxops::box_convert")
def _(boxes, from_format, to_format):
    dtype = boxes.dtype if boxes.dtype.is_floating_point else compute_type(boxes.dtype)
    return boxes.new_empty(boxes.shape, dtype=dtype)


@torch.library.register_fake("boxops::clip_boxes")
def _(boxes, height, width):
    return boxes.new_empty(boxes.shape)


@torch.library.register_fake("boxops::remove_small_boxes")
def _(boxes, min_size):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _save_boxes(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.rest = inputs[1:]


def _save_formats(ctx, inputs, output):
    ctx.rest = inputs[1:]


# How the corners (x1, x2) depend on the two numbers of a format, and back; y alike. A row per output.
_TO_CORNERS = (((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (1.0, 1.0)), ((1.0, -0.5), (1.0, 0.5)))
_FROM_CORNERS = (((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (-1.0, 1.0)), ((0.5, 0.5), (-1.0, 1.0)))


def _transposed(matrix, grad: Tensor) -> Tensor:
    (a, b), (c, d) = matrix
    first, second = grad[..., :2], grad[..., 2:]
    return torch.cat((a * first + c * second, b * first + d * second), -1)


def _area_backward(ctx, grad: Tensor):
    (boxes,) = ctx.saved_tensors
    corners = box_convert(boxes.to(grad.dtype), ctx.rest[0], 0)
    size = corners[..., 2:] - corners[..., :2]
    # Each side moves the area by the other one; inverted sides are clamped and move nothing.
    slope = grad[..., None] * size.clamp(min=0).flip(-1) * (size >= 0)
    return _transposed(_TO_CORNERS[ctx.rest[0]], torch.cat((-slope, slope), -1)).to(boxes.dtype), None


def _convert_backward(ctx, grad: Tensor):
    from_format, to_format = ctx.rest
    corners = _transposed(_FROM_CORNERS[to_format], grad.to(compute_type(grad.dtype)))
    return _transposed(_TO_CORNERS[from_format], corners).to(grad.dtype), None, None


def _clip_backward(ctx, grad: Tensor):
    (boxes,) = ctx.saved_tensors
    height, width = ctx.rest
    inside = (boxes >= 0) & (boxes <= boxes.new_tensor((width, height, width, height)))
    return grad * inside, None, None


torch.library.register_autograd("boxops::box_area", _area_backward, setup_context=_save_boxes)
torch.library.register_autograd("boxops::box_convert", _convert_backward, setup_context=_save_formats)
torch.library.register_autograd("boxops::clip_boxes", _clip_backward, setup_context=_save_boxes)
