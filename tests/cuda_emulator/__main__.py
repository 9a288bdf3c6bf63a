"""python tests/cuda_emulator [plain|asan|race] [pytest arguments]: builds a variant and runs the tests in it.

By default these are all tests of CUDA kernels, in the plain build. One that is named runs its part of them: plain the
other dtypes than float32; race float32; asan that, and the CPU kernels.

python tests/cuda_emulator counters [--help]: counts what representative calls ask of a GPU (counters.py).
"""

import os
import pathlib
import subprocess
import sys
import tempfile

SMALL = ("float16", "int8", "int16", "int32", "int64")  # uint too
TESTS = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

import cuda_emulator  # noqa: E402
from cuda_emulator import counters  # noqa: E402


def main(arguments):
    if "BOXOPS_EMULATOR" not in os.environ:
        if arguments[:1] == ["counters"]:
            return count(arguments[1:])
        if not arguments:
            arguments = ["-k", "emulated-cuda", str(TESTS)]
        variant = arguments.pop(0) if arguments[0] in cuda_emulator.VARIANTS else "plain"
        print(f"built {cuda_emulator.build(variant, '_numpy_ops')}", flush=True)
        os.execve(sys.executable, [sys.executable, __file__, *arguments], cuda_emulator.environment(variant))

    # Stands in for the real module: there need be none, and NumPy arrays go through sanitized code as well.
    sys.modules["boxops._numpy_ops"] = cuda_emulator.module()
    if counters.VARIABLE in os.environ:
        return counters.main(arguments)

    import pytest

    # Storage types differ in load() and store() alone, and float64 runs the lines of float32: once is enough. On the
    # CPU float64 has vectors of another length. How much memory is used says nothing in a sanitizer.
    small, variant = " or ".join(SMALL), os.environ["BOXOPS_EMULATOR"]
    backends = f"emulated-cuda and {'' if variant == 'plain' else 'not '}({small} or float64)"
    if variant == "asan":
        backends = f"({backends}) or numpy and not (memory or {small})"
    # Sanitizers write to stderr as the process dies: pytest must not keep that to itself.
    apart = ("test_torch*", "test_derivatives.py", "detectors")  # torch's operators are not here
    fixed = ["--capture=sys", *(f"--ignore-glob={TESTS / name}" for name in apart)]
    return pytest.main([*fixed, *(arguments or ["-k", backends, str(TESTS)])])


def count(arguments):
    """The kernels of the race build tell of every access; here nobody looks for races."""
    cuda_emulator.build("race", "_numpy_ops")
    with tempfile.NamedTemporaryFile() as file:
        variables = {**cuda_emulator.environment("race"), counters.VARIABLE: file.name}
        return subprocess.run([sys.executable, __file__, *arguments], env=variables).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
