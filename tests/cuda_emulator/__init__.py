"""boxops with its CUDA kernels run on the CPU: `load()` gives the public functions, on NumPy arrays.

`python tests/cuda_emulator` builds it and runs the tests with it; see README.md.
"""

import ctypes
import fcntl
import functools
import importlib.machinery
import importlib.util
import inspect
import os
import pathlib
import shutil
import subprocess
import sys
import types
from unittest import mock

import numpy as np

HERE = pathlib.Path(__file__).parent
VARIANTS = ("plain", "asan", "race")
CPU, CUDA = 1, 2  # DLPack's numbers for kinds of devices


def build_folder(variant):
    root = os.environ.get("BOXOPS_EMULATOR_BUILD", HERE.parent.parent / "build" / "cuda_emulator")
    return pathlib.Path(root) / variant


def tool_path():
    """PATH, after Python's own folder: in an environment that was not activated cmake lies there."""
    return os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])


def can_build():
    return all(shutil.which(tool, path=tool_path()) for tool in ("cmake", "g++"))


def build(variant, target):
    """Builds a target of CMakeLists.txt, `programs` or `_numpy_ops`, and returns the folder it is in."""
    folder, options = build_folder(variant), [f"-DBOXOPS_EMULATOR={variant}", f"-DPython_EXECUTABLE={sys.executable}"]
    try:
        import pybind11

        options.append(f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
    except ImportError:
        pass
    # A sanitizer preloaded into this process is not for the compiler.
    tools = {**os.environ, "PATH": tool_path(), "LD_PRELOAD": ""}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may want another target
        for command in (
            ["cmake", "-S", HERE, "-B", folder, *options],
            ["cmake", "--build", folder, "--target", target, "--parallel", str(os.cpu_count())],
        ):
            done = subprocess.run(command, capture_output=True, text=True, env=tools)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(map(str, command))} failed\n{done.stdout}{done.stderr}")
    return folder


def environment(variant):
    """What Python needs around it to run a variant."""
    more = {"BOXOPS_EMULATOR": variant}
    if variant == "asan":
        # Both before Python itself, which has neither: the sanitizer must find the C++ runtime to intercept throw.
        names = [["g++", f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so")]
        more["LD_PRELOAD"] = " ".join(subprocess.check_output(name, text=True).strip() for name in names)
        # Python leaves much behind when it exits; tests ask for more memory than there is.
        more["ASAN_OPTIONS"] = "detect_leaks=0:allocator_may_return_null=1"
        more["UBSAN_OPTIONS"] = "print_stacktrace=1"
    return {**os.environ, **more}


@functools.cache
def module():
    """The emulated `_numpy_ops` of the variant BOXOPS_EMULATOR, brought up to date; None if it was never built."""
    variant = os.environ.get("BOXOPS_EMULATOR", "plain")
    path = build_folder(variant) / f"_numpy_ops{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    if not path.exists():
        return None
    if can_build():
        build(variant, "_numpy_ops")
    spec = importlib.util.spec_from_file_location("_numpy_ops", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def moved(capsule, device):
    """The DLPack capsule, now saying that its memory is on that kind of device."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # struct DLManagedTensor { void* data; struct { int32_t device_type, device_id; } device; ...
    ctypes.c_int32.from_address(pointer(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p)).value = device
    return capsule


class DeviceArray:
    """A NumPy array that says it is on a CUDA device."""

    def __init__(self, array):
        if not (array.flags.writeable and array.flags.aligned and array.dtype.isnative):
            array = array.astype(array.dtype.newbyteorder("="))  # NumPy cannot export it, or no device has such
        self.array = array

    def __dlpack_device__(self):
        return CUDA, 0

    def __dlpack__(self, **_):
        return moved(self.array.__dlpack__(), CUDA)

    def __array_namespace__(self):
        return types.SimpleNamespace(from_dlpack=lambda result: DeviceArray(to_host(result)))

    @property
    def shape(self):
        return self.array.shape

    # What the losses do with a result.
    def __rsub__(self, number):
        return DeviceArray(np.asarray(number - self.array))

    def __getitem__(self, place):
        return DeviceArray(np.asarray(self.array[place]))

    def sum(self):
        return DeviceArray(np.asarray(self.array.sum()))

    def mean(self):
        return DeviceArray(np.asarray(self.array.mean()))


class _OnHost:
    def __init__(self, array):
        self.__dlpack__ = lambda **_: moved(array.__dlpack__(), CPU)
        self.__dlpack_device__ = lambda: (CPU, 0)


def to_host(result):
    """A NumPy array with a copy of a result."""
    return np.from_dlpack(_OnHost(result)).copy()


@functools.cache
def load():
    """A namespace of boxops' public functions, for NumPy arrays; None if the emulator has not been built."""
    import boxops
    from boxops.ops import backend

    emulated = module()
    if emulated is None:
        return None

    def on_device(value):
        if isinstance(value, list):
            return [on_device(item) for item in value]
        return DeviceArray(value) if isinstance(value, np.ndarray) else value

    def on_host(value):
        if isinstance(value, tuple | list):
            return type(value)(map(on_host, value))
        return value.array if isinstance(value, DeviceArray) else value

    def wrapped(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            with mock.patch.object(backend, "_numpy_ops", emulated):
                moved = {name: on_device(value) for name, value in kwargs.items()}
                return on_host(function(*map(on_device, args), **moved))

        return call

    functions = {name: getattr(boxops, name) for name in boxops.__all__ if inspect.isroutine(getattr(boxops, name))}
    return types.SimpleNamespace(**{name: wrapped(function) for name, function in functions.items()})
