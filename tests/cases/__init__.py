"""One list of cases per op, shared by the tests of correctness, gradients and emulation and by the benchmarks.

`CASES[op]` is a list of `Case`; `case.arguments(dtype)` gives the keyword arguments of the op as NumPy
arrays, the same at every call. bfloat16 values come as float32 arrays that bfloat16 holds exactly.
Every module of this package with a dict `CASES` contributes its own.
"""

import importlib
import pkgutil

from cases.case import FLOATS, FORMATS, INTEGERS, SIZES, Case, as_dtype
from cases.iou import LOSSES, PAIRWISE

__all__ = [
    "CASES",
    "FLOATS",
    "FORMATS",
    "INTEGERS",
    "KEEP_DTYPE",
    "LOSSES",
    "PAIRWISE",
    "SIZES",
    "Case",
    "as_dtype",
    "each",
]

KEEP_DTYPE = {"box_convert", "clip_boxes_to_image"}  # ops whose floating results have the dtype of their input
CASES = {}
for _module in pkgutil.iter_modules(__path__):
    CASES |= getattr(importlib.import_module(f"cases.{_module.name}"), "CASES", {})


def each(op):
    """Every (case, dtype) of an op."""
    return [(case, dtype) for case in CASES[op] for dtype in case.dtypes]
