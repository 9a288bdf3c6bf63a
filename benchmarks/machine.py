"""The machine the benchmark runs on: which rivals it has, and the facts a reader needs to place the numbers."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import os
import platform
import sys
from typing import Any

ABSENT: dict[str, str] = {}  # rivals that cannot be imported, and why


def rival(module: str) -> Any:
    """The module, or None. One that is installed but broken (built for another torch, say) counts as absent."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # torchvision raises RuntimeError where its build does not fit torch
        missing = isinstance(error, ModuleNotFoundError)
        ABSENT[module.partition(".")[0]] = "not installed" if missing else f"{type(error).__name__}: {error}"
        return None


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(device: str, threads: int) -> dict[str, Any]:
    packages = {name: _version(name) for name in ("boxops", "torch", "torchvision", "powerboxes", "numpy")}
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "threads": threads,
        "device": sys.modules["torch"].cuda.get_device_name() if device == "cuda" else _cpu(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # before: the benchmark itself adds to it
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    """Of what is imported, which need not be what the metadata names."""
    module = sys.modules.get(package)
    return getattr(module, "__version__", None) or (_metadata(package) if module else None)


def _metadata(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
