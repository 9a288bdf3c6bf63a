"""torchvision's operators (``torch.ops.torchvision.*``) on boxops' kernels, at torch's dispatcher."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import boxops.torch_ops

_library = ctypes.CDLL(str(Path(boxops.torch_ops.__file__).parent.parent / "lib" / "libboxops_torch.so"))
_library.boxops_override_torchvision_ops.restype = ctypes.c_void_p
_library.boxops_restore_torchvision_ops.argtypes = [ctypes.c_void_p]


def override() -> Callable[[], None]:
    """Puts boxops' CPU and CUDA kernels over torchvision's own, and gives what undoes it: a second call does nothing.

    Whatever calls the operators reaches them: functions imported before, modules, TorchScript, exported and compiled
    programs, and gradients. torchvision's autograd, autocast, fake and quantised kernels stay. Overrides nest and may
    be undone in any order.
    """
    handle = None

    def install(value: float) -> float:
        nonlocal handle
        handle = _library.boxops_override_torchvision_ops()
        return value

    # torch warns once that kernels are overridden: a Python warning inside its own functions, of which apply_ calls
    # back, and a line on stderr elsewhere.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _SCALAR.apply_(install)
    if handle is None:
        raise RuntimeError("boxops: torch refused to override torchvision's operators")

    def undo() -> None:
        nonlocal handle
        if handle is not None:
            _library.boxops_restore_torchvision_ops(handle)
            handle = None

    return undo


_SCALAR = torch.zeros(1, device="cpu")
