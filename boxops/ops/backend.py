"""Which binding serves an array: torch's operators, the NumPy module, or that module over DLPack."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

try:
    from boxops import _numpy_ops
except ImportError as error:
    raise ImportError(
        "boxops: the compiled part is missing beside " + __file__ + "; in a clone, run `pip install -e .`, "
        "or `pip install .` and start Python elsewhere"
    ) from error


class _DLPackOps:
    """The NumPy binding's ops, with results handed back to the framework that the input came from."""

    def __init__(self, op: str, array: Any) -> None:
        if not (hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")):
            raise TypeError(f"{op}: expected arrays (NumPy, torch or DLPack), got {type(array).__name__}")
        if hasattr(array, "__array_namespace__"):
            self._namespace = array.__array_namespace__()
        else:
            self._namespace = sys.modules.get(type(array).__module__.partition(".")[0])
        if not hasattr(self._namespace, "from_dlpack"):
            raise TypeError(f"{op}: expected an array whose namespace has from_dlpack, got {type(array).__name__}")

    def __getattr__(self, name: str) -> Any:
        op = getattr(_numpy_ops, name)

        def call(*args: Any) -> Any:
            result = op(*args)
            if isinstance(result, tuple):
                return tuple(map(self._namespace.from_dlpack, result))
            return self._namespace.from_dlpack(result)

        return call


def backend(op: str, *arrays: Any) -> Any:
    """The ops for these arrays, which are all tensors or none is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(arrays[0], torch.Tensor):
        for other in arrays:
            if not isinstance(other, torch.Tensor):
                raise TypeError(f"{op}: expected arrays of one kind, got Tensor and {type(other).__name__}")
        from boxops import torch_ops

        return torch_ops
    for other in arrays:
        if torch is not None and isinstance(other, torch.Tensor):
            raise TypeError(f"{op}: expected arrays of one kind, got {type(arrays[0]).__name__} and Tensor")
    return _numpy_ops if isinstance(arrays[0], np.ndarray) else _DLPackOps(op, arrays[0])


def check_number(op: str, name: str, value: Any) -> Any:
    """The value, if it can serve as a number."""
    if not isinstance(value, (float, int)) and (isinstance(value, str) or not hasattr(value, "__float__")):
        raise TypeError(f"{op}: expected {name} as a number, got {type(value).__name__}")
    return value


def is_integer(value: Any) -> bool:
    return isinstance(value, int) or hasattr(value, "__index__")  # in this order: torch.compile knows the first


def check_integer(op: str, name: str, value: Any) -> Any:
    """The value, if it can serve as an integer."""
    if not is_integer(value) or isinstance(value, bool):
        raise TypeError(f"{op}: expected {name} as an integer, got {type(value).__name__}")
    return value


def check_list(op: str, name: str, values: Any, words: str = "a list or tuple") -> list[Any]:
    if not isinstance(values, (tuple, list)):
        raise TypeError(f"{op}: expected {name} as {words}, got {type(values).__name__}")
    return list(values)


def check_numbers(op: str, name: str, values: Any) -> list[Any]:
    return [check_number(op, name, value) for value in check_list(op, name, values, "numbers in a list or tuple")]
