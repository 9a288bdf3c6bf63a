"""When boxops may stand in for torchvision's Python, so that nothing changes but the speed."""

from __future__ import annotations

import functools
import math
import pkgutil
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from boxops.swap.detour import copy

TABLE: list[tuple[str, str, str]] = []  # of each function in torchvision: its path, our module, our name
FLOATS = (torch.float32, torch.float64)
_LARGEST = 2.0**60  # its square, and sums of such squares, are finite in float32


def in_place_of(path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters a step that stands in for torchvision's function at path.

    Where the step gives NotImplemented, and wherever calls are not run as they come but recorded or transformed,
    torchvision's own code runs.
    """

    def decorate(step: Callable[..., Any]) -> Callable[..., Any]:
        function = pkgutil.resolve_name(path)
        theirs: Callable[..., Any] = copy(function) if isinstance(function, FunctionType) else function

        @functools.wraps(step)
        def call(*args: Any) -> Any:
            if not _eager():
                return theirs(*args)
            result = step(*args)
            return theirs(*args) if result is NotImplemented else result

        call.theirs = theirs  # type: ignore[attr-defined]
        TABLE.append((path, step.__module__, step.__name__))
        return call

    return decorate


def _eager() -> bool:
    """Whether calls run as they come: no compiler, tracer or exporter, no transform of torch.func, no dual tensors."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack()
    )


def plain(*tensors: Any) -> bool:
    """Whether all are tensors of one device, and of float32 or float64: in these torchvision's results are ours."""
    return all(
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.dtype in FLOATS
        and tensor.device.type in ("cpu", "cuda")
        and tensor.layout is torch.strided
        and tensor.device == tensors[0].device
        for tensor in tensors
    )


def wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def numbers(*values: Any) -> bool:
    """Whether all are plain numbers >= 0."""
    return all(isinstance(value, (int, float)) and value >= 0 for value in values)


def is_size(size: Any) -> bool:
    """Whether it is (height, width) in plain numbers."""
    return isinstance(size, (tuple, list)) and len(size) == 2 and numbers(*size)


def regular(*boxes: Tensor, fmt: str = "xyxy", flat: bool = False) -> bool:
    """Whether every box has a width and a height, neither NaN nor huge: there torchvision's measures are ours.

    Of inverted boxes it takes the area with its sign, of two empty ones 0 / 0. With flat, width and height may be 0. On
    CUDA the host waits.
    """
    if boxes[0].is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    for some in boxes:
        if some.numel() == 0:
            return False
        corners = some.detach()
        sides = corners[..., 2:] - corners[..., :2] if fmt == "xyxy" else corners[..., 2:]
        low, high = torch.aminmax(corners)
        least = sides.amin().item()
        if not ((least > 0 or (flat and least == 0)) and low.item() > -_LARGEST and high.item() < _LARGEST):
            return False
    return True


def touching(boxes1: Tensor, boxes2: Tensor) -> bool:
    """Whether sides of two paired boxes fall together: there the gradient has a kink, and torchvision's own choice."""
    swapped = boxes1.detach()[..., [2, 3, 0, 1]]
    return bool(((boxes1 == boxes2) | (swapped == boxes2)).any())


def threshold(value: float, boxes: Tensor) -> float:
    """An NMS threshold for ours: torchvision's CPU kernel compares a float32 IoU with it in float64.

    An IoU in float32 exceeds a float64 exactly where it exceeds the next float32 below.
    """
    if boxes.is_cuda or boxes.dtype == torch.float64:
        return value
    rounded = float(np.float32(value))
    return float(np.nextafter(np.float32(rounded), np.float32(-1))) if rounded > value else rounded


def finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
