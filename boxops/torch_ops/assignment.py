"""Fake kernels for assignment; a matcher is not differentiated."""

from __future__ import annotations

import torch

linear_sum_assignment = torch.ops.boxops.linear_sum_assignment.default


@torch.library.register_fake("boxops::linear_sum_assignment")
def _(cost, maximize, offsets):
    if cost.dim() not in ((2,) if offsets is not None else (2, 3)):
        words = "[R, m]" if offsets is not None else "[n, m] or [B, n, m]"
        raise ValueError(f"linear_sum_assignment: expected cost of shape {words}, got {[*cost.shape]}")
    rows, columns = cost.shape[-2:]
    shape = (rows,) if offsets is not None else (*cost.shape[:-2], torch.sym_min(rows, columns))
    return cost.new_empty(shape, dtype=torch.int64), cost.new_empty(shape, dtype=torch.int64)
