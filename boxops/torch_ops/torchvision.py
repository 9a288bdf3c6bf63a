"""torchvision's operators (``torch.ops.torchvision.*``) on boxops' kernels: see csrc/include/boxops/torchvision.h."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import boxops.torch_ops

_library = ctypes.CDLL(str(boxops.torch_ops.LIBRARY))
_library.boxops_override_torchvision_ops.restype = ctypes.c_void_p
_library.boxops_restore_torchvision_ops.argtypes = [ctypes.c_void_p]

POOLING = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
OPERATORS = ("nms", "box_iou_rotated", *POOLING, *(f"_{name}_backward" for name in POOLING))
_DEVICES = (torch.DispatchKey.CPU, torch.DispatchKey.CUDA)
_GRACE = 60.0  # seconds
_lock = threading.RLock()
_retired: deque[tuple[float, list[Any]]] = deque()
_scalar = torch.zeros(1, device="cpu")


def _has_operators() -> bool:
    return hasattr(torch.ops.torchvision, "nms")


def override() -> Callable[[], None]:
    """Puts boxops' CPU and CUDA kernels over torchvision's own, and gives what undoes it: a second call does nothing.

    Whatever calls the operators reaches them: functions imported before, modules, TorchScript, exported and compiled
    programs, and gradients. torchvision's autograd, autocast, fake and quantised kernels stay. Overrides nest and are
    undone in any order, while other threads call the operators.

    Raises:
        RuntimeError: there are no operators of torchvision: it is not imported, or does not fit this torch.
    """
    handle = None

    def install(value: float) -> float:
        nonlocal handle
        handle = _library.boxops_override_torchvision_ops()
        return value

    with _lock:
        if not _has_operators():
            raise RuntimeError("override: expected torchvision's operators (import torchvision first), got none")
        # torch warns once that kernels are overridden: a Python warning inside its own functions, of which apply_ is
        # one that calls back, and a line on stderr elsewhere.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _scalar.apply_(install)
        if handle is None:
            raise RuntimeError("override: expected torch to take kernels for torchvision's operators, got a refusal")
        kernels = [torch.library.get_kernel(op, key) for op in _overridden() for key in _DEVICES]

    def undo() -> None:
        nonlocal handle
        with _lock:
            if handle is None:
                return
            _library.boxops_restore_torchvision_ops(handle)
            handle = None
            # Another thread may be on its way through a kernel, of which torch would free what it still reads.
            _retired.append((time.monotonic(), kernels))
            while _retired and _retired[0][0] < time.monotonic() - _GRACE:
                _retired.popleft()

    return undo


def _overridden() -> list[Any]:
    """Those of the operators that this torchvision has."""
    own = torch.ops.torchvision
    return [getattr(own, name).default for name in OPERATORS if hasattr(own, name)]


def provide_torchvision_ops() -> bool:
    """Makes ``import torchvision`` and its detectors run on any torch, where torchvision's own operators do not load.

    torchvision's compiled operators fit one version of torch. With another, ``import torchvision`` ends in ``operator
    torchvision::nms does not exist``. This function then defines torchvision's operators on boxops' kernels, with
    gradients and autocast, and imports torchvision; a failed import before does no harm. It does nothing where
    torchvision brings its own operators (:func:`patch_torchvision` is for that), and nothing when it is called again.
    Where no torchvision is installed, it defines the operators alone, for exported and TorchScript programs.

    ``deform_conv2d`` and the quantised operators are there by name, and raise when they are called. C++ programs
    without Python call ``boxops_provide_torchvision_ops()`` of ``libboxops_torch.so``.

    Returns:
        True if torchvision's operators are boxops', False if they are torchvision's own.
    Raises:
        ImportError, RuntimeError: torchvision cannot be imported for another reason.

    Example:
        >>> import boxops
        >>> boxops.provide_torchvision_ops()
        False
        >>> import torchvision
    """
    global _provided
    with _lock:
        spec = importlib.util.find_spec("torchvision")
        if not _provided:
            if spec and _brings_its_own():
                return False
            if _library.boxops_provide_torchvision_ops() != 0:
                raise RuntimeError("provide_torchvision_ops: expected no operators of torchvision, got some already")
            _provided = True
            if not (spec and spec.origin and Path(spec.origin).with_name("_autograd_registrations.py").exists()):
                for name in POOLING:  # before 0.27 these are in its library
                    _register_gradient(name)
                _register_autocast()
        if spec:
            with _without_its_library():
                importlib.import_module("torchvision")
        return True


_provided = False


def _brings_its_own() -> bool:
    try:
        importlib.import_module("torchvision")
    except Exception:
        if _has_operators():
            raise  # something else is wrong with it
    if not _has_operators():
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # what the failed import left
    return _has_operators()


@contextmanager
def _without_its_library() -> Iterator[None]:
    """Meanwhile torchvision believes that it has loaded its operators."""
    load = torch.ops.load_library
    setattr(torch.ops, "load_library", lambda path: None if Path(path).name.startswith("_C") else load(path))  # noqa: B010
    try:
        yield
    finally:
        del torch.ops.load_library


def _register_gradient(name: str) -> None:
    backward = getattr(torch.ops.torchvision, f"_{name}_backward").default

    def setup(ctx, inputs, output):
        input, rois, *ctx.options = inputs  # scale, height, width, and for the aligned sampling_ratio, and aligned
        places = output[1:] if isinstance(output, tuple) else ()
        ctx.mark_non_differentiable(*places)
        ctx.save_for_backward(rois, *places)
        ctx.shape = input.shape

    def gradient(ctx, grad: Tensor, *_):
        at = 3 if name == "roi_align" else len(ctx.options)  # where its schema has the shape
        options = (*ctx.options[:at], *ctx.shape, *ctx.options[at:])
        rois, *places = ctx.saved_tensors
        return backward(grad, rois, *places, *options), *[None] * (1 + len(ctx.options))

    def second(ctx, *grads):
        raise RuntimeError(f"double backwards on {name} not supported")

    torch.library.register_autograd(f"torchvision::{name}", gradient, setup_context=setup)
    torch.library.register_autograd(f"torchvision::_{name}_backward", second)


def _register_autocast() -> None:
    """As torchvision's: computed in float32, the result in the dtype of the first argument."""
    names = ("AutocastCPU", "AutocastCUDA", "AutocastXPU")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    for key in names[1:]:
        keys = keys | torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def wrap(name: str) -> Callable[..., Any]:
        operator = getattr(torch.ops.torchvision, name).default

        def call(first: Tensor, second: Tensor, *options):
            dtype = first.dtype
            first, second = (
                some.float() if some.is_floating_point() and some.dtype != torch.float64 else some
                for some in (first, second)
            )
            with torch._C._ExcludeDispatchKeyGuard(keys):
                result = operator(first, second, *options)
            if name == "nms":
                return result
            return tuple(some.to(dtype) for some in result) if isinstance(result, tuple) else result.to(dtype)

        return call

    _kept.append(library := torch.library.Library("torchvision", "IMPL"))
    for name in ("nms", *POOLING):
        for key in names if name in ("nms", "roi_align") else ("AutocastCUDA",):
            library.impl(name, wrap(name), key)


_kept: list[Any] = []  # registrations live as long as their library
