"""What the registrations share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

_COMPUTED_IN_FLOAT64 = {torch.float64, torch.int32, torch.uint32, torch.int64, torch.uint64}


def compute_type(*dtypes: torch.dtype) -> torch.dtype:
    """The type that measures of arrays of these dtypes come out in."""
    return torch.float32 if _COMPUTED_IN_FLOAT64.isdisjoint(dtypes) else torch.float64


def refuse_tangents(op: str, *tensors: Tensor) -> None:
    # The dispatcher would drop a tangent silently: an operator registered from Python has no forward mode.
    if forward_ad._current_level >= 0:
        for tensor in tensors:
            if forward_ad.unpack_dual(tensor).tangent is not None:
                raise RuntimeError(
                    f"{op}: expected tensors without tangents (no forward-mode gradient), got a dual tensor"
                )


def not_differentiable(*operators: str) -> None:
    """Their results are constants to autograd, as indices are, even where they are floating."""

    def setup(ctx, inputs, output):
        ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))
        ctx.count = len(inputs)

    def backward(ctx, *grads):
        return (None,) * ctx.count

    for operator in operators:
        torch.library.register_autograd(f"boxops::{operator}", backward, setup_context=setup)
