"""torchvision's own operators, functions and detectors on boxops' kernels: ``boxops.patch_torchvision()``."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable
from contextlib import suppress
from types import CodeType, FunctionType, TracebackType
from typing import Any

from boxops.swap import detections, detectors, steps
from boxops.swap.detour import can_detour, detour
from boxops.swap.guards import TABLE
from boxops.torch_ops.torchvision import override

__all__ = ["TABLE", "Patch", "detections", "detectors", "patch_torchvision", "steps"]


class Patch:
    """What :func:`patch_torchvision` gives: call it, or leave it as a context, to undo."""

    _lock = threading.RLock()
    _depth = 0
    _saved: list[tuple[FunctionType, CodeType]] = []  # noqa: RUF012  # functions of torchvision, their own code
    _restore: Callable[[], None]  # the operators

    def __init__(self) -> None:
        self.active = False
        with Patch._lock:
            if Patch._depth == 0:
                found = [(f, module, name) for path, module, name in TABLE for f in _find(path)]  # before any changes
                codes = [(function, detour(function, module, name)) for function, module, name in found]
                Patch._restore = override()
                Patch._saved = [(function, function.__code__) for function, _ in codes]
                for function, code in codes:
                    function.__code__ = code
            Patch._depth += 1
            self.active = True

    def __call__(self) -> None:
        """Undoes this patch; torchvision is itself again when all are undone. A second call does nothing."""
        with Patch._lock:
            if not self.active:
                return
            self.active = False
            Patch._depth -= 1
            if Patch._depth == 0:
                for function, code in Patch._saved:
                    function.__code__ = code
                Patch._restore()

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self()


def patch_torchvision() -> Patch:
    """Puts boxops' kernels under torchvision's operators, functions and detectors: nothing changes but the speed.

    ``undo = patch_torchvision()`` holds until ``undo()``; ``with patch_torchvision():`` holds inside. Both nest, in any
    order, in any thread, and are for the whole process. ``python -m boxops.patched script.py`` runs a program under
    it that one cannot edit.

    - The operators (``nms``, ``roi_align``, ``roi_pool``, ``ps_roi_align``, ``ps_roi_pool``) are overridden at torch's
      dispatcher. So everything reaches them: ``from torchvision.ops import nms`` of long ago, modules,
      ``torch.ops.torchvision``, TorchScript, compiled and exported programs, and gradients.
    - The Python functions and methods of ``TABLE`` in boxops.swap keep their place and get other code until it is
      undone. So models made before or under the patch, their copies and files are the same as ever.

    torchvision's own Python, over the overridden operators, runs wherever boxops' result would not be its result: for
    dtypes other than float32 and float64 (as under autocast), tensor subclasses, boxes without a width and height (of
    which it takes signed areas), gradients through a detector's post-processing, box_iou and codecs, ``torch.func``
    and forward mode, ``torch.compile``, export and tracing, and in modules with a step of their own.

    What remains: results agree to float rounding, NMS ranks NaN scores last and knows duplicates whose areas overflow,
    ``batched_nms`` keeps groups apart exactly where torchvision moves the boxes of up to 1000 apart in rounded
    coordinates, equal scores go by index, and the images of a batch share one tensor of anchors. ``box_iou``, its
    relatives and losses are served on the CPU only: a look at boxes on a device would wait for it.

    Raises:
        RuntimeError: this torchvision lacks something that the patch replaces; nothing is changed then.
    """
    return Patch()


def _find(path: str) -> list[FunctionType]:
    """torchvision's function, or nothing where a program has put its own there."""
    function: Any = None
    with suppress(ImportError, AttributeError):
        function = pkgutil.resolve_name(path)
    if getattr(function, "__module__", path).startswith("torchvision.") and not can_detour(function):
        version = importlib.import_module("torchvision").__version__
        raise RuntimeError(f"patch_torchvision: expected a function {path} in torchvision, got {version} without")
    return [function] if f"{function.__module__}.{function.__qualname__}" == path else []
