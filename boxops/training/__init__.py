"""One training loop for all detectors: exact resume, several processes, mixed precision, logs.

``Options`` needs no torch; the rest is loaded when it is first asked for.
"""

from importlib import import_module
from typing import Any

from boxops.training.options import Options

_LAZY = {
    "Interrupted": "signals",
    "RunFolder": "folder",
    "Trainer": "trainer",
    "TrainingError": "trainer",
    "load_model": "checkpoint",
    "HeldOut": "held_out",
    "StageRun": "stages",
}
__all__ = ["HeldOut", "Interrupted", "Options", "RunFolder", "StageRun", "Trainer", "TrainingError", "load_model"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"boxops.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'boxops.training' has no attribute {name!r}")
