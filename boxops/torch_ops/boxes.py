"""Fake kernels and gradients for the elementwise box operators."""

from __future__ import annotations

import torch
from torch import Tensor

box_area = torch.ops.boxops.box_area.default
box_convert = torch.ops.boxops.box_convert.default
clip_boxes = torch.ops.boxops.clip_boxes.default
remove_small_boxes = torch.ops.boxops.remove_small_boxes.default


def compute_type(dtype: torch.dtype) -> torch.dtype:
    """The type that measures come out in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.library.register_fake("boxops::box_area")
def _(boxes):
    return boxes.new_empty(boxes.shape[:-1], dtype=compute_type(boxes.dtype))


@torch.library.register_fake("boxops::box_convert")
def _(boxes, from_format, to_format):
    return boxes.new_empty(boxes.shape, dtype=boxes.dtype if boxes.dtype.is_floating_point else torch.float32)


@torch.library.register_fake("boxops::clip_boxes")
def _(boxes, height, width):
    return boxes.new_empty(boxes.shape)


@torch.library.register_fake("boxops::remove_small_boxes")
def _(boxes, min_size):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _save_boxes(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])
    ctx.rest = inputs[1:]


def _area_backward(ctx, grad: Tensor):
    (boxes,) = ctx.saved_tensors
    size = boxes[..., 2:].to(grad.dtype) - boxes[..., :2]
    # Each side moves the area by the other one; inverted sides are clamped and move nothing.
    slope = grad[..., None] * size.clamp(min=0).flip(-1) * (size >= 0)
    return torch.cat((-slope, slope), -1).to(boxes.dtype)


# Rows: how the corners (x1, x2) depend on the two numbers of a format, and back; y alike.
_TO_CORNERS = (((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (1.0, 1.0)), ((1.0, -0.5), (1.0, 0.5)))
_FROM_CORNERS = (((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (-1.0, 1.0)), ((0.5, 0.5), (-1.0, 1.0)))


def _convert_backward(ctx, grad: Tensor):
    from_format, to_format = ctx.rest
    work = grad.to(compute_type(grad.dtype))
    first, second = work[..., :2], work[..., 2:]
    for (a, b), (c, d) in (_FROM_CORNERS[to_format], _TO_CORNERS[from_format]):
        first, second = a * first + c * second, b * first + d * second
    return torch.cat((first, second), -1).to(grad.dtype), None, None


def _clip_backward(ctx, grad: Tensor):
    (boxes,) = ctx.saved_tensors
    height, width = ctx.rest
    inside = (boxes >= 0) & (boxes <= boxes.new_tensor((width, height, width, height)))
    return grad * inside, None, None


torch.library.register_autograd("boxops::box_area", _area_backward, setup_context=_save_boxes)
torch.library.register_autograd("boxops::box_convert", _convert_backward, setup_context=_save_boxes)
torch.library.register_autograd("boxops::clip_boxes", _clip_backward, setup_context=_save_boxes)
