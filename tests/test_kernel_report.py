"""tools/kernel_report: what it reads of the CUDA compiler, and modelled times that can be reckoned by hand."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).parent.parent / "tools"
KERNEL = """
namespace {
template <class T>
__global__ void __launch_bounds__(96) sum_kernel(const T* in, int n, T* out) {
  __shared__ T parts[96];
  T sum = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += 96) sum += in[i];
  parts[threadIdx.x] = sum;
  __syncthreads();
  out[threadIdx.x] = sum + parts[95 - threadIdx.x];
}
}
void launch(const float* in, float* out) { sum_kernel<<<1, 96>>>(in, 1000, out); }
"""
# What counters.py tells of a launch.
NOTHING = {"blocks": 1, "threads": 32, "dynamic_shared_bytes": 0, "instructions": 0, "chain": 0, "chains": [0]}
NOTHING |= {"bytes_read": 0, "bytes_written": 0, "sites": []}


@pytest.fixture
def kernel_time(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    import kernel_time

    return kernel_time


def test_resident_blocks(kernel_time):
    """As the occupancy calculator has it: threads, registers, shared memory, or 32 blocks are the limit."""
    resident = kernel_time.resident
    assert [resident(256), resident(1024), resident(32), resident(65)] == [8, 2, 32, 21]
    assert [resident(256, 80), resident(128, 44), resident(512, 56), resident(1024, 64)] == [3, 10, 2, 1]
    assert [resident(256, 32, 17408), resident(256, 32, 100_000), resident(64, 26, 2048)] == [8, 2, 32]


@pytest.mark.parametrize(
    ("launch", "bound", "us"),
    [
        ({"bytes_read": 2_000_000, "bytes_written": 900_000}, "dram", 1),
        ({"chains": [1755]}, "chain", 1),
        ({"chains": [1755] * 132 * 32 * 2}, "chain", 2),
        ({"chains": [1755] * 132 * 32 + [1]}, "chain", 1756 / 1755),
        ({"instructions": 1755 * 4 * 0.85}, "issue", 1),
        ({"instructions": 1755 * 4 * 0.85 * 133, "blocks": 133}, "issue", 2),
        ({"sites": [{"wavefronts": 1755}, {"wavefronts": 1755}]}, "wavefronts", 2),
    ],
)
def test_modelled_times(kernel_time, launch, bound, us):
    time = kernel_time.model({**NOTHING, **launch})
    assert time.bound == bound
    assert time.us == pytest.approx(us)


def test_blocks_in_turn(kernel_time, monkeypatch):
    """In two places: 4, 3, 6 and 2, 3, 2; the mean of both is 10."""
    launch = {**NOTHING, "threads": 1024, "chains": [4, 2, 3, 3, 2, 6]}
    assert kernel_time.places(launch) == 264
    assert kernel_time.busiest(launch) == pytest.approx(6 / (20 / 6)), "a block each"
    monkeypatch.setattr(kernel_time, "MULTIPROCESSORS", 1)
    assert kernel_time.makespan(launch["chains"], kernel_time.places(launch)) == 13
    assert kernel_time.busiest(launch) == pytest.approx(13 / 10)


def report(*arguments):
    return subprocess.run([sys.executable, TOOLS / "kernel_report", *arguments], capture_output=True, text=True)


def test_times_are_marked_as_modelled(tmp_path):
    launch = {**NOTHING, "name": "sum_kernel<float>", "operations": 1, "chains": [17550]}
    copy = {"name": "cudaMemsetAsync", "operations": 1}
    (tmp_path / "counted.json").write_text(json.dumps({"a call": [copy, launch]}))
    done = report("--counters", tmp_path / "counted.json")
    assert done.returncode == 0, done.stderr
    assert "MODELLED" in done.stdout
    assert "10.0 + 2 operations x 2 = 14" in done.stdout


def test_modelled_beside_measured(tmp_path):
    """A case's graph is what was measured, where there is one; cases that were not counted are left out."""
    launch = {**NOTHING, "name": "sum_kernel<float>", "operations": 1, "chains": [17550]}
    graph = {"boxops": {"median": 1.0}, "boxops graph": {"median": 24e-6}, "torchvision": {"median": 2.0}}
    bench = {"machine": {"device": "a GPU"}, "cases": []}
    bench["cases"] += [{"name": name, "timings": graph} for name in ("sum of 1,000", "sum of 7")]
    (tmp_path / "counted.json").write_text(json.dumps({"sum of 1,000": [launch]}))
    (tmp_path / "bench.json").write_text(json.dumps(bench))
    done = report("--counters", tmp_path / "counted.json", "--measured", tmp_path / "bench.json")
    assert done.returncode == 0, done.stderr
    assert "measured (a GPU)" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if "sum of" in line)
    assert row.split()[3:] == ["1", "12.0", "24.0", "0.50", "sum_kernel<float>,", "chain"]


@pytest.mark.skipif(not shutil.which("nvcc"), reason="needs nvcc")
def test_what_the_compiler_says(tmp_path):
    (tmp_path / "sum.cu").write_text(KERNEL)
    done = report(tmp_path / "sum.cu", "--json", tmp_path / "kernels.json")
    assert done.returncode == 0, done.stderr
    assert "sum_kernel<float>" in done.stdout
    (kernel,) = json.loads((tmp_path / "kernels.json").read_text())
    assert 0 < kernel["registers"] < 64
    assert (kernel["file"], kernel["name"]) == ("sum.cu", "sum_kernel<float>")
    assert (kernel["shared_bytes"], kernel["spilled_bytes"]) == (384, 0)
    if "loops" not in kernel:
        pytest.skip("nvdisasm was not found")
    assert kernel["threads"] == 96
    (loop,) = kernel["loops"]
    assert 5 < loop < 20 < kernel["instructions"]
