"""One list of cases per op, shared by the tests of correctness, gradients and emulation and by the benchmarks.

`CASES[op]` is a list of `Case`; `case.arguments(dtype)` gives the keyword arguments of the op as NumPy
arrays, the same at every call. bfloat16 values come as float32 arrays that bfloat16 holds exactly.
Every module of this package contributes its `CASES`, and as far as they apply `COMPARE` (test_reference.py),
`WRONG_VALUES` and `WRONG_TYPES` (test_errors.py), `NUMBERS`, and of these `ANY_NUMBER`, `INFINITE` and `NEGATIVE`
(test_numbers.py), `DIFFERENTIABLE` operators and `CONSTANT` ops, whose floating results have no derivative
(test_derivatives.py), `KEEP_DTYPE`, `DRAWN`, random arguments by op (test_fuzz.py), and functions `samples(device)`,
`calls(device)` and `far(rng)` (test_dtypes.py).
"""

import importlib
import pkgutil

import numpy as np

from cases.case import FLOATS, FORMATS, INTEGERS, SIZES, Case, as_dtype, tensors
from cases.iou import LOSSES, PAIRWISE

__all__ = [
    "CASES",
    "COMPARE",
    "FLOATS",
    "FORMATS",
    "INTEGERS",
    "KEEP_DTYPE",
    "LOSSES",
    "PAIRWISE",
    "SIZES",
    "Case",
    "as_dtype",
    "calls",
    "each",
    "equal",
    "gathered",
    "samples",
    "tensors",
]

_MODULES = [importlib.import_module(f"cases.{module.name}") for module in pkgutil.iter_modules(__path__)]


def gathered(name, *arguments):
    """What the modules have under a name, joined: lists, sets or dicts, or functions of `arguments` that give them."""
    parts = [getattr(module, name) for module in _MODULES if hasattr(module, name)]
    parts = [part(*arguments) if callable(part) else part for part in parts]
    joined = type(parts[0])() if parts else []
    for part in parts:
        joined = joined + part if isinstance(part, list) else joined | part
    return joined


CASES = gathered("CASES")
COMPARE = gathered("COMPARE")  # of ops whose results need not be the reference's to the bit
KEEP_DTYPE = gathered("KEEP_DTYPE")  # ops whose floating results have the dtype of their input


def equal(got, want, dtype, arguments):
    np.testing.assert_array_equal(got, want)


def each(op):
    """Every (case, dtype) of an op."""
    return [(case, dtype) for case in CASES[op] for dtype in case.dtypes]


def samples(device):
    """By name, lists of arguments of every operator that torch has."""
    return gathered("samples", device)


def calls(device):
    """By name, every public op as a function of tensors, and those tensors."""
    return gathered("calls", device)
