"""Which drivers and GPUs the CUDA kernels run with, read out of the library, and what users of others are told."""

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys

import cuda_emulator
import numpy as np
import pytest

import boxops
from boxops import _numpy_ops

ROOT = pathlib.Path(__file__).parent.parent
LIBRARY = pathlib.Path(boxops.__file__).parent / "lib" / "libboxops.so"
BUILT = re.match(r"cuda (.+), cpu", _numpy_ops.build_info())
with_cuda = pytest.mark.skipif(BUILT is None, reason="boxops was built without CUDA")

sys.path.insert(0, str(ROOT / "tools"))
import cuda12  # noqa: E402
import cuda_images  # noqa: E402

TOO_OLD = (
    "expected an NVIDIA driver for CUDA {}.0 or newer, got one for CUDA {}.{}: install a newer driver, "
    "or build boxops with an older CUDA (it was built with {})"
)
NO_IMAGE = (
    "expected a GPU of an architecture that boxops was built for (emulated), got 80: build it with BOXOPS_CUDA_ARCHS=80"
)


@pytest.fixture(scope="module")
def refusal(tmp_path_factory):
    """What the library says beside a driver of a version, which has no device."""
    folder, sources = tmp_path_factory.mktemp("driver"), ROOT / "tests" / "cpp"
    program, libraries = folder / "allocate", LIBRARY.parent
    headers = [f"-I{ROOT / 'csrc' / 'include'}", f"-I{ROOT / 'csrc'}"]
    for command in (
        ["gcc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", sources / "fake_driver.c"],
        ["g++", "-std=c++17", "-o", program, sources / "allocate.cpp", *headers, LIBRARY, f"-Wl,-rpath,{libraries}"],
    ):
        subprocess.run(command, check=True)

    def said(version):
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "BOXOPS_FAKE_DRIVER": str(version)}
        return subprocess.run([program], env=environment, capture_output=True, text=True, check=True).stdout.strip()

    return said


@with_cuda
def test_every_source_has_an_image_of_every_architecture():
    counts = collections.Counter(image.arch for image in cuda_images.images(LIBRARY) if image.kind == "cubin")
    assert sorted(counts) == sorted(int(re.sub(r"\D", "", arch)) for arch in BUILT[1].split())
    assert len(set(counts.values())) == 1, counts


@with_cuda
def test_drivers_of_the_whole_major_version_of_cuda_read_the_images(refusal):
    """BOXOPS_REQUIRE_DRIVER=12 demands it of the drivers of CUDA 12: of a release."""
    least = next(major for major in (11, 12, 13, 14) if "cudaErrorNoDevice" in refusal(1000 * major))
    assert least <= int(os.environ.get("BOXOPS_REQUIRE_DRIVER", "14"))
    words = TOO_OLD.format(least, least - 1, 8, f"{least}.\0").split("\0")
    said = refusal(1000 * (least - 1) + 80)
    assert said.startswith(f"boxops: {words[0]}") and said.endswith(words[1])
    for image in cuda_images.images(LIBRARY):
        assert image.compression != "Zstandard" or least >= 13
        if image.kind == "ptx":
            assert int(image.version.split(".")[0]) <= {12: 8, 13: 9}[least]
        elif image.arch < 100:  # the others' drivers are newer
            assert int(image.version) <= {12: 7, 13: 8}[least]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "words"),
    [(35, TOO_OLD.format(12, 11, 4, "12.9")), (98, NO_IMAGE), (209, NO_IMAGE), (222, NO_IMAGE)],
)
def test_errors_that_come_of_how_boxops_was_built(monkeypatch, error, words):
    kernels = cuda_emulator.load() or pytest.skip("the CUDA emulator is not built")
    boxes = np.ones((2, 4), "float32")
    monkeypatch.setenv("BOXOPS_EMULATOR_ERROR", str(error))
    with pytest.raises(RuntimeError, match=f"^box_area: {re.escape(words)}$"):
        kernels.box_area(boxes)
    monkeypatch.delenv("BOXOPS_EMULATOR_ERROR")
    kernels.box_area(boxes)


KNOWN = [75, 80, 86, 87, 88, 89, 90, 100, 110, 103, 120, 121]  # to nvcc 13.0


@pytest.mark.skipif(shutil.which("cmake", path=cuda_emulator.tool_path()) is None, reason="there is no cmake")
@pytest.mark.parametrize(
    ("asked", "gpus", "known", "built"),
    [
        ("", "8.6\\n9.0\\n8.6", KNOWN, "86;90"),
        ("", "No devices were found", KNOWN, "75-real;80-real;90;100-real;120-real"),
        ("", "7.0", KNOWN, "75-real;80-real;90;100-real;120-real"),
        ("", "7.0\\n12.0", KNOWN, "120"),
        ("", None, [50, 75, 80, 90], "75-real;80-real;90"),
        ("all", "8.6", KNOWN, "75-real;80-real;90;100-real;120-real"),
        ("native", "8.6", KNOWN, "86"),
        ("80,90a-real", "8.6", KNOWN, "80;90a-real"),
    ],
)
def test_architectures(tmp_path, asked, gpus, known, built):
    script = f'include({ROOT / "cmake" / "cuda_architectures.cmake"})\nmessage(STATUS "${{CMAKE_CUDA_ARCHITECTURES}}")'
    (tmp_path / "show.cmake").write_text(script)
    names = "".join(f"compute_{arch}\\n" for arch in known)
    (tmp_path / "nvcc").write_text(f"#!/bin/sh\nprintf '{names}'\n")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n" if gpus is None else f"#!/bin/sh\nprintf '{gpus}\\n'\n")
    for tool in ("nvcc", "nvidia-smi"):
        (tmp_path / tool).chmod(0o755)
    command = [
        "cmake",
        f"-DBOXOPS_CUDA_ARCHS={asked}",
        f"-DBOXOPS_NVCC={tmp_path / 'nvcc'}",
        "-P",
        tmp_path / "show.cmake",
    ]
    path = os.pathsep.join([str(tmp_path), cuda_emulator.tool_path()])
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"-- {built}"


def test_the_index_has_the_compiler_where_there_is_none(monkeypatch, tmp_path):
    for asked, nvcc, wanted in [
        ("1", None, True),
        ("1", "/bin/nvcc", False),
        ("auto", None, False),
        ("0", None, False),
    ]:
        monkeypatch.setenv("BOXOPS_CUDA", asked)
        monkeypatch.setattr(cuda12.shutil, "which", lambda *_, found=nvcc, **__: found)
        assert cuda12.wanted() == (wanted and sys.platform == "linux")
    with pytest.raises(
        SystemExit,
        match=re.escape(
            f"there is no nvcc: install the CUDA toolkit and set CUDA_HOME or PATH, "
            f"or pip install {' '.join(cuda12.REQUIREMENTS)}"
        ),
    ):
        cuda12.lay_out(tmp_path / "home", tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="the compiler is Linux's")
def test_ptx_claims_what_cuda_12_reads(tmp_path):
    for name, script in [
        ("cicc", cuda12.CICC),
        ("cicc-13", '#!/bin/sh\nprintf ".version 9.0\\n// .version 9.0\\n" > "$3"\n'),
    ]:
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    subprocess.run([tmp_path / "cicc", "-fmad=0", "-o", tmp_path / "x.ptx"], check=True)
    assert (tmp_path / "x.ptx").read_text() == ".version 8.8\n// .version 9.0\n"
    (tmp_path / "cicc-13").write_text("#!/bin/sh\nexit 2\n")
    assert subprocess.run([tmp_path / "cicc", "-o", tmp_path / "x.ptx"]).returncode == 2
