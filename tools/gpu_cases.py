"""A short run of every CUDA kernel, for compute-sanitizer: a few cases of every op, and the samples of every operator.

Results are compared with the CPU kernels': integers to the bit, floating ones within rounding (the tests do more).
"""

import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests")]

import backends  # noqa: E402
import cases  # noqa: E402
import test_torch_integration  # noqa: E402

CASES_PER_OP = 8


def check(op, case):
    arguments = case.arguments("float32")
    got, want = (backend.run(op, arguments) for backend in (backends.CUDA, backends.TORCH))
    torch.testing.assert_close(
        got, want, rtol=1e-4, atol=1e-5, equal_nan=True, check_device=False, msg=lambda m: f"{op}, {case.name}: {m}"
    )


def main():
    for op, every in cases.CASES.items():
        some = [case for case in every if "float32" in case.dtypes]
        for case in some[:: max(1, len(some) // CASES_PER_OP)]:
            check(op, case)
        print(op, "ok", flush=True)
    for operator, calls in test_torch_integration.samples("cuda").items():
        for arguments in calls:
            getattr(torch.ops.boxops, operator)(*arguments)
        torch.cuda.synchronize()
        print(operator, "ok", flush=True)


if __name__ == "__main__":
    main()
