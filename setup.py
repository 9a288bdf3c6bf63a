"""Builds boxops: CMake and Ninja make the libraries, setuptools packs them.

BOXOPS_CUDA=auto|0|1        CUDA kernels: if nvcc is there (the default), never, or fail without nvcc
BOXOPS_CUDA_ARCHS=90        compute capabilities, "80;90" or "all" for a release wheel
BOXOPS_BUILD=folder         where to build; interpreters that share it share libboxops too (tools/build_wheels)
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def pybind11_include(torch: Path) -> str:
    """pybind11's headers; torch brings a copy, which serves where nothing can be installed."""
    try:
        import pybind11
    except ImportError:
        return str(torch / "include")
    return str(pybind11.get_include())


class CMakeBuild(build_ext):
    def run(self) -> None:
        package = (ROOT if self.inplace else Path(self.build_lib).resolve()) / "boxops"
        # Found, not imported: only torch's headers and library names are needed.
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            raise SystemExit(
                "boxops: expected torch in the build environment (pip installs it unless --no-build-isolation)"
            )
        torch = Path(spec.origin).parent
        build = Path(os.environ.get("BOXOPS_BUILD", ROOT / "build" / f"{sys.implementation.cache_tag}"))
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_INSTALL_PREFIX": package,
            "BOXOPS_PYTHON": "ON",
            "BOXOPS_TORCH_INCLUDE": torch / "include",
            "BOXOPS_TORCH_LIB": torch / "lib",
            "BOXOPS_CUDA": os.environ.get("BOXOPS_CUDA", "auto"),
            "BOXOPS_CUDA_ARCHS": os.environ.get("BOXOPS_CUDA_ARCHS", "90"),
            "Python_EXECUTABLE": sys.executable,
            "BOXOPS_PYBIND11_INCLUDE": pybind11_include(torch),
        }
        # In an isolated build, ninja lies in another temporary folder each time; the cache must not remember it.
        options["CMAKE_MAKE_PROGRAM"] = shutil.which("ninja")
        subprocess.run(
            ["cmake", "-S", ROOT, "-B", build, "-G", "Ninja", *(f"-D{k}={v}" for k, v in options.items())], check=True
        )
        subprocess.run(["cmake", "--build", build], check=True)
        subprocess.run(["cmake", "--install", build, "--component", "core", "--strip"], check=True)


setup(
    packages=[*find_packages(include=["boxops", "boxops.*"]), "boxops.benchmarks"],
    package_dir={"boxops.benchmarks": "benchmarks"},
    ext_modules=[Extension("boxops._numpy_ops", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
