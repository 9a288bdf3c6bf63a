"""The division of csrc/core/common/divide.h, against the processor's own."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent
INCLUDES = [f"-I{ROOT / 'csrc' / folder}" for folder in ("core", "include")]


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_rounds_as_ieee_754_says(tmp_path):
    """tests/cpp/divide_test.cpp says how it proves that; without fused multiply-adds it tries a part."""
    flags = ["-std=c++17", "-O2", "-march=native", "-ffp-contract=off", *INCLUDES]
    macros = subprocess.run(["g++", *flags, "-E", "-dM", "-xc++", "/dev/null"], capture_output=True, text=True)
    step = 1 if "__FP_FAST_FMAF" in macros.stdout else 64
    program = tmp_path / "divide_test"
    source = ROOT / "tests" / "cpp" / "divide_test.cpp"
    subprocess.run(["g++", *flags, source, "-o", program], check=True, timeout=120)
    done = subprocess.run([program, str(step), str(step - 1)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert int(done.stdout.split()[0]) > 46_000_000 / step * 0.9, done.stdout
