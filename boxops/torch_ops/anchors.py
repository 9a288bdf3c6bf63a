"""Fake kernels and vmap for the anchor operators; nothing to differentiate."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import not_differentiable


@torch.library.register_fake("boxops::multibox_anchors")
def _(like, height, width, sizes, ratios, normalized):
    return like.new_empty(height * width * (len(sizes) + len(ratios) - 1), 4)


@torch.library.register_fake("boxops::grid_anchors")
def _(like, grid_sizes, strides, sizes, size_counts, ratios, ratio_counts):
    levels = zip(grid_sizes[::2], grid_sizes[1::2], size_counts, ratio_counts, strict=True)
    return like.new_empty(sum(h * w * s * r for h, w, s, r in levels), 4)


@torch.library.register_fake("boxops::cell_anchors")
def _(like, height, width, priors, stride_y, stride_x):
    return like.new_empty(height * width * (len(priors) // 2), 4)


# Only dtype and device of `like` matter: a map in training draws no graph after it, and its tangent moves no anchor.
for _op in ("multibox_anchors", "grid_anchors", "cell_anchors"):
    _operator = getattr(torch.ops.boxops, _op).default
    not_differentiable(_op, refuse_tangents=False)
    torch.library.register_vmap(_operator, lambda info, in_dims, *args, op=_operator: (op(*args), None))
