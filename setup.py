"""Builds boxops: CMake and Ninja make the libraries, setuptools packs them.

BOXOPS_CUDA=auto|0|1        CUDA kernels: where nvcc is (the default), never, or always (see tools/cuda12.py)
BOXOPS_CUDA_ARCHS=90        compute capabilities, "80;90" or "all"; by default the visible GPUs', else all
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
sys.path.insert(0, str(ROOT / "tools"))
import cuda12  # noqa: E402


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
        build = ROOT / "build" / f"{sys.implementation.cache_tag}"
        if cuda12.wanted():
            os.environ["CUDA_HOME"] = str(cuda12.lay_out(ROOT / "build" / "cuda12"))
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_INSTALL_PREFIX": package,
            "BOXOPS_PYTHON": "ON",
            "BOXOPS_TORCH_INCLUDE": torch / "include",
            "BOXOPS_TORCH_LIB": torch / "lib",
            "BOXOPS_CUDA": os.environ.get("BOXOPS_CUDA", "auto"),
            "BOXOPS_CUDA_ARCHS": os.environ.get("BOXOPS_CUDA_ARCHS", ""),
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
