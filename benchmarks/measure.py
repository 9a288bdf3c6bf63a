"""One case: boxops verified, its rivals verified, then all timed in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from . import timing
from .case import Case, Rival, Wrong, differing, numpy, same
from .machine import ABSENT, rival

TOO_LONG = 2.0  # seconds: what --quick always has for a call
SLOW = 0.02  # seconds: such a call needs no warming up for the clock
OURS = ("boxops", "boxops NumPy", "boxops graph")
ANSWERS = 0.01  # a rival that differs from boxops in more of its values does other work, and is not compared
# Rows that take arrays; all others take tensors. On CUDA the second kind takes tensors, and copies them to the host.
TAKE_ARRAYS = {"boxops NumPy", "NumPy", "powerboxes", "lsnms", "pycocotools", "shapely", "onnxruntime", "OpenCV",
               "supervision", "SAHI"}  # fmt: skip
TAKE_BOTH = {"SciPy", "lap", "lapx", "ensemble-boxes"}

torch = rival("torch")


class Bench:
    def __init__(self, case: Case, device: str, dtype: str, threads: int, bandwidth: Mapping[str, float]) -> None:
        self.case, self.device, self.dtype, self.bandwidth = case, device, dtype, bandwidth
        self.timer: timing.Timer = partial(timing.torch_times, threads=threads) if torch else timing.wall_times
        if device == "cuda" and case.n > 1:  # for one box the cost of the call is the question, and that is host time
            self.timer = timing.CudaTimer()

    def run(self, seconds: float, rounds: tuple[int, int], most: float) -> dict[str, Any]:
        """Times the case for about `seconds`; slow calls in so many rounds, or in one where these would take `most`."""
        case = self.case
        result: dict[str, Any] = {"name": case.name, "op": case.op, "label": case.label, "n": case.n}
        result |= {"variant": case.variant, "error": None}
        try:
            rows, ours, result["verified"], result["bytes"] = self._verified_rows()
        except Exception as error:
            kind = "wrong result" if isinstance(error, Wrong) else type(error).__name__
            return result | {"error": f"{kind}: {error}"}
        own, failed, differs = self._rivals(rows, ours, max(most, TOO_LONG))
        timings, turns = self._alternate(rows, seconds, rounds, most)
        fill = timings.pop("fill", None)
        mine = next(name for name in OURS if name in timings)
        speed = result["bytes"] / timings[mine]["median"]
        ratios = {name: timings[name]["median"] / timings[own[name]]["median"] for name in own}
        goal = {"rival": case.goal[0], "ratio": case.goal[1], "met": None}
        if case.goal[0] in ratios:
            goal["met"] = ratios[case.goal[0]] >= case.goal[1]
        of_limit = fill["median"] / timings[mine]["median"] if fill else speed / self.bandwidth["copy"]
        result |= {"rate": speed, "limit": case.limit, "of_limit": of_limit, "fill": fill, "turns": turns}
        result |= {"ours": mine, "timings": timings, "ratios": ratios, "goal": goal}
        return result | {"failed": failed, "differs": differs}

    def _inputs(self) -> dict[bool, Any]:
        """The tensors at False, the arrays at True: those that there are."""
        arrays, inputs = self.case.make(), {}
        if torch:
            inputs[False] = tuple(self._tensor(array) for array in arrays)
            arrays = tuple(numpy(t.float() if t.dtype == torch.bfloat16 else t) for t in inputs[False])
        else:
            arrays = tuple(a.astype(self.dtype) if a.dtype.kind == "f" else a for a in arrays)
        self.arrays = arrays
        if self.device == "cpu" and self.dtype != "bfloat16":
            inputs[True] = arrays
        return inputs

    def _verified_rows(self) -> tuple[dict[str, timing.Call], Any, str, int]:
        """The calls of boxops, its result, what was verified, and the bytes that must move: in and out, once each."""
        case, inputs = self.case, self._inputs()
        self.inputs = inputs
        rows: dict[str, timing.Call] = {}
        if torch:
            rows["boxops"] = partial(case.ours, *inputs[False])
        if True in inputs and not case.tensors_only:
            rows["boxops NumPy"] = partial(case.ours, *inputs[True])
        if case.graph and self.device == "cuda":
            rows["boxops graph"] = timing.graphed(rows["boxops"])
        if not rows:
            raise ValueError("needs torch")
        results = {name: call() for name, call in rows.items()}
        first, *others = results
        verified = case.check(case, self.arrays, results[first])
        for name in others:
            same(results[name] if name == "boxops NumPy" else numpy_all(results[name]), numpy_all(results[first]))
        if case.limit == "fill":
            rows["fill"] = _filling(results[first])
        size = sum(a.nbytes for a in inputs[not torch]) + sum(a.nbytes for a in _flat(results[first]))
        return rows, results[first], verified, size

    def _rivals(
        self, rows: dict[str, timing.Call], ours: Any, most: float = math.inf
    ) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        """Adds the rivals that give boxops' answer. The row each is compared with; who fails; who differs a little."""
        case, own, failed, differs = self.case, {}, {}, {}
        rivals: dict[str, Any] = dict(case.rivals)
        if case.n <= 1000 and not case.tensors_only:
            rivals.setdefault("NumPy", case.reference)
        for name in [name for name in rivals if name not in ABSENT]:
            arrays = name in TAKE_ARRAYS or (name in TAKE_BOTH and True in self.inputs)
            if arrays not in self.inputs:
                continue
            rival = rivals[name] if isinstance(rivals[name], Rival) else Rival(rivals[name])
            begin = time.perf_counter()
            try:
                given = self.inputs[arrays]
                call = partial(rival.call, *(rival.given(*given) if rival.given else given))
                answer = call()
                theirs, mine = rival.answer(answer, ours) if rival.answer else (answer, ours)
                wrong, of = differing(theirs, mine, self.dtype)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # a panic of Rust is no Exception
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            if (seconds := time.perf_counter() - begin) > most:
                failed[name] = f"its first call took {seconds:.1f} s, more than --quick has for it"
                continue
            share = f"{wrong:,} of {of:,} values"
            if wrong > ANSWERS * of:
                failed[name] = f"another answer, so not compared: {share} differ"
                continue
            if wrong:
                differs[name] = share
            rows[name] = call
            # Like with like: arrays with arrays.
            alike = "boxops NumPy" if arrays and "boxops NumPy" in rows else next(row for row in OURS if row in rows)
            own[name] = alike
        return own, failed, differs

    def _tensor(self, array: np.ndarray) -> Any:
        dtype = getattr(torch, self.dtype) if array.dtype.kind == "f" else None
        return torch.as_tensor(array).to(self.device, dtype)

    def _alternate(
        self, rows: Mapping[str, timing.Call], seconds: float, rounds: tuple[int, int], most: float
    ) -> tuple[dict[str, Any], int]:
        """Blocks of every row in turn, so that a slow spell of the machine falls on all of them."""
        costs = {name: timing.cost(call) for name, call in rows.items()}
        # A block is long enough (1 ms) for the clock to be exact; a slow call is a block of its own.
        numbers = {name: max(1, round(1e-3 / cost)) for name, cost in costs.items()}
        block = {name: cost if cost > SLOW else max(2 * cost, 1.1e-3) for name, cost in costs.items()}
        turn = sum(block.values())
        turns = int(min(max(seconds / 2 / turn, rounds[0]), rounds[1]))
        if turns * turn > max(most, TOO_LONG):
            turns = 1
        part = seconds / turns / len(rows)
        times: dict[str, list[list[float]]] = {name: [] for name in rows}
        for _ in range(turns):
            for name, call in rows.items():
                blocks = int(min(max(part / block[name], 1), 20))
                slow = costs[name] > SLOW and not isinstance(self.timer, timing.CudaTimer)
                times[name].append(timing.slow_times(call, blocks) if slow else self.timer(call, numbers[name], blocks))
        return {name: _statistics(taken) for name, taken in times.items()}, turns


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
