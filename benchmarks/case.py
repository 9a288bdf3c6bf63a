"""A case, its rivals, and how results are compared: boxops' with the reference, a rival's with boxops'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .machine import rival

Arrays = tuple[np.ndarray, ...]
torch = rival("torch")


@dataclass(frozen=True)
class Rival:
    """Another library's way to the same answer, called as its users call it."""

    call: Callable[..., Any]
    given: Callable[..., Any] | None = None  # the inputs in its own dtypes and units, made before the clock starts
    answer: Callable[[Any, Any], tuple[Any, Any]] | None = None  # its result and ours, as two things that must agree
    heavy: bool = False  # left out by --quick: takes seconds to import or to compile

    def __call__(self, *inputs: Any) -> Any:
        return self.call(*inputs)


@dataclass(frozen=True)
class Case:
    """One op on one input. `make` gives NumPy arrays; every callable gets them, as tensors where it takes tensors."""

    op: str
    label: str
    n: int  # boxes, the x axis of the plots
    make: Callable[[], Arrays]
    ours: Callable[..., Any]
    reference: Callable[..., Any]
    check: Callable[[Case, Arrays, Any], str]  # raises Wrong, or says what was compared
    rivals: Mapping[str, Rival | Callable[..., Any]] = field(default_factory=dict)
    goal: tuple[str, float] = ("torchvision", 1.0)  # at least so many times faster than this rival
    tolerance: float = 0.0  # 0: to the bit
    limit: str = (
        "copy"  # what bounds it: "copy", the bandwidth, or "fill", allocating and filling an array like its output
    )
    heavy: bool = False  # left out by --quick
    tensors_only: bool = False  # needs autograd
    graph: bool = False  # also timed as a CUDA graph
    variant: str = ""  # cases of one op and variant make a line over n

    @property
    def name(self) -> str:
        return f"{self.op} {self.label}"


class Wrong(Exception):
    """The op's result is not what the reference says."""


def same(got: Any, want: Any, tolerance: float = 0.0) -> None:
    """Raises Wrong unless `got` has the shape, the dtype and, within the tolerance, the values of `want`."""
    if isinstance(want, tuple):
        for one, other in zip(got, want, strict=True):
            same(one, other, tolerance)
        return
    if torch and getattr(got, "dtype", None) == torch.bfloat16:  # NumPy has none: round what is wanted as well
        got, want = got.float(), torch.as_tensor(want).bfloat16().float()
    got, want = numpy(got), numpy(want)
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        raise Wrong(f"expected {want.dtype} {list(want.shape)}, got {got.dtype} {list(got.shape)}")
    equal = (got == want) | ((got != got) & (want != want))
    if tolerance:
        equal |= np.isclose(got, want, tolerance, tolerance)
    if not equal.all():
        at = tuple(int(i) for i in np.argwhere(~equal)[0])
        raise Wrong(
            f"{(~equal).sum():,} of {got.size:,} values, first at {list(at)}: expected {want[at]}, got {got[at]}"
        )


def whole(case: Case, arrays: Arrays, result: Any) -> str:
    same(result, case.reference(*arrays), case.tolerance)
    return f"all values {_within(case)}"


def some_rows(case: Case, arrays: Arrays, result: Any, count: int = 64) -> str:
    rows = np.random.default_rng(0).choice(len(arrays[0]), count, replace=False)
    same(numpy(result)[rows], case.reference(arrays[0][rows], *arrays[1:]), case.tolerance)
    return f"{count} of {len(arrays[0]):,} rows {_within(case)}"


def _within(case: Case) -> str:
    return f"within {case.tolerance:.0e}" if case.tolerance else "to the bit"


LOOKED_AT = 1_000_000  # values of a rival's result, evenly spread
ROUNDING = {"float16": 5e-3, "bfloat16": 4e-2}  # else 1e-3: libraries sum in other orders and other precisions


def differing(theirs: Any, ours: Any, dtype: str = "float32") -> tuple[int, int]:
    """How many values of a rival's result are not ours beyond rounding, and of how many."""
    if isinstance(ours, set):
        return len(theirs ^ ours), len(theirs | ours)
    if isinstance(ours, (tuple, list)):
        if not isinstance(theirs, (tuple, list)) or len(theirs) != len(ours):
            return 1, 1
        counts = [differing(one, other, dtype) for one, other in zip(theirs, ours, strict=True)]
        return sum(wrong for wrong, _ in counts), sum(of for _, of in counts)
    theirs, ours = (numpy(a.float() if str(getattr(a, "dtype", "")) == "torch.bfloat16" else a) for a in (theirs, ours))
    if theirs.shape != ours.shape:
        return ours.size or 1, ours.size or 1
    step = max(1, ours.size // LOOKED_AT)
    theirs, ours = theirs.reshape(-1)[::step], ours.reshape(-1)[::step]
    if "f" in theirs.dtype.kind + ours.dtype.kind:
        tolerance = ROUNDING.get(dtype, 1e-3)
        return int((~np.isclose(theirs, ours, tolerance, tolerance, equal_nan=True)).sum()), ours.size
    return int((theirs != ours).sum()), ours.size


def sets(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """The answers of a suppression: which boxes are kept. Ties may be in another order."""
    ours = ours[0] if isinstance(ours, tuple) else ours
    return set(numpy(theirs).tolist()), set(numpy(ours).tolist())


def numpy(array: Any) -> np.ndarray:
    return np.asarray(array.detach().cpu() if torch and isinstance(array, torch.Tensor) else array)
