"""Fake kernels and gradients (of the features alone) for the RoI pooling operators.

No autocast: the operators take boxes of another dtype than the features and accumulate in float32 as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import refuse_tangents

_ops = torch.ops.boxops


def roi_align(input: Tensor, boxes: Tensor, *rest) -> Tensor:
    refuse_tangents("roi_align", input, boxes)
    return _ops.roi_align.default(input, boxes, *rest)


def multiscale_roi_align(features: list[Tensor], boxes: Tensor, *rest) -> Tensor:
    refuse_tangents("multiscale_roi_align", *features, boxes)
    return _ops.multiscale_roi_align.default(features, boxes, *rest)


def ps_roi_align(input: Tensor, boxes: Tensor, *rest) -> Tensor:
    refuse_tangents("ps_roi_align", input, boxes)
    return _ops.ps_roi_align.default(input, boxes, *rest)


def ps_roi_pool(input: Tensor, boxes: Tensor, *rest) -> Tensor:
    refuse_tangents("ps_roi_pool", input, boxes)
    return _ops.ps_roi_pool.default(input, boxes, *rest)


def roi_pool(input: Tensor, boxes: Tensor, *rest) -> Tensor:
    """Where the maxima lie is written only where a gradient may be asked for."""
    refuse_tangents("roi_pool", input, boxes)
    if torch.is_grad_enabled() and input.requires_grad:
        return _ops.roi_pool_with_argmax.default(input, boxes, *rest)[0]
    return _ops.roi_pool.default(input, boxes, *rest)


# Fake kernels


def _pooled(op: str, input: Tensor, boxes: Tensor, height, width, per_bin: bool = False) -> Tensor:
    if input.dim() != 4:
        raise ValueError(f"{op}: expected input of shape [N, C, H, W], got {[*input.shape]}")
    channels = input.shape[1] // (height * width) if per_bin else input.shape[1]
    return input.new_empty(boxes.shape[0], channels, height, width)


@torch.library.register_fake("boxops::roi_align")
def _(input, boxes, images, height, width, spatial_scale, sampling_ratio, aligned):
    return _pooled("roi_align", input, boxes, height, width)


@torch.library.register_fake("boxops::multiscale_roi_align")
def _(features, boxes, images, height, width, *rest):
    return _pooled("multiscale_roi_align", features[0], boxes, height, width)


@torch.library.register_fake("boxops::ps_roi_align")
def _(input, boxes, images, height, width, spatial_scale, sampling_ratio):
    return _pooled("ps_roi_align", input, boxes, height, width, per_bin=True)


@torch.library.register_fake("boxops::ps_roi_pool")
def _(input, boxes, images, height, width, spatial_scale):
    return _pooled("ps_roi_pool", input, boxes, height, width, per_bin=True)


@torch.library.register_fake("boxops::roi_pool")
def _(input, boxes, images, height, width, spatial_scale):
    return _pooled("roi_pool", input, boxes, height, width)


@torch.library.register_fake("boxops::roi_pool_with_argmax")
def _(input, boxes, images, height, width, spatial_scale):
    pooled = _pooled("roi_pool", input, boxes, height, width)
    return pooled, pooled.new_empty(pooled.shape, dtype=torch.int32)


@torch.library.register_fake("boxops::roi_align_backward")
def _(grad, boxes, images, count, height, width, *rest):
    return grad.new_empty(count, grad.shape[1], height, width)


@torch.library.register_fake("boxops::multiscale_roi_align_backward")
def _(grad, boxes, images, count, heights, widths, *rest):
    return grad.new_empty(count * grad.shape[1] * sum(h * w for h, w in zip(heights, widths, strict=True)))


@torch.library.register_fake("boxops::ps_roi_align_backward")
def _(grad, boxes, images, count, height, width, *rest):
    return grad.new_empty(count, grad.shape[1] * grad.shape[2] * grad.shape[3], height, width)


@torch.library.register_fake("boxops::ps_roi_pool_backward")
def _(grad, boxes, images, count, height, width, spatial_scale):
    return grad.new_empty(count, grad.shape[1] * grad.shape[2] * grad.shape[3], height, width)


@torch.library.register_fake("boxops::roi_pool_backward")
def _(grad, argmax, boxes, images, count, height, width, spatial_scale):
    return grad.new_empty(count, grad.shape[1], height, width)


# Gradients


def _setup(ctx, inputs, output):
    input, boxes, images, _, _, *ctx.rest = inputs
    ctx.save_for_backward(boxes, images)
    ctx.shape = input.shape


def _backward_of(backward):
    def gradient(ctx, grad: Tensor):
        boxes, images = ctx.saved_tensors
        count, _, height, width = ctx.shape
        return backward(grad, boxes, images, count, height, width, *ctx.rest), *[None] * (4 + len(ctx.rest))

    return gradient


for _op in ("roi_align", "ps_roi_align", "ps_roi_pool"):
    torch.library.register_autograd(
        f"boxops::{_op}", _backward_of(getattr(_ops, f"{_op}_backward").default), setup_context=_setup
    )


def _setup_pool(ctx, inputs, output):
    _, argmax = output
    input, boxes, images, _, _, ctx.scale = inputs
    ctx.mark_non_differentiable(argmax)
    ctx.save_for_backward(boxes, images, argmax)
    ctx.shape = input.shape


def _pool_backward(ctx, grad: Tensor, _):
    boxes, images, argmax = ctx.saved_tensors
    count, _, height, width = ctx.shape
    gradient = _ops.roi_pool_backward.default(grad, argmax, boxes, images, count, height, width, ctx.scale)
    return gradient, *[None] * 5


torch.library.register_autograd("boxops::roi_pool_with_argmax", _pool_backward, setup_context=_setup_pool)


def _setup_levels(ctx, inputs, output):
    features, boxes, images, _, _, *ctx.rest = inputs
    ctx.save_for_backward(boxes, images)
    ctx.shapes = [feature.shape for feature in features]


def _levels_backward(ctx, grad: Tensor):
    boxes, images = ctx.saved_tensors
    heights, widths = ([shape[i] for shape in ctx.shapes] for i in (2, 3))
    flat = _ops.multiscale_roi_align_backward.default(grad, boxes, images, ctx.shapes[0][0], heights, widths, *ctx.rest)
    levels = flat.split([n * c * h * w for n, c, h, w in ctx.shapes])
    return [level.view(shape) for level, shape in zip(levels, ctx.shapes, strict=True)], *[None] * (4 + len(ctx.rest))


torch.library.register_autograd("boxops::multiscale_roi_align", _levels_backward, setup_context=_setup_levels)


def _no_second_derivative(ctx, *grads):
    raise RuntimeError("roi pooling: expected one derivative at most, got a request for the second (not implemented)")


for _op in ("roi_align", "multiscale_roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool"):
    torch.library.register_autograd(f"boxops::{_op}_backward", _no_second_derivative)
