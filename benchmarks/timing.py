"""How a call is timed, and how fast this machine moves memory.

A timer is a function (call, number, blocks) -> the seconds per call of each block of `number` calls.
"""

from __future__ import annotations

import logging
import statistics
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from .machine import rival

# torch.utils.benchmark looks for a compiler, and warns where it finds CUDA's but no GPU: no matter here.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
torch = rival("torch")
benchmark = rival("torch.utils.benchmark")

Call = Callable[[], Any]
Timer = Callable[[Call, int, int], list[float]]


def wall_times(call: Call, number: int, blocks: int) -> list[float]:
    """Wall time without torch."""
    timer = timeit.Timer(call)
    timer.timeit(1)  # brings code and data back into the caches after the turn of a rival
    return [timer.timeit(number) / number for _ in range(blocks)]


def slow_times(call: Call, blocks: int) -> list[float]:
    """Wall time of single calls that need no warming up."""
    return [timeit.timeit(call, number=1) for _ in range(blocks)]


def torch_times(call: Call, number: int, blocks: int, threads: int) -> list[float]:
    """Wall time by torch.utils.benchmark, which warms up before each block and, on CUDA, waits for the device."""
    timer = benchmark.Timer("call()", globals={"call": call}, num_threads=threads)
    if number == 1:  # warms up with one call, where timeit takes two
        return [timer.blocked_autorange(min_run_time=1e-9).median for _ in range(blocks)]
    return [timer.timeit(number).median for _ in range(blocks)]


def warm_time(call: Call, seconds: float = 0.2) -> float:
    """Median seconds of the calls that fit into so many, one at least, after a first one that does not count."""
    timer = benchmark.Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
    median: float = timer.blocked_autorange(min_run_time=seconds).median
    return median


class CudaTimer:
    """Time on the device by a pair of events around each call, the L2 cache overwritten before it.

    Overwriting also keeps the device busy while the host launches, so that the launch itself is not in the time of an
    op that never waits for the device.
    """

    def __init__(self) -> None:
        size = getattr(torch.cuda.get_device_properties("cuda"), "L2_cache_size", 0) or 64 << 20
        self.cache = torch.empty(4 * size, dtype=torch.uint8, device="cuda")

    def __call__(self, call: Call, number: int, blocks: int) -> list[float]:
        count = min(number * blocks, 100)
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        call()
        for start, end in pairs:
            self.cache.zero_()
            start.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e-3 for start, end in pairs]


def cost(call: Call) -> float:
    """About how many seconds a call takes that was made before."""
    number, seconds = 1, 0.0
    while seconds < 5e-4 and number <= 1000:
        start = time.perf_counter()
        for _ in range(number):
            call()
        if torch and torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        number *= 10
    return seconds * 10 / number


def graphed(call: Call) -> Call:
    """The call captured in a CUDA graph; the result of the last replay stays in the graph's own memory."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a capture must not be the first call: workspaces and modules load lazily
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def bandwidths(device: str, threads: int, blocks: int) -> dict[str, float]:
    """Bytes per second of a large copy (read + written), and of allocating and filling a 5000 x 5000 float32 array.

    The second is the limit of an op that only writes a fresh matrix: on a CPU most of it is page faults.
    """
    timer = CudaTimer() if device == "cuda" else partial(torch_times, threads=threads) if torch else wall_times
    count = 2**28 if device == "cuda" else 2**25
    source: Any
    target: Any
    if torch:
        source, target = (torch.full((count,), 1.0, device=device) for _ in range(2))
        copy: Call = partial(target.copy_, source)
        fill: Call = partial(torch.full, (5000, 5000), 1.0, device=device)
    else:
        source, target = (np.full(count, 1.0, np.float32) for _ in range(2))
        parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
        copy = partial(_copy_parts, ThreadPoolExecutor(threads), parts)
        fill = partial(np.full, (5000, 5000), 1.0, np.float32)
    copied = statistics.median(timer(copy, 1, blocks))
    # Freed first: what is filled is then memory that a virtual machine has already got from its host.
    del source, target, copy
    filled = statistics.median(timer(fill, 1, blocks))
    return {"copy": 2 * 4 * count / copied, "fill": 4 * 5000 * 5000 / filled}


def _copy_parts(pool: ThreadPoolExecutor, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
    list(pool.map(lambda part: np.copyto(*part), parts))  # NumPy lets go of the interpreter lock while it copies
