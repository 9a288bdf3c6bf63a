#!/usr/bin/env python3
"""Lays out, as CUDA_HOME, a CUDA compiler of packages of the index whose kernels run with drivers from R525 on.

The index has nvcc itself only since 13.0, whose runtime needs R580, but ptxas, headers and static runtime of 12.9, too.
So the front end is 13.0's, and all that a driver meets is 12.9's. Between the two are
- PTX. The front end says that it writes version 9.0 of this language, and the wrapper below 8.8, CUDA 12.9's;
  ptxas checks every statement against it;
- crt/host_runtime.h, which declares what host code calls of the runtime: the same in both but for a macro's argument.
nvcc 13.0 would compress with Zstandard, which drivers before CUDA 12.4's do not read: CMakeLists.txt asks for LZ4.

    python tools/cuda12.py build/cuda12 && CUDA_HOME=$PWD/build/cuda12 pip install .
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FRONT_END = ("nvidia-cuda-nvcc==13.0.88", "nvidia-nvvm==13.0.88", "nvidia-cuda-crt==13.0.88")
CUDA_12 = ("nvidia-cuda-nvcc-cu12==12.9.86", "nvidia-cuda-runtime-cu12==12.9.79", "nvidia-cuda-cccl-cu12==12.9.27")
REQUIREMENTS = (*FRONT_END, *CUDA_12)

CICC = """#!/bin/sh
"$0-13" "$@" || exit
while [ "$1" != -o ]; do shift; done
exec sed -i "s/^\\.version 9\\.0$/.version 8.8/" "$2"
"""


def wanted() -> bool:
    """Whether CUDA kernels are asked for, and there is no nvcc."""
    homes = (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    path = os.pathsep.join([*(f"{home}/bin" for home in homes if home), os.environ.get("PATH", "")])
    asked = sys.platform == "linux" and os.environ.get("BOXOPS_CUDA") == "1"
    return asked and shutil.which("nvcc", path=path) is None


def lay_out(home: Path, site: Path | None = None) -> Path:
    """Lays out `home` of the packages that are installed in `site`, or where this Python finds them.

    What lies there already stays: files with a new date would be compiled against anew.
    """
    stamp = home / "packages.txt"
    if stamp.is_file() and stamp.read_text().split() == [*REQUIREMENTS]:
        return home
    path = sys.path if site is None else [str(site)]
    installed = {
        requirement: distribution
        for requirement in REQUIREMENTS
        for distribution in importlib.metadata.distributions(name=requirement.split("==")[0], path=path)
        if distribution.version == requirement.split("==")[1]
    }
    if missing := [requirement for requirement in REQUIREMENTS if requirement not in installed]:
        raise SystemExit(
            "boxops: BOXOPS_CUDA=1 asks for CUDA kernels, and there is no nvcc: install the CUDA toolkit and set "
            f"CUDA_HOME or PATH, or pip install {' '.join(missing)}"
        )
    front = Path(str(installed[FRONT_END[0]].locate_file("nvidia/cu13")))
    cuda_12 = Path(str(installed[CUDA_12[0]].locate_file("nvidia")))
    target = home / "targets" / {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}[platform.machine()]
    shutil.rmtree(home, ignore_errors=True)

    def copy(source: Path, to: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__init__.py"))
        else:
            shutil.copy(source, to)

    copy(front / "bin", home / "bin")
    copy(cuda_12 / "cuda_nvcc/bin/ptxas", home / "bin")
    copy(front / "nvvm", home / "nvvm")
    copy(cuda_12 / "cuda_runtime/include", target / "include")
    copy(cuda_12 / "cuda_nvcc/include/fatbinary_section.h", target / "include")
    copy(front / "include/crt", target / "include/crt")
    copy(cuda_12 / "cuda_cccl/include", target / "include/cccl")
    copy(cuda_12 / "cuda_runtime/lib", target / "lib")
    (target / "lib/libcudart.so").symlink_to("libcudart.so.12")  # CMake asks for it, and links the static one
    cicc = home / "nvvm/bin/cicc"
    cicc.rename(f"{cicc}-13")
    cicc.write_text(CICC)
    for tool in (*home.glob("bin/*"), *home.glob("nvvm/bin/*")):
        tool.chmod(0o755)
    stamp.write_text("\n".join(REQUIREMENTS))
    return home


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as site:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
        print(lay_out(Path(sys.argv[1]).resolve(), Path(site)))
