"""Runs a program under :func:`boxops.patch_torchvision`, without a change to it.

    python -m boxops.patched script.py arguments ...
    python -m boxops.patched -m module arguments ...
    torchrun --nproc-per-node 2 -m boxops.patched train.py ...

As Python itself would: sys.argv, sys.path, __main__, the exit code and tracebacks are the program's. Processes that the
program forks are patched too, those that it spawns anew are not.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

import boxops

USAGE = "usage: python -m boxops.patched (script.py | -m module) [arguments ...]"


def _script(path: str) -> tuple[CodeType, dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {os.path.abspath(path)!r}: {error}", file=sys.stderr)
        sys.exit(2)
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(path))  # it was the working directory, for boxops.patched
    path = os.path.abspath(path)
    return compile(source, path, "exec"), {"__file__": path, "__spec__": None, "__package__": None}


def _module(name: str) -> tuple[CodeType, dict[str, Any]]:
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(name + ".__main__")
    code = _code(spec)
    if spec is None or code is None:
        print(f"{sys.executable}: No module named {name}, or none that can be run", file=sys.stderr)
        sys.exit(1)
    sys.argv[0] = spec.origin or name
    return code, {"__file__": spec.origin, "__spec__": spec, "__package__": spec.parent, "__loader__": spec.loader}


def _code(spec: ModuleSpec | None) -> CodeType | None:
    get_code = getattr(spec and spec.loader, "get_code", None)
    return get_code(spec and spec.name) if get_code else None


def main() -> None:
    arguments = sys.argv[1:]
    as_module = arguments[:1] == ["-m"]
    if len(arguments) < 1 + as_module:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    sys.argv = arguments[as_module:]
    try:
        code, names = (_module if as_module else _script)(sys.argv[0])
        boxops.patch_torchvision()
        program = sys.modules["__main__"] = ModuleType("__main__")
        program.__dict__.update(names)
        exec(code, program.__dict__)
    except Exception as error:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        sys.excepthook(type(error), error.with_traceback(frames), frames)
        sys.exit(1)


if __name__ == "__main__":
    main()
