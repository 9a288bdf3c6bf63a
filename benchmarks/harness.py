"""Runs cases: makes the inputs, verifies boxops, then times it and its rivals alternately. Knows nothing of any op."""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from . import timing
from .machine import ABSENT, facts, rival

Arrays = tuple[np.ndarray, ...]
SCHEMA = 1
FRAME = {
    "harness",
    "machine",
    "timing",
    "report",
    "plots",
    "page",
    "models",
    "stages",
    "busy",
}  # every other module is a family
BUDGET = {False: 40.0, True: 10.0}  # by --quick: seconds that the cases share, if none is slow; verification is extra
ROUNDS = {False: (3, 9), True: (2, 5)}  # fewest and most turns that every row of a case gets
OURS = ("boxops", "boxops NumPy", "boxops graph")
TAKE_ARRAYS = {"boxops NumPy", "powerboxes", "NumPy"}  # all other rows take tensors


torch = rival("torch")


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
    rivals: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
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


def numpy(array: Any) -> np.ndarray:
    return np.asarray(array.detach().cpu() if torch and isinstance(array, torch.Tensor) else array)


def families() -> list[Case]:
    """The cases of every module of this package that is not a part of the frame."""
    package = importlib.import_module(__package__)
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if m.name not in FRAME]
    return [case for name in names for case in importlib.import_module(f"{__package__}.{name}").CASES]


def select(patterns: Sequence[str] | None, quick: bool = False) -> list[Case]:
    cases = families()
    for pattern in patterns or ():
        if not any(_matches(case, pattern) for case in cases):
            known = ", ".join(dict.fromkeys(case.op for case in cases))
            raise ValueError(f"expected --ops among {known}, got {pattern}")
    chosen = [c for c in cases if not patterns or any(_matches(c, pattern) for pattern in patterns)]
    chosen = [c for c in chosen if not (quick and c.heavy)]
    if not chosen:
        raise ValueError("expected cases to run, got only such that --quick leaves out")
    return chosen


def _matches(case: Case, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (case.op, case.name))


def require_device(device: str, dtype: str) -> None:
    if device == "cuda" and not (torch and torch.cuda.is_available()):
        raise ValueError("expected a CUDA device and a torch that sees it for --device cuda, got none")
    if dtype == "bfloat16" and not torch:
        raise ValueError("expected torch for --dtype bfloat16, got none (NumPy has no bfloat16)")


def run(
    cases: Sequence[Case],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    threads: int = 1,
    quick: bool = False,
    track: Callable[[Sequence[Case]], Iterable[Case]] = iter,
) -> dict[str, Any]:
    """Everything measured, ready for JSON."""
    if torch:
        torch.set_num_threads(threads)
    machine = facts(device, threads)
    machine["bandwidth"] = bandwidth = timing.bandwidths(device, threads)
    begin, results = time.perf_counter(), []
    for case in track(cases):
        late = time.perf_counter() - begin > 1.5 * BUDGET[quick]  # a busy machine: finish, with a larger spread
        rounds = (2, 2) if late else ROUNDS[quick]
        results.append(_Bench(case, device, dtype, threads, bandwidth).run(BUDGET[quick] / len(cases), rounds))
    options = {"device": device, "dtype": dtype, "threads": threads, "quick": quick}
    return {"schema": SCHEMA, "options": options, "machine": machine, "absent": ABSENT, "cases": results}


class _Bench:
    def __init__(self, case: Case, device: str, dtype: str, threads: int, bandwidth: Mapping[str, float]) -> None:
        self.case, self.device, self.dtype, self.bandwidth = case, device, dtype, bandwidth
        self.timer: timing.Timer = partial(timing.torch_times, threads=threads) if torch else timing.wall_times
        if device == "cuda" and case.n > 1:  # for one box the cost of the call is the question, and that is host time
            self.timer = timing.CudaTimer()

    def run(self, seconds: float, rounds: tuple[int, int]) -> dict[str, Any]:
        case = self.case
        result: dict[str, Any] = {"name": case.name, "op": case.op, "label": case.label, "n": case.n}
        result |= {"variant": case.variant, "error": None}
        try:
            rows, result["verified"], result["bytes"] = self._verified_rows()
        except Exception as error:
            kind = "wrong result" if isinstance(error, Wrong) else type(error).__name__
            return result | {"error": f"{kind}: {error}"}
        failed = {}
        for name in [name for name in case.rivals if name in rows]:
            try:
                rows[name]()
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                del rows[name]
        timings = self._alternate(rows, seconds, rounds)
        fill = timings.pop("fill", None)
        ours = next(name for name in OURS if name in timings)
        speed = result["bytes"] / timings[ours]["median"]
        ratios = {}
        for name in [name for name in timings if name not in OURS]:  # like with like: arrays with arrays
            own = "boxops NumPy" if name in TAKE_ARRAYS else ours
            ratios[name] = timings[name]["median"] / timings[own]["median"]
        goal = {"rival": case.goal[0], "ratio": case.goal[1], "met": None}
        if case.goal[0] in ratios:
            goal["met"] = ratios[case.goal[0]] >= case.goal[1]
        of_limit = fill["median"] / timings[ours]["median"] if fill else speed / self.bandwidth["copy"]
        result |= {"rate": speed, "limit": case.limit, "of_limit": of_limit, "fill": fill}
        return result | {"ours": ours, "timings": timings, "ratios": ratios, "goal": goal, "failed": failed}

    def _verified_rows(self) -> tuple[dict[str, timing.Call], str, int]:
        """The calls to time, what was verified, and the bytes that must move: inputs and outputs, once each."""
        case, arrays = self.case, self.case.make()
        inputs: dict[bool, Any] = {}
        if torch:
            inputs[False] = tuple(self._tensor(array) for array in arrays)
            arrays = tuple(numpy(t.float() if t.dtype == torch.bfloat16 else t) for t in inputs[False])
        else:
            arrays = tuple(a.astype(self.dtype) if a.dtype.kind == "f" else a for a in arrays)
        if self.device == "cpu" and self.dtype != "bfloat16":
            inputs[True] = arrays
        calls = {"boxops": case.ours, **({} if case.tensors_only else {"boxops NumPy": case.ours}), **case.rivals}
        if case.n <= 1000 and not case.tensors_only:
            calls["NumPy"] = case.reference
        taken = {name: inputs.get(name in TAKE_ARRAYS) for name in calls if name not in ABSENT}
        rows: dict[str, timing.Call] = {
            name: partial(calls[name], *given) for name, given in taken.items() if given is not None
        }
        if case.graph and self.device == "cuda":
            rows["boxops graph"] = timing.graphed(rows["boxops"])

        ours = [name for name in OURS if name in rows]
        if not ours:
            raise ValueError("needs torch")
        result = rows[ours[0]]()
        verified = case.check(case, arrays, result)
        for name in ours[1:]:
            again = rows[name]()
            same(again if name == "boxops NumPy" else numpy_all(again), numpy_all(result))
        if case.limit == "fill":
            rows["fill"] = _filling(result)
        size = sum(a.nbytes for a in inputs[not torch]) + sum(a.nbytes for a in _flat(result))
        return rows, verified, size

    def _tensor(self, array: np.ndarray) -> Any:
        dtype = getattr(torch, self.dtype) if array.dtype.kind == "f" else None
        return torch.as_tensor(array).to(self.device, dtype)

    def _alternate(self, rows: Mapping[str, timing.Call], seconds: float, rounds: tuple[int, int]) -> dict[str, Any]:
        """Blocks of every row in turn, so that a slow spell of the machine falls on all of them."""
        costs = {name: timing.cost(call) for name, call in rows.items()}
        # A block is long enough (1 ms) for the clock to be exact; a slow call is a block of its own.
        numbers = {name: max(1, round(1e-3 / cost)) for name, cost in costs.items()}
        block = {name: max(2 * cost, 1.1e-3) for name, cost in costs.items()}
        turns = int(min(max(seconds / 2 / sum(block.values()), rounds[0]), rounds[1]))
        part = seconds / turns / len(rows)
        times: dict[str, list[list[float]]] = {name: [] for name in rows}
        for _ in range(turns):
            for name, call in rows.items():
                blocks = int(min(max(part / block[name], 1), 20))
                times[name].append(self.timer(call, numbers[name], blocks))
        return {name: _statistics(taken) for name, taken in times.items()}


def _statistics(rounds: list[list[float]]) -> dict[str, Any]:
    blocks = np.concatenate(rounds)
    q1, median, q3 = (float(q) for q in np.percentile(blocks, (25, 50, 75)))
    medians = [float(np.median(times)) for times in rounds]
    return {"median": median, "q1": q1, "q3": q3, "min": float(blocks.min()), "blocks": len(blocks), "rounds": medians}


def _filling(result: Any) -> timing.Call:
    if torch and isinstance(result, torch.Tensor):
        return partial(torch.full, result.shape, 1.0, dtype=result.dtype, device=result.device)
    return partial(np.full, result.shape, 1.0, result.dtype)


def _flat(result: Any) -> Iterator[Any]:
    yield from result if isinstance(result, (tuple, list)) else (result,)


def numpy_all(result: Any) -> Any:
    return tuple(numpy(r) for r in result) if isinstance(result, (tuple, list)) else numpy(result)
