"""`boxops bench --busy`: one thread and all of torch's, idle and beside a busy process, at sizes where threads may pay.

Calls are made a while apart, as a program makes them: called in a row, threads would not fall asleep.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import harness, timing
from .case import Case, torch
from .machine import facts
from .report import duration, times
from .terminal import Cell, print_table

WORK = (15e-6, 20e-3)  # seconds on one thread of the cases that are of interest
PAUSE = 8e-3  # longer than threads of OpenMP look out for more work before they sleep
COLUMNS = ("case", "threads", "idle: 1", "idle: all", "gain", "busy: 1", "busy: all", "slowest tenth", "gain")


@contextlib.contextmanager
def busy_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that computes, stopped to begin with."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.wait()


def one_call(call: timing.Call, threads: int) -> tuple[float, float]:
    """Seconds of a call after a pause, and the processor time of threads other than this one."""
    torch.set_num_threads(threads)
    time.sleep(PAUSE)
    begin, own, all_threads = time.perf_counter(), time.thread_time(), time.process_time()
    call()
    end = time.perf_counter()
    return end - begin, (time.process_time() - all_threads) - (time.thread_time() - own)


def measure(call: timing.Call, threads: int, process: subprocess.Popen[bytes], rounds: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    others = []
    for state in ("idle", "busy"):
        process.send_signal(signal.SIGSTOP if state == "idle" else signal.SIGCONT)
        taken: dict[str, list[float]] = {"serial": [], "threaded": []}
        for _ in range(rounds):
            taken["serial"].append(one_call(call, 1)[0])
            seconds, other = one_call(call, threads)
            taken["threaded"].append(seconds)
            others.append(other)
        for name, all_times in taken.items():
            median, p90 = (float(np.percentile(all_times, q)) for q in (50, 90))
            row[f"{state} {name}"] = {"median": median, "mean": float(np.mean(all_times)), "p90": p90}
    process.send_signal(signal.SIGSTOP)
    return row | {"threads taken": float(np.median(others)) > 5e-6}


def calls(cases: Sequence[Case]) -> Iterator[tuple[Case, timing.Call]]:
    """The cases whose work is neither that of the call itself nor so much that threads pay in any case."""
    for case in cases:
        if case.n == 1 or case.tensors_only:
            continue
        tensors = tuple(torch.as_tensor(a.astype(np.float32) if a.dtype.kind == "f" else a) for a in case.make())
        call = partial(case.ours, *tensors)
        call()
        if WORK[0] <= min(timing.cost(call) for _ in range(3)) <= WORK[1]:
            yield case, call


def run(cases: Sequence[Case], threads: int, quick: bool = False) -> dict[str, Any]:
    """Everything measured, ready for JSON."""
    if not torch:
        raise ValueError("expected torch for --busy, got none")
    if threads < 2:
        raise ValueError(f"expected --threads >= 2 with --busy, got {threads}")
    torch.set_num_threads(1)
    machine = facts("cpu", threads)
    rows = []
    with busy_process() as process:
        for case, call in calls([c for c in cases if not c.heavy]):
            row = measure(call, threads, process, 5 if quick else 15)
            rows.append({"name": case.name, "op": case.op, "n": case.n} | row)
    return {"schema": harness.SCHEMA, "machine": machine, "busy": rows}


def show(result: dict[str, Any]) -> None:
    table: list[list[Cell]] = []
    for row in sorted(result["busy"], key=lambda row: row["idle serial"]["median"]):
        cells = [row["name"], "taken" if row["threads taken"] else ""]
        for state in ("idle", "busy"):
            serial, threaded = row[f"{state} serial"], row[f"{state} threaded"]
            cells += [duration(serial["median"]), duration(threaded["median"])]
            cells += [duration(threaded["p90"])] * (state == "busy")
            cells.append(times(serial["median"] / threaded["median"]))
        table.append([(cell, "ours" if i == 4 else "") for i, cell in enumerate(cells)])
    print_table("one thread and all of torch's, idle and beside a busy process", COLUMNS, table)
    machine = result["machine"]
    print(f"{machine['device']}, {machine['threads']} threads, load {machine['load']:.2f} before")
