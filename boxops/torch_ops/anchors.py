"""Fake kernels for the anchor operators; nothing to differentiate."""

from __future__ import annotations

import torch
from torch import Tensor

_multibox_anchors = torch.ops.boxops.multibox_anchors.default
_grid_anchors = torch.ops.boxops.grid_anchors.default
_cell_anchors = torch.ops.boxops.cell_anchors.default


# Only dtype and device of `like` matter; detached, a feature map that is being trained draws no graph after it.
def multibox_anchors(like: Tensor, *rest) -> Tensor:
    return _multibox_anchors(like.detach(), *rest)


def grid_anchors(like: Tensor, *rest) -> Tensor:
    return _grid_anchors(like.detach(), *rest)


def cell_anchors(like: Tensor, *rest) -> Tensor:
    return _cell_anchors(like.detach(), *rest)


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
