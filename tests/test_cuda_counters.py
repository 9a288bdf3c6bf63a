"""The performance counters: programs whose counts are known by hand, and what the kernels are held to."""

import functools
import inspect
import json
import os
import subprocess
import sys

import cuda_emulator
import pytest
from cuda_emulator import counters

import boxops

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not cuda_emulator.can_build(), reason="the CUDA emulator needs cmake and g++"),
]


@functools.cache
def programs():
    return cuda_emulator.build("race", "programs") / "programs"


@pytest.fixture
def counted(tmp_path):
    def run(program):
        variables = {**os.environ, counters.VARIABLE: str(tmp_path / "counted")}
        subprocess.run([programs(), program], env=variables, check=True, capture_output=True)
        return counters.read(tmp_path / "counted", programs())

    return run


# 32 warps, of which each loads and stores once.
@pytest.mark.parametrize(
    ("program", "loaded", "ideal", "stored", "bytes_read"),
    [
        ("coalesced", 4, 4, 4, 4096),
        ("coalesced_bytes", 1, 1, 1, 1024),
        ("coalesced_vectors", 16, 16, 16, 16384),
        ("strided", 32, 4, 4, 32 * 1024),
        ("broadcast", 1, 1, 4, 32),
    ],
)
def test_sectors(counted, program, loaded, ideal, stored, bytes_read):
    (launch,) = counted(program)
    load, store = launch["global load"], launch["global store"]
    assert (launch["blocks"], launch["threads"], launch["barriers"]) == (4, 256, 0)
    assert (load["requests"], load["lanes"], store["requests"], store["lanes"]) == (32, 1024, 32, 1024)
    assert (load["sectors"], load["ideal_sectors"], store["sectors"]) == (32 * loaded, 32 * ideal, 32 * stored)
    assert launch["bytes_read"] == bytes_read
    assert launch["lane_instructions"] == 32 * launch["instructions"]
    assert launch["shared load"]["requests"] == launch["global atomic"]["requests"] == 0


@pytest.mark.parametrize(
    ("program", "wavefronts"),
    [
        *(("bank_conflicts", 32), ("two_to_a_bank", 2), ("no_conflicts", 1)),
        *(("doubles", 2), ("vectors", 4), ("one_double", 1), ("one_vector", 2)),
    ],
)
def test_bank_conflicts(counted, program, wavefronts):
    (launch,) = counted(program)
    for kind in ("shared load", "shared store"):
        assert (launch[kind]["requests"], launch[kind]["wavefronts"]) == (1, wavefronts)


@pytest.mark.parametrize(
    ("program", "lanes", "sectors"), [("one_sum_each", 1, 4), ("one_sum_for_8", 8, 1), ("one_sum_for_all", 32, 1)]
)
def test_atomics(counted, program, lanes, sectors):
    (launch,) = counted(program)
    atomic = launch["global atomic"]
    assert (atomic["requests"], atomic["same_address"], atomic["sectors"]) == (32, 32 * lanes, 32 * sectors)


def test_barriers(counted):
    """Of the block with the most; every one lengthens the chain."""
    (launch,) = counted("barriers")
    assert launch["barriers"] == 5
    assert launch["chain"] > 5 * 30
    assert len(launch["chains"]) == 4
    assert sum(launch["chains"]) > (2 + 3 + 4 + 5) * 30


def test_lanes_that_part_meet_again(counted):
    (launch,) = counted("two_ways")
    store = launch["global store"]
    assert (store["requests"], store["lanes"]) == (32 * 3, 32 * (16 + 16 + 32))
    assert 16 < launch["lane_instructions"] / launch["instructions"] < 32


def test_lanes_that_go_round_less_often(counted):
    (launch,) = counted("triangle")
    assert (launch["global load"]["requests"], launch["global load"]["lanes"]) == (31, 31 * 32 / 2)


def test_the_longest_chain(counted):
    """A load that waits for the one before takes 280 cycles, 38 where the block has had the sector, and a few."""
    short, long, of_8_warps, cached = counted("rings")
    assert 1000 * 280 < long["chain"] - short["chain"] < 1000 * 310
    assert sum(long["chains"]) < 1.01 * long["chain"], "the other blocks do nothing"
    assert of_8_warps["chain"] == long["chain"], "warps go side by side"
    assert 100 * 280 + 1000 * 38 < cached["chain"] < 100 * 310 + 1000 * 68


def test_operations_of_the_stream(counted):
    names = [o["name"] for o in counted("operations")]
    assert names == ["cudaMemsetAsync", "cudaMemcpyAsync", "barriers_kernel"]


def test_the_most_costly_line(counted):
    (line,) = counters.lines(counted("strided"), 1)
    assert "counted.cu:" in line
    assert "copy_kernel<float>: 32 global load requests of 32.0 sectors (ideal 4.0), 32.0 lanes" in line


def test_kernels_are_not_worse(race_build, tmp_path):
    """A change that is worth what it costs goes with `python tests/cuda_emulator counters --update`, and says so."""
    kept = json.loads(counters.KEPT.read_text())
    if counters.compiler() != kept["compiler"]:
        pytest.skip(f"the numbers are of {kept['compiler']}, and this is {counters.compiler()}")
    file = tmp_path / "counters.json"
    command = [sys.executable, os.path.dirname(cuda_emulator.__file__), "counters", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = {name: counters.total(operations) for name, operations in json.loads(file.read_text()).items()}
    update = "If that is meant: python tests/cuda_emulator counters --update"
    assert got.keys() == kept["calls"].keys(), update
    worse = [
        f"{name}: {what} {got[name][what]:,}, kept {most:,}"
        for name, numbers in kept["calls"].items()
        for what, most in numbers.items()
        if got[name][what] > most
    ]
    assert not worse, "\n".join([*worse, update])


def test_cases_of_the_benchmark(race_build, tmp_path):
    file = tmp_path / "counters.json"
    command = [sys.executable, os.path.dirname(cuda_emulator.__file__), "counters", "--json", file]
    done = subprocess.run([*command, "--bench", "-k", "box_area 1 box"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ((name, (launch,)),) = json.loads(file.read_text()).items()
    assert (name, launch["name"], launch["blocks"]) == ("box_area 1 box", "area_kernel<float>", 1)


def test_the_table_of_operations():
    """Of every function, and few enough: a launch costs what a small kernel does."""
    calls = json.loads(counters.KEPT.read_text())["calls"]
    page = counters.PAGE.read_text()
    assert counters.with_operations(page, calls) == page, "python tests/cuda_emulator counters --update"
    public = {name for name in boxops.__all__ if inspect.isroutine(getattr(boxops, name))}
    assert public <= {name.split(",")[0] for name in calls}
    assert not [name for name in calls if calls[name]["operations"] > 20]
