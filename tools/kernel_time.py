"""Microseconds that a launch would take on an H100, modelled from what the emulator counted.

How far it was off: docs/cuda-counters.md.

A launch takes as long as the slowest of four things that overlap:
  issue       the instructions of its warps, as x86 code has them: nvcc's can be half or twice as many
  wavefronts  what goes through L1 and shared memory, one wavefront a cycle in each multiprocessor
  DRAM        each sector that is read or written, once
  chain       the slowest block alone; where more are waiting than fit, all in their order, each as one before it ends
"""

import heapq
from typing import Any, NamedTuple

# NVIDIA H100 SXM5: "NVIDIA H100 Tensor Core GPU Architecture" (white paper, 2022), tables 1 to 3; the boost clock.
MULTIPROCESSORS, SCHEDULERS, CYCLES_PER_US = 132, 4, 1755.0
THREADS, BLOCKS, REGISTERS, SHARED_BYTES = 2048, 32, 65536, 227 << 10  # of a multiprocessor
# Assumed: of 3.35 TB/s, what a copy reaches; of one instruction per scheduler and cycle, what kernels without stalls
# reach; what an operation costs between its neighbours in a stream.
BYTES_PER_US, ISSUED, LAUNCH_US = 2.9e6, 0.85, 2.0


class Time(NamedTuple):
    issue: float
    wavefronts: float
    dram: float
    chain: float

    @property
    def us(self) -> float:
        return max(self)

    @property
    def bound(self) -> str:
        return self._fields[self.index(max(self))]


def resident(threads: int, registers: int = 0, shared_bytes: int = 0) -> int:
    """The blocks that a multiprocessor holds at a time, by the rules of CUDA's occupancy calculator for sm_90.

    Registers go by 8 to a thread; of shared memory a block takes 1 KB more than it asks for.
    """
    warps = -(-threads // 32)
    limits = [BLOCKS, THREADS // (warps * 32), SHARED_BYTES // (-(-shared_bytes // 128) * 128 + 1024)]
    if registers:
        limits.append(REGISTERS // (-(-registers // 8) * 8 * 32) // warps)
    return max(1, min(limits))


def makespan(chains: list[float], at_once: int) -> float:
    """When the last block is done, if so many run at a time and the next in order begins where one ends."""
    ends = [0.0] * min(at_once, len(chains))
    for chain in chains:
        heapq.heapreplace(ends, ends[0] + chain)
    return max(ends)


def places(launch: dict[str, Any], registers: int = 0, shared_bytes: int = 0) -> int:
    """How many of a launch's blocks run at a time."""
    return MULTIPROCESSORS * resident(launch["threads"], registers, shared_bytes + launch["dynamic_shared_bytes"])


def busiest(launch: dict[str, Any], registers: int = 0, shared_bytes: int = 0) -> float:
    """How much longer than the mean the blocks take that follow each other in the place that is done last."""
    chains = launch["chains"]
    at_once = min(places(launch, registers, shared_bytes), len(chains))
    return makespan(chains, at_once) * at_once / sum(chains)


def model(launch: dict[str, Any], registers: int = 0, shared_bytes: int = 0) -> Time:
    """The time of a launch of tests/cuda_emulator/counters.py, with what the compiler says of its kernel, if known."""
    blocks = launch["blocks"]
    share = -(-blocks // MULTIPROCESSORS) / blocks  # of all work, the share of the busiest multiprocessor
    wavefronts = sum(site["wavefronts"] for site in launch["sites"])
    return Time(
        issue=launch["instructions"] * share / (SCHEDULERS * ISSUED) / CYCLES_PER_US,
        wavefronts=wavefronts * share / CYCLES_PER_US,
        dram=(launch["bytes_read"] + launch["bytes_written"]) / BYTES_PER_US,
        chain=makespan(launch["chains"], places(launch, registers, shared_bytes)) / CYCLES_PER_US,
    )
