"""provide_torchvision_ops: torchvision where its own operators do not load, and nothing where they do."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
import torchvision_results  # noqa: E402
from test_machine import fresh_python  # noqa: E402

import boxops  # noqa: E402

LIBRARY = pathlib.Path(boxops.__file__).parent / "lib" / "libboxops_torch.so"


def run(code, *arguments, path=()):
    return fresh_python(code, *arguments, PYTHONPATH=os.pathsep.join([*map(str, path), *sys.path]))


@pytest.fixture(scope="module")
def unfit(tmp_path_factory):
    """A folder with a torchvision whose own library does not load."""
    folder = tmp_path_factory.mktemp("unfit")
    own = pathlib.Path(torchvision.__file__).parent
    shutil.copytree(own, folder / "torchvision", ignore=shutil.ignore_patterns("*.so", "__pycache__", "datasets.*"))
    for library in own.glob("_C*.so"):
        (folder / "torchvision" / library.name).write_text("built for another torch")
    return folder


def test_never_where_torchvision_brings_its_own():
    before = torch._C._dispatch_dump("torchvision::nms")
    assert boxops.provide_torchvision_ops() is boxops.provide_torchvision_ops() is False
    assert torch._C._dispatch_dump("torchvision::nms") == before


def test_same_results_as_a_torchvision_that_fits(unfit, tmp_path):
    """Operators, gradients, detections and a training step, after imports that failed."""
    models = ["tiny_faster_rcnn"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.save(torchvision_results.results(models), tmp_path / "matched.pt")
    torch.set_num_threads(threads)
    code = """
import runpy, sys
for _ in range(2):
    try:
        import torchvision
    except (AttributeError, RuntimeError) as error:
        print(error)
sys.argv = ["", "--against", *sys.argv[2:]]
runpy.run_module("torchvision_results", run_name="__main__")
"""
    done = run(code, "", tmp_path / "matched.pt", *models, path=[unfit])
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first == "operator torchvision::nms does not exist"
    assert "boxops operators" in last


def test_what_else_holds_there(unfit):
    """Fakes, autocast, compiled programs and errors; a second call; no operator for the rest."""
    code = """
import boxops, torch
assert boxops.provide_torchvision_ops() is boxops.provide_torchvision_ops() is True
import torchvision
from torchvision.ops import DeformConv2d, RoIAlign, nms
assert torchvision.extension._has_ops() and torchvision.extension._check_cuda_version() == -1
boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]])
rois = torch.cat([torch.zeros(3, 1), boxes], 1)
assert nms(boxes, boxes[:, 0] - boxes[:, 3], 0.5).tolist() == [1, 2]
features = torch.rand(1, 2, 8, 8, requires_grad=True)
for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"):
    options = [2] if name == "ps_roi_align" else [2, True] if name == "roi_align" else []
    size = (1, 2) if name.startswith("ps") else (2, 2)
    torch.library.opcheck(getattr(torch.ops.torchvision, name).default, (features, rois, 1.0, *size, *options))
with torch.autocast("cpu", torch.bfloat16):
    assert RoIAlign(2, 1.0, 2)(features.detach().bfloat16(), rois).dtype == torch.bfloat16
exported = torch.export.export(RoIAlign(2, 1.0, 2), (features.detach(), rois))
assert torch.equal(exported.module()(features.detach(), rois), RoIAlign(2, 1.0, 2)(features.detach(), rois))
try:
    DeformConv2d(1, 1, 3)(torch.rand(1, 1, 5, 5), torch.rand(1, 18, 3, 3))
except RuntimeError as error:
    print(error)
"""
    done = run(code, path=[unfit])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("deform_conv2d: expected a torchvision that fits this torch")


def test_gradients_where_torchvision_has_them_in_its_library(unfit, tmp_path):
    """Before 0.27, gradients and autocast were not registered from Python."""
    shutil.copytree(unfit, tmp_path / "old")
    (tmp_path / "old" / "torchvision" / "_autograd_registrations.py").unlink()
    init = tmp_path / "old" / "torchvision" / "__init__.py"
    init.write_text(init.read_text().replace("    _autograd_registrations,\n", ""))
    code = """
import boxops
assert boxops.provide_torchvision_ops()
import torch, torchvision
features, rois = torch.rand(1, 4, 8, 8, requires_grad=True), torch.tensor([[0.0, 1, 1, 6, 6]])
for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"):
    call = lambda function, x: function(x, rois.to(x.dtype), 2).pow(2).sum()
    got, = torch.autograd.grad(call(getattr(torchvision.ops, name), features), features, create_graph=True)
    want, = torch.autograd.grad(call(getattr(boxops, name), features), features)
    torch.testing.assert_close(got, want)
    try:
        got.sum().backward()
    except RuntimeError as error:
        assert "double backwards" in str(error)
    else:
        raise AssertionError
with torch.autocast("cpu", torch.bfloat16):
    assert torchvision.ops.roi_align(features.bfloat16(), rois, 2).dtype == torch.bfloat16
    assert torchvision.ops.nms(rois[:, 1:].bfloat16(), torch.ones(1), 0.5).tolist() == [0]
"""
    done = run(code, path=[tmp_path / "old"])
    assert done.returncode == 0, done.stderr


def test_without_boxops_package_and_torchvision():
    """The library alone defines nothing until it is asked, once, from C."""
    code = """
import ctypes, sys, torch
torch.ops.load_library(sys.argv[1])
assert not hasattr(torch.ops.torchvision, "nms") and not hasattr(torch.ops.torchvision, "roi_align")
provide = ctypes.CDLL(sys.argv[1]).boxops_provide_torchvision_ops
assert provide() == provide() == 0
boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]])
print(torch.ops.torchvision.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist(), "boxops" in sys.modules)
"""
    done = run(code, LIBRARY)
    assert (done.stdout, done.returncode) == ("[1, 2] False\n", 0), done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_without_python(tmp_path):
    """A C++ program has none of the operators, asks twice, and has them; torch's log of the first call is not ours."""
    ours, theirs = pathlib.Path(boxops.__file__).parent, pathlib.Path(torch.__file__).parent
    source = pathlib.Path(__file__).parent / "cpp" / "torchvision_ops.cpp"
    folders = [ours / "lib", theirs / "lib"]
    subprocess.run(
        ["g++", "-std=c++17", "-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{ours / 'include'}",
         "-isystem", theirs / "include", source, "-o", tmp_path / "program", "-Wl,--no-as-needed",
         *(flag for folder in folders for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")),
         "-lboxops_torch", "-lboxops", "-ltorch", "-ltorch_cpu", "-lc10"],
        check=True, timeout=300,
    )  # fmt: skip
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("-1, 0 0, 2\n", 0), done.stderr


def test_without_torchvision():
    """Only the operators then, with gradients."""
    code = """
import sys
sys.modules["torchvision"] = None
import boxops, torch
assert boxops.provide_torchvision_ops()
features = torch.rand(1, 4, 8, 8, requires_grad=True)
torch.ops.torchvision.roi_align(features, torch.tensor([[0.0, 1, 1, 6, 6]]), 1.0, 2, 2, 2, False).sum().backward()
print(features.grad.sum())
"""
    done = run(code)
    assert (done.stdout, done.returncode) == ("tensor(16.)\n", 0), done.stderr
