"""The CUDA emulator itself: right programs give right results in any order, and planted faults are reported."""

import functools
import pathlib
import re
import subprocess

import cases
import cuda_emulator
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not cuda_emulator.can_build(), reason="the CUDA emulator needs cmake and g++")
RIGHT = (
    *("tiled_sum", "dynamic_reverse", "histogram", "atomics", "last_block", "block_votes"),
    *("ballot_compact", "shuffle_scan", "warp_intrinsics", "syncwarp_exchange", "clusters"),
)


@functools.cache
def programs(variant):
    return cuda_emulator.build(variant, "programs") / "programs"


def run(variant, name, seed=1, count=1):
    return subprocess.run([programs(variant), name, str(seed), str(count)], capture_output=True, text=True, timeout=120)


@functools.cache
def marked(name):
    """The places "file.cu:line" of the fault's comments, // FAULT name."""
    files = sorted((pathlib.Path(cuda_emulator.__file__).parent / "faults").glob("*.cu"))
    lines = [(file.name, i, line) for file in files for i, line in enumerate(file.read_text().splitlines(), 1)]
    places = [f"{file}:{i}" for file, i, line in lines if re.search(rf"// FAULT {name}\b", line)]
    assert places, f"no line is marked with {name}"
    return places


@pytest.fixture(scope="module", params=cuda_emulator.VARIANTS)
def variant(request):
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_right_under_every_seed(variant, name):
    done = run(variant, name, seed=1, count=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"] * 100


def test_grid_of_nms(variant):
    """Scenes of all kinds, beside the definition."""
    done = run(variant, "nms_grid", seed=1, count=4)
    assert (done.returncode, done.stdout) == (0, "0\n" * 4), done.stderr


def test_sorts(variant):
    """Of few by counting, of more in tiles, beside the standard library's."""
    done = run(variant, "sorts")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nms_mask", "no_barriers"])
def test_many_threads(variant, name):
    done = run(variant, name)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("early_return", "divergent barrier"),
        ("two_barriers", "divergent barrier"),
        ("trap", "__trap"),
        ("left_lane", "mask names a lane that has left"),
        ("foreign_mask", "mask does not name the caller"),
        ("mixed_intrinsics", "lanes meet at different intrinsics"),
        ("block_and_cluster", r"divergent barrier: .*__syncthreads.*, but .*__cluster_barrier_wait"),
        ("barrier_and_warp", "lanes meet at different intrinsics|divergent barrier|mask names a lane that has left"),
    ],
)
def test_threads_that_do_not_meet(variant, name, words):
    for seed in range(20):
        done = run(variant, name, seed)
        assert done.returncode == 3
        assert re.search(words, done.stderr), done.stderr
        assert f"{name}_kernel" in done.stderr
        assert re.search(r"thread \(\d+, 0, 0\).*\n  in block \(0, 0, 0\)", done.stderr), done.stderr
        assert f"BOXOPS_EMULATOR_SEED={seed}" in done.stderr
        assert any(place in done.stderr for place in marked(name)), done.stderr
        assert done.stdout in done.stderr  # what cudaGetErrorString says


def test_lanes_that_the_block_does_not_have():
    done = run("plain", "absent_lane")
    assert done.returncode == 3
    assert "lanes 0xffffff00, which the block does not have" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("missing_syncthreads", "shared"),
        ("missing_second_barrier", "shared"),
        ("missing_syncwarp", "shared"),
        ("racing_blocks", "global"),
        ("plain_and_atomic", "global"),
        ("racing_bytes", "global"),
        ("missing_fence", "global"),
        ("missing_cluster_barrier", "global"),
        ("foreign_cluster", "global"),
    ],
)
def test_races(name, memory):
    """Under every seed something is found, and under some both lines of the race."""
    reports = []
    for seed in range(20):
        done = run("race", name, seed)
        assert done.returncode == 3, f"seed {seed} found nothing"
        reports.append(done.stderr)
    races = [report for report in reports if f"race on {memory} memory" in report]
    assert races, reports
    for report in races:
        assert f"{name}_kernel" in report
        assert (
            len(re.findall(r"thread \(\d+, 0, 0\) .*?(?:reads|writes|atomically changes) it, \S+:\d+", report)) == 2
        ), report
        assert set(re.findall(r"\w+\.cu:\d+", report)) <= set(marked(name)), report
    assert any(set(re.findall(r"\w+\.cu:\d+", report)) == set(marked(name)) for report in races), races


@pytest.mark.slow
def test_uninitialised_shared_memory():
    done = run("race", "uninitialised_shared")
    assert done.returncode == 3
    assert "uninitialised shared memory: thread (63, 0, 0) reads" in done.stderr
    assert marked("uninitialised_shared")[0] in done.stderr


def test_uninitialised_shared_memory_is_noise():
    """Where reads are not watched, shared memory at least holds something that spoils results."""
    assert run("plain", "uninitialised_shared").stdout == f"{0x7E7E7E7E}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shared_overflow", "AddressSanitizer: global-buffer-overflow"),
        ("dynamic_overflow", "AddressSanitizer: heap-buffer-overflow"),
        ("global_overflow", "AddressSanitizer: heap-buffer-overflow"),
        ("misaligned", "runtime error: .*misaligned address"),
    ],
)
def test_bounds(name, words):
    done = run("asan", name)
    assert done.returncode != 0
    assert re.search(words, done.stderr), done.stderr
    assert marked(name)[0] in done.stderr


def test_order_shows_in_the_result():
    """The same seed gives the same bits; an order-dependent kernel gives others under other seeds."""
    results = run("plain", "order_dependent_sum", seed=1, count=20).stdout.split()
    assert results == run("plain", "order_dependent_sum", seed=1, count=20).stdout.split()
    assert len(set(results)) > 3


# What no public function reaches for NumPy arrays, or no case is large enough for. The id makes
# `python tests/cuda_emulator` pick these with the cases.
emulated = pytest.mark.parametrize("kernels", ["emulated-cuda"], indirect=True)


@pytest.fixture
def kernels():
    return cuda_emulator.module() or pytest.skip("the CUDA emulator is not built")


def random_boxes(rng, count, dtype="float32"):
    corners = rng.uniform(0, 100, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(1, 30, (count, 2))], axis=1).astype(dtype)


@emulated
@pytest.mark.parametrize("measure", cases.PAIRWISE)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-12)])
def test_gradients_are_those_of_the_cpu(kernels, measure, dtype, tolerance):
    rng = np.random.default_rng(0)
    for n, m, paired in [(33, 70, False), (1, 9, False), (257, 65, False), (40, 40, True)]:
        boxes1, boxes2 = random_boxes(rng, n, dtype), random_boxes(rng, m, dtype)
        boxes2[0] = boxes1[0]
        grad = rng.uniform(-1, 1, n if paired else (n, m)).astype(dtype)
        options = (measure, paired, "xyxy", 1e-7, False)
        want = kernels.iou_backward(grad, boxes1, boxes2, *options)
        got = kernels.iou_backward(*map(cuda_emulator.DeviceArray, (grad, boxes1, boxes2)), *options)
        for g, w in zip(map(cuda_emulator.to_host, got), want, strict=True):
            np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


@emulated
def test_compaction_goes_round_more_than_once(kernels):
    boxes = random_boxes(np.random.default_rng(0), 20_000)
    got = kernels.remove_small_boxes(cuda_emulator.DeviceArray(boxes), 15.0)
    np.testing.assert_array_equal(cuda_emulator.to_host(got), kernels.remove_small_boxes(boxes, 15.0))


@emulated
@pytest.mark.parametrize(
    ("name", "threshold"), [("batched_nms", 0.45), ("batched_nms", 0.05), ("batched_rotated_nms", 0.45)]
)
def test_very_many_boxes(kernels, name, threshold):
    """As many as nms_grid is for, csrc/core/nms/many.cuh: with a grid; with too low a threshold for one; rotated."""
    rng = np.random.default_rng(0)
    count = (1 << 14) + 70
    boxes = random_boxes(rng, count) + rng.integers(0, 20, (count, 1)).astype(np.float32) * 60
    if "rotated" in name:
        boxes = np.concatenate(
            [boxes[:, :2], boxes[:, 2:] - boxes[:, :2], rng.uniform(-90, 90, (count, 1))], 1, dtype=np.float32
        )
    scores, groups = rng.integers(0, 5000, count).astype(np.float32), rng.integers(0, 3, count)
    got = getattr(kernels, name)(*map(cuda_emulator.DeviceArray, (boxes, scores, groups)), threshold)
    np.testing.assert_array_equal(cuda_emulator.to_host(got), getattr(kernels, name)(boxes, scores, groups, threshold))


@emulated
def test_devices_without_clusters(kernels, monkeypatch):
    monkeypatch.setenv("BOXOPS_EMULATOR_PTX", "80")
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, 1500), rng.random(1500, np.float32)
    options = (0.3, "gaussian", 0.5, 0.001, None)
    got = kernels.soft_nms(*map(cuda_emulator.DeviceArray, (boxes, scores)), *options)
    for g, w in zip(map(cuda_emulator.to_host, got), kernels.soft_nms(boxes, scores, *options), strict=True):
        np.testing.assert_array_equal(g, w)


@pytest.mark.slow
@pytest.mark.parametrize("variant", cuda_emulator.VARIANTS)
def test_every_case_of_every_kernel(emulator_runs, variant):
    """What a person would run as `python tests/cuda_emulator race`."""
    process, log = emulator_runs[variant]
    process.wait(timeout=3600)
    report = log.read_text()
    assert process.returncode == 0, report[-5000:]
    assert int(re.search(r"(\d+) passed", report)[1]) > 500, report[-5000:]
