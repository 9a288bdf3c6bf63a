"""The examples, built out of tree against the installed package and run."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

import boxops

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="links as Linux does"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++"),
]


def run(*command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(example, folder, *options):
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")
    run("cmake", "-S", EXAMPLES / example, "-B", folder, f"-DCMAKE_PREFIX_PATH={boxops.cmake_prefix_path}", *options)
    run("cmake", "--build", folder)
    return folder


def test_cpp(tmp_path):
    build = built("cpp", tmp_path)
    assert run(build / "kernels") == f"boxops {boxops.__version__}: iou 0.5, kept 2: 1 2\n"
    assert run(build / "detections") == "1 2 nms: expected boxes of shape [N, 4], got [3]\n"
    if (build / "kernels_cuda").exists():
        assert run(build / "kernels_cuda") in ("no device\n", "error 0, kept 2: 1 2\n")


def test_rust(tmp_path):
    if shutil.which("cargo") is None:
        pytest.skip("there is no cargo")
    manifest = str(EXAMPLES / "rust" / "Cargo.toml")
    out = run("cargo", "run", "-q", "--offline", "--manifest-path", manifest,
              BOXOPS_PREFIX=boxops.cmake_prefix_path, CARGO_TARGET_DIR=str(tmp_path))  # fmt: skip
    lines = out.splitlines()
    assert lines[:3] == [f"boxops {boxops.__version__}", "[1.0, 0.5, 0.0]", "[1, 2]"]
    assert lines[3].startswith('Err("nms: expected ')


def test_libtorch(tmp_path):
    torch = pytest.importorskip("torch")
    root = pathlib.Path(torch.__file__).parent
    build = built("libtorch", tmp_path / "build", f"-DTORCH_ROOT={root}")
    run(sys.executable, EXAMPLES / "libtorch" / "export_models.py", tmp_path)
    out = run(build / "run_models", tmp_path / "scripted.pt", tmp_path / "packaged.pt2")
    script, package = out.removeprefix("TorchScript:\n").split("AOTInductor:\n")
    assert script == package
    assert script.split()[:8] == ["0", "0", "10", "5", "20", "20", "30", "30"]
