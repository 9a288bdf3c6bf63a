"""Builds boxops: CMake and Ninja make the libraries, setuptools packs them.

BOXOPS_CUDA=auto|0|1        CUDA kernels: where nvcc is (the default), never, or always (see tools/cuda12.py)
BOXOPS_CUDA_ARCHS=90        compute capabilities, "80;90" or "all"; by default the visible GPUs', else all
BOXOPS_BUILD=folder         where to build; interpreters that share it share libboxops too (tools/build_wheels)
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
CMAKE = (3, 24)
sys.path.insert(0, str(ROOT / "tools"))
import cuda12  # noqa: E402


def pybind11_include() -> str:
    """What the build needs is there, or a sentence says what to install, where tools would say it in forty lines."""

    def missing(what: str, install: str) -> SystemExit:
        return SystemExit(f"boxops: building needs {what}: install {install}")

    compilers = shlex.split(os.environ.get("CXX", ""))[:1] or ["c++", "g++", "clang++", "cl"]
    if not any(map(shutil.which, compilers)):
        got = f", and there is no {' or '.join(compilers)}"
        raise missing("a C++17 compiler" + got, "g++ or clang++ (Debian, Ubuntu: apt install g++), or set CXX to yours")
    wanted = f"CMake {'.'.join(map(str, CMAKE))} or later"
    if shutil.which("cmake") is None:
        raise missing(f"{wanted}, and there is none", "it with pip install cmake")
    said = subprocess.run(["cmake", "--version"], capture_output=True, text=True).stdout
    version = re.search(r"(\d+)\.(\d+)\S*", said)
    if version is None or tuple(map(int, version.groups())) < CMAKE:
        raise missing(f"{wanted}, got {version[0] if version else said!r}", "a newer one with pip install cmake")
    if shutil.which("ninja") is None:
        raise missing("Ninja, and there is none", "it with pip install ninja")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise missing(
            f"Python's headers, and there is no {header}",
            f"them (Debian, Ubuntu: apt install python{sys.version_info[0]}.{sys.version_info[1]}-dev)",
        )
    try:
        import pybind11
    except ImportError:
        raise missing("pybind11, and there is none", "it with pip install pybind11") from None
    return str(pybind11.get_include())


def run(*command: object) -> None:
    if (code := subprocess.run([str(word) for word in command]).returncode) != 0:
        raise SystemExit(f"boxops: {command[0]} failed with exit status {code}; what is wrong is said above")


class CMakeBuild(build_ext):
    def run(self) -> None:
        package = (ROOT if self.inplace else Path(self.build_lib).resolve()) / "boxops"
        folder = Path(os.environ.get("BOXOPS_BUILD", ROOT / "build" / f"{sys.implementation.cache_tag}"))
        if cuda12.wanted():
            os.environ["CUDA_HOME"] = str(cuda12.lay_out(ROOT / "build" / "cuda12"))
        options = {
            "BOXOPS_PYBIND11_INCLUDE": pybind11_include(),
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_INSTALL_PREFIX": package,
            "BOXOPS_PYTHON": "ON",
            "BOXOPS_CUDA": os.environ.get("BOXOPS_CUDA", "auto"),
            "BOXOPS_CUDA_ARCHS": os.environ.get("BOXOPS_CUDA_ARCHS", ""),
            "Python_EXECUTABLE": sys.executable,
            # In an isolated build, ninja lies in another temporary folder each time; the cache must not remember it.
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja"),
        }
        run("cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *(f"-D{k}={v}" for k, v in options.items()))
        run("cmake", "--build", folder)
        run("cmake", "--install", folder, "--component", "core", "--strip")


# First, so that an error is not preceded by a line for each file that is copied.
build.sub_commands.sort(key=lambda command: command[0] != "build_ext")

setup(
    packages=[*find_packages(include=["boxops", "boxops.*"]), "boxops.benchmarks"],
    package_dir={"boxops.benchmarks": "benchmarks"},
    ext_modules=[Extension("boxops._numpy_ops", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
