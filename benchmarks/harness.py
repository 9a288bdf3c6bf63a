"""Chooses cases and runs them, --quick within its time. Knows nothing of any op."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib
import itertools
import math
import pkgutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from . import timing
from .case import Case
from .machine import ABSENT, Watch, busy, facts, packages, rival
from .measure import Bench

SCHEMA = 1
# Modules that are not a family of cases.
FRAME = {"busy", "case", "detr", "harness", "machine", "measure", "models", "outputs", "page", "plots",
         "post_ours", "post_theirs", "record", "report", "specialists", "stages", "terminal", "timing",
         "yolo", "yolo_post"}  # fmt: skip
SHARE = {False: 0.25, True: 0.1}  # by --quick: seconds that timing a case takes, if none of its calls is slow
ROUNDS = {False: (3, 9), True: (2, 5)}  # by --quick: fewest and most turns that every row of a case gets
# Seconds that --quick promises. KEPT, and as many as it took to get to the first case (which tells how slow the machine
# is now), are for the last case and for what is written then.
QUICK, KEPT = 30.0, 3.0

torch = rival("torch")


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
    if quick:
        chosen = [_without_heavy_rivals(c) for c in chosen if not c.heavy]
    if not chosen:
        raise ValueError("expected cases to run, got only such that --quick leaves out")
    return chosen


def _without_heavy_rivals(case: Case) -> Case:
    rivals = {name: r for name, r in case.rivals.items() if not getattr(r, "heavy", False)}
    return dataclasses.replace(case, rivals=rivals)


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
    began: float | None = None,
    track: Callable[[Sequence[Case]], Iterable[Case]] = iter,
) -> dict[str, Any]:
    """Everything measured, ready for JSON. `began`: when the command was, on the clock of time.perf_counter."""
    now = time.perf_counter()
    end = 2 * (began or now) - now + QUICK - KEPT if quick else math.inf
    if torch:
        torch.set_num_threads(threads)
    machine, watch = facts(device, threads), Watch()
    machine["bandwidth"] = bandwidth = timing.bandwidths(device, threads, 3 if quick else 9)
    results, left_out = {}, []
    for count, case in enumerate(track(order := one_per_op(cases))):
        share = (end - time.perf_counter()) / (len(order) - count)
        if share <= 0 and results:  # whatever the machine does, one case is timed
            left_out.append(case.name)
            continue
        seconds, rounds = (SHARE[quick], ROUNDS[quick]) if share >= SHARE[quick] else (share / 2, (1, 1))
        results[case.name] = Bench(case, device, dtype, threads, bandwidth).run(seconds, rounds, 20 * share)
    machine["others"], machine["packages"] = watch.others(), packages()
    options = {"device": device, "dtype": dtype, "threads": threads, "quick": quick}
    asked = {"torch", *(name for case in cases for name in case.rivals)}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "options": options,
        "machine": machine,
        "absent": {name: reason for name, reason in ABSENT.items() if name in asked},
        "left_out": left_out,
    }
    result["cases"] = [results[case.name] for case in cases if case.name in results]
    short = [case["name"] for case in result["cases"] if case.get("turns", np.inf) < ROUNDS[quick][0]]
    result["warnings"] = busy(machine["load"], machine["others"], machine["cores"])
    if left_out:
        result["warnings"].append(
            f"--quick left out {len(left_out)} of {len(cases)} cases, for its time was up: {_counted(left_out, cases)}"
        )
    if short:
        result["warnings"].append(
            f"--quick timed {len(short)} case{'s' * (len(short) > 1)} in one turn, to keep its time: "
            f"{_counted(short, cases)}"
        )
    return result


def _counted(names: Sequence[str], cases: Sequence[Case]) -> str:
    """nms (2 of 5), box_iou (1 of 4)"""
    every = Counter(case.op for case in cases)
    some = Counter(case.op for case in cases if case.name in names)
    return ", ".join(f"{op} ({count} of {every[op]})" for op, count in some.items())


def one_per_op(cases: Iterable[Case]) -> list[Case]:
    """A case of every op, then the next of every op: when the time is up, each has had its turn.

    Some thousand boxes come first: they tell most for their time.
    """
    ops: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: abs(math.log10(case.n) - 3)):
        ops[case.op].append(case)
    return [case for some in itertools.zip_longest(*ops.values()) for case in some if case]
