"""The machine the benchmark runs on: which rivals it has, and the facts a reader needs to place the numbers."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

ABSENT: dict[str, str] = {}  # rivals that cannot be imported, and why
NAMES = {
    "scipy": "SciPy",
    "ensemble_boxes": "ensemble-boxes",
    "lap": "lapx",
    "models": "detr",  # of facebookresearch
    "cv2": "OpenCV",
    "sahi": "SAHI",
}  # module: as the tables name it
PIP = {
    "cv2": "opencv-python-headless",
    "sahi": "--no-deps sahi",  # these two ask for an OpenCV, which would be a second one beside that of the regions
    "ultralytics": "--no-deps ultralytics",
}  # module: what pip installs, where it is not the name
PACKAGES = ("boxops", "torch", "torchvision", "powerboxes", "scipy", "lap", "lsnms", "ensemble_boxes", "shapely",
            "pycocotools", "onnxruntime", "cv2", "ultralytics", "sahi", "supervision", "numpy")  # fmt: skip


def rival(module: str) -> Any:
    """The module, or None. One that is installed but broken (built for another torch, say) counts as absent."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # torchvision raises RuntimeError where its build does not fit torch
        package = module.partition(".")[0]
        name = NAMES.get(package, package)
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        ABSENT[name] = _missing(package) if missing else f"{type(error).__name__}: {error}"
        return None


def later(*packages: str) -> None:
    """Rivals that take seconds to import: the calls that need them do. Here the missing ones are told."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            ABSENT[NAMES.get(package, package)] = _missing(package)


def _missing(package: str) -> str:
    return f"not installed: pip install {PIP.get(package, NAMES.get(package, package).lower())}"


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(device: str, threads: int) -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "threads": threads,
        "device": sys.modules["torch"].cuda.get_device_name() if device == "cuda" else _cpu(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # before: the benchmark itself adds to it
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": packages(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def packages() -> dict[str, str | None]:
    """The versions of those that are imported by now."""
    return {name.replace("_", "-"): _version(name) for name in PACKAGES}


class Watch:
    """What others take of this process's cores while it runs, where the system says (/proc/stat)."""

    def __init__(self) -> None:
        self.began = self._now()

    def others(self) -> float | None:
        """In cores; with what a hypervisor gave to other machines."""
        if self.began is None or (now := self._now()) is None:
            return None
        seconds, own, busy = (after - before for after, before in zip(now, self.began, strict=True))
        return max(0.0, (busy - own) / seconds)

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """Seconds of the clock, of this process and its children, and of all work on its cores."""
        try:
            lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
            mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
            # user nice system (idle iowait) irq softirq steal
            ticks = sum(int(line[i]) for line in lines if line[0] in mine for i in (1, 2, 3, 6, 7, 8))
            return time.perf_counter(), sum(os.times()[:4]), ticks / os.sysconf("SC_CLK_TCK")
        except (OSError, AttributeError, IndexError, ValueError):
            return None


def busy(load: float | None, others: float | None, cores: int) -> list[str]:
    """The warnings of a machine that did other work too."""
    lines = []
    if load is not None and load > 0.3 * cores:
        lines.append(f"the machine was busy when this began (load {load:.1f} on {cores} cores): expect a larger spread")
    if others is not None and others > 0.1 * cores:
        lines.append(
            f"other processes took {others:.1f} of {cores} cores while this ran: expect a larger spread, and threads "
            "that wait for a core"
        )
    return lines


def _version(package: str) -> str | None:
    """Of what is imported, which need not be what the metadata names."""
    module = sys.modules.get(package)
    return getattr(module, "__version__", None) or (_metadata(package.replace("_", "-")) if module else None)


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
