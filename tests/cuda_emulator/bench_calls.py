"""The cases of `boxops bench` on emulated kernels: what is counted of them stands beside what a GPU was timed at."""

import functools

import numpy as np

import cuda_emulator
from cuda_emulator.calls import on_device


def as_device(array):
    """In the dtype and the order of axes in memory that a GPU is given."""
    dtype = np.float32 if array.dtype.kind == "f" else array.dtype
    axes = np.argsort([-stride for stride in array.strides], kind="stable")
    return cuda_emulator.DeviceArray(on_device(array.transpose(axes), dtype).transpose(np.argsort(axes)))


def bench_calls():
    """Those of single ops without autograd, by name."""
    import boxops
    from benchmarks import harness

    def run(case):
        case.ours(*map(as_device, case.make()))

    cases = [case for case in harness.families() if hasattr(boxops, case.op) and "backward" not in case.label]
    return {case.name: functools.partial(run, case) for case in cases}
