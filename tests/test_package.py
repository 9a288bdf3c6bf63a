"""What is shipped: sources in the sdist, names in the libraries, and the words where something lacks to build them."""

import ctypes
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

import boxops
from boxops import _numpy_ops

ROOT = pathlib.Path(__file__).parent.parent
LIBRARIES = pathlib.Path(boxops.__file__).parent / "lib"
SHIM = ROOT / "csrc" / "torch_ops" / "shim.h"
if not LIBRARIES.exists():
    pytest.skip("the emulator has no libboxops", allow_module_level=True)


def setup_py(*arguments, before="", **environment):
    """Runs setup.py, after some lines of Python."""
    pytest.importorskip("setuptools", "77")
    run = "sys.argv[0] = 'setup.py'; runpy.run_path('setup.py', run_name='__main__')"
    code = f"import runpy, sys; {before or 'pass'}; {run}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment or None, timeout=120)


def test_every_source_is_in_the_sdist(tmp_path):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    done = setup_py("-q", "egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("boxops-*.tar.gz"))) as sdist:
        shipped = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = ["git", "ls-files", "csrc", "boxops", "benchmarks", "tests", "CMakeLists.txt", "LICENSE", "README.md"]
    sources = subprocess.run(tracked, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert len(sources) > 300
    assert set(sources) <= shipped
    assert {name for name in shipped if name.endswith((".so", ".pyc"))} == set()


@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm")
@pytest.mark.skipif(sys.platform != "linux", reason="nm -D reads ELF")
@pytest.mark.parametrize(
    ("library", "ours"),
    [
        (LIBRARIES / "libboxops.so", r"_Z(T[ISV])?NK?6boxops|boxops_"),
        (LIBRARIES / "libboxops_torch.so", r"_Z(T[ISV])?NK?6boxops|boxops_"),
        (_numpy_ops.__file__, "PyInit__numpy_ops$"),
    ],
    ids=["libboxops", "libboxops_torch", "_numpy_ops"],
)
def test_only_names_of_boxops_are_exported(library, ours):
    lines = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    names = [line.split()[-1] for line in lines.splitlines()]
    assert names
    assert [name for name in names if not re.match(ours, name)] == []


@pytest.mark.skipif(shutil.which("readelf") is None, reason="there is no readelf")
@pytest.mark.skipif(sys.platform != "linux", reason="readelf reads ELF")
def test_torch_is_needed_by_name_alone():
    """Whoever loads the library gets the libtorch.so that is there, with its CUDA part if it has one."""
    dynamic = subprocess.run(
        ["readelf", "-d", LIBRARIES / "libboxops_torch.so"], capture_output=True, text=True, check=True
    ).stdout
    needed = set(re.findall(r"NEEDED.*\[(.*?)\.so", dynamic))
    assert {"libboxops", "libtorch", "libtorch_cpu"} <= needed
    assert not [name for name in needed if "python" in name or "cuda" in name]
    assert re.findall(r"(?:RUNPATH|RPATH).*\[(.*)\]", dynamic) == ["$ORIGIN"]


def test_declarations_agree_with_torch(tmp_path):
    """What shim.h declares, torch's own headers declare alike, or C++ refuses both; and torch has it."""
    torch = pathlib.Path(pytest.importorskip("torch").__file__).parent
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    source = tmp_path / "both.cpp"
    headers = ("stable/c/shim", "inductor/aoti_torch/c/shim", "inductor/aoti_torch/generated/c_shim_aten")
    source.write_text("".join(f"#include <torch/csrc/{name}.h>\n" for name in headers) + f'#include "{SHIM}"\n')
    flags = ["-std=c++17", "-fsyntax-only", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    done = subprocess.run(
        ["g++", *flags, "-isystem", torch / "include", source], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    declared = re.findall(r"^(\w+) (\w*torch_\w+)\(", SHIM.read_text(), re.MULTILINE)  # but for the weak one
    library = ctypes.CDLL(str(torch / "lib" / "libtorch_cpu.so"))
    assert len(declared) > 35
    assert [name for _, name in declared if not hasattr(library, name)] == []


@pytest.mark.parametrize(
    ("before", "environment", "words"),
    [
        ("", {"CXX": "g++-0"}, "a C++17 compiler, and there is no g++-0: install g++ or clang++"),
        ("", {"PATH": "{folder}"}, "a C++17 compiler, and there is no c++ or g++ or clang++ or cl: install g++"),
        (
            "",
            {"PATH": "{folder}", "CXX": sys.executable},
            "CMake 3.24 or later, and there is none: install it with pip",
        ),
        (
            "import sysconfig; sysconfig.get_path = lambda *_: '/no'",
            {},
            "Python's headers, and there is no /no/Python.h",
        ),
        ("sys.modules['pybind11'] = None", {}, "pybind11, and there is none: install it with pip install pybind11"),
    ],
    ids=["CXX", "compiler", "cmake", "Python.h", "pybind11"],
)
def test_what_lacks_is_one_sentence(tmp_path, before, environment, words):
    environment = {**os.environ, **{name: value.format(folder=tmp_path) for name, value in environment.items()}}
    done = setup_py("-q", "build_ext", before=before, **environment)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"boxops: building needs {words}"), done.stderr
    assert "Traceback" not in done.stderr
