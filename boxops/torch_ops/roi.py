"""Fake kernels, vmap and derivatives (of the features alone) for the RoI pooling operators.

No autocast: the operators take boxes of another dtype than the features and accumulate in float32 as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import (
    check_dims,
    compute_type,
    constant,
    differentiable,
    differentiable_once,
    differentiated_by,
    entry,
    loop_over_batch,
    tangent_of,
)

_ops = torch.ops.boxops

_roi_pool_backward = entry("roi_pool_backward")


# Fake kernels


@torch.library.register_fake("boxops::boxes_to_rois")
def _(input, boxes, op):
    return input.new_empty(sum(some.shape[0] for some in boxes), 5, dtype=compute_type(*(some.dtype for some in boxes)))


def _pooled(op: str, input: Tensor, boxes: Tensor, height, width, per_bin: bool = False) -> Tensor:
    check_dims(op, "input of shape [N, C, H, W]", input, 4)
    check_dims(op, "boxes of shape [K, 5]", boxes, 2)
    if height < 1 or width < 1:
        raise ValueError(f"{op}: expected output_size from 1 to 32768, got ({height}, {width})")
    channels = input.shape[1] // (height * width) if per_bin else input.shape[1]
    return input.new_empty(boxes.shape[0], channels, height, width)


@torch.library.register_fake("boxops::roi_align")
def _(input, boxes, height, width, spatial_scale, sampling_ratio, aligned):
    return _pooled("roi_align", input, boxes, height, width)


@torch.library.register_fake("boxops::multiscale_roi_align")
def _(features, boxes, height, width, *rest):
    return _pooled("multiscale_roi_align", features[0], boxes, height, width)


@torch.library.register_fake("boxops::ps_roi_align")
def _(input, boxes, height, width, spatial_scale, sampling_ratio):
    return _pooled("ps_roi_align", input, boxes, height, width, per_bin=True)


@torch.library.register_fake("boxops::ps_roi_pool")
def _(input, boxes, height, width, spatial_scale):
    return _pooled("ps_roi_pool", input, boxes, height, width, per_bin=True)


@torch.library.register_fake("boxops::roi_pool")
def _(input, boxes, height, width, spatial_scale):
    return _pooled("roi_pool", input, boxes, height, width)


@torch.library.register_fake("boxops::roi_pool_with_argmax")
def _(input, boxes, height, width, spatial_scale):
    pooled = _pooled("roi_pool", input, boxes, height, width)
    return pooled, pooled.new_empty(pooled.shape, dtype=torch.int32)


@torch.library.register_fake("boxops::roi_align_backward")
def _(grad, boxes, count, height, width, *rest):
    return grad.new_empty(count, grad.shape[1], height, width)


@torch.library.register_fake("boxops::multiscale_roi_align_backward")
def _(grad, boxes, count, heights, widths, *rest):
    return grad.new_empty(count * grad.shape[1] * sum(h * w for h, w in zip(heights, widths, strict=True)))


@torch.library.register_fake("boxops::ps_roi_align_backward")
def _(grad, boxes, count, height, width, *rest):
    return grad.new_empty(count, grad.shape[1] * grad.shape[2] * grad.shape[3], height, width)


@torch.library.register_fake("boxops::ps_roi_pool_backward")
def _(grad, boxes, count, height, width, spatial_scale):
    return grad.new_empty(count, grad.shape[1] * grad.shape[2] * grad.shape[3], height, width)


@torch.library.register_fake("boxops::roi_pool_backward")
def _(grad, argmax, boxes, count, height, width, spatial_scale):
    return grad.new_empty(count, grad.shape[1], height, width)


# Derivatives


def _check_tangents(op: str, *tangents) -> None:
    if any(tangent is not None for tangent in tangents):
        raise RuntimeError(
            f"{op}: expected boxes without tangents (only features have a gradient; detach() drops them), "
            "got a dual tensor"
        )


constant("boxes_to_rois", lambda output, input, boxes, op: _check_tangents(op, *map(tangent_of, boxes)))


def _keep(ctx, inputs, output):
    input, boxes, *ctx.rest = inputs
    ctx.shape = input.shape
    return (boxes,)


def _derivatives(op: str):
    pool, pool_backward = entry(op), entry(f"{op}_backward")

    def backward(ctx, grad: Tensor):
        count, _, height, width = ctx.shape
        return (pool_backward(grad, *ctx.saved_tensors, count, height, width, *ctx.rest[2:]),)

    def jvp(ctx, tangent: Tensor, *others):
        _check_tangents(op, *others)
        return pool(tangent, *ctx.saved_tensors, *ctx.rest)

    return backward, jvp


for _op in ("roi_align", "ps_roi_align", "ps_roi_pool"):
    differentiable(_op, _keep, *_derivatives(_op))


def _keep_maxima(ctx, inputs, output):
    _, argmax = output
    ctx.mark_non_differentiable(argmax)
    return *_keep(ctx, inputs, output), argmax


def _pool_backward(ctx, grad: Tensor, _):
    boxes, argmax = ctx.saved_tensors
    count, _, height, width = ctx.shape
    return (_roi_pool_backward(grad, argmax, boxes, count, height, width, *ctx.rest[2:]),)


def _pool_jvp(ctx, tangent: Tensor, *others):
    """The tangent where the maxima lie; bins without pixels, and RoIs of no image, have the maximum -1."""
    _check_tangents("roi_pool", *others)
    boxes, argmax = ctx.saved_tensors
    _, channels, height, width = ctx.shape
    maps = boxes[:, :1].long() * channels + torch.arange(channels, device=argmax.device)
    place = torch.where(argmax >= 0, maps[..., None, None] * (height * width) + argmax, 0)
    values = tangent.reshape(-1)[place] if tangent.numel() else tangent.new_zeros(argmax.shape)
    return torch.where(argmax >= 0, values, 0), None


differentiable("roi_pool_with_argmax", _keep_maxima, _pool_backward, _pool_jvp)


# Where the maxima lie is written only where a derivative may be asked for.
def _pool_and_forget(*args) -> Tensor:
    return _ops.roi_pool_with_argmax.default(*args)[0]


differentiated_by("roi_pool", _pool_and_forget)


def _keep_levels(ctx, inputs, output):
    features, boxes, *ctx.rest = inputs
    ctx.shapes = [feature.shape for feature in features]
    return (boxes,)


def _levels_backward(ctx, grad: Tensor):
    heights, widths = ([shape[i] for shape in ctx.shapes] for i in (2, 3))
    flat = _ops.multiscale_roi_align_backward.default(
        grad, *ctx.saved_tensors, ctx.shapes[0][0], heights, widths, *ctx.rest[2:]
    )
    levels = flat.split([n * c * h * w for n, c, h, w in ctx.shapes])
    return [level.view(shape) for level, shape in zip(levels, ctx.shapes, strict=True)]


def _levels_jvp(ctx, *tangents):
    count = len(ctx.shapes)
    _check_tangents("multiscale_roi_align", *tangents[count:])
    like = next(tangent for tangent in tangents if tangent is not None)
    levels = [like.new_zeros(s) if t is None else t for t, s in zip(tangents[:count], ctx.shapes, strict=True)]
    return _ops.multiscale_roi_align.default(levels, *ctx.saved_tensors, *ctx.rest)


differentiable("multiscale_roi_align", _keep_levels, _levels_backward, _levels_jvp)

_OPS = ("roi_align", "multiscale_roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool")
differentiable_once("roi pooling", *(f"{op}_backward" for op in _OPS))
loop_over_batch("boxes_to_rois", *_OPS, *(f"{op}_backward" for op in _OPS), "roi_pool_with_argmax")
