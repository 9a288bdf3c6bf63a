"""Which binding serves an array: torch's operators, the NumPy module, or that module over DLPack; plain arguments."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

try:
    from boxops import _numpy_ops
except ImportError as error:
    raise ImportError(
        "boxops: the compiled part is missing beside " + __file__ + "; in a clone, run `pip install -e .`, "
        "or `pip install .` and start Python elsewhere"
    ) from error


# Where a call takes less than a microsecond the op itself looks whether its first array is NumPy's: `backend` takes as
# long as a kernel.
numpy_ops = _numpy_ops

SIGNATURES = _numpy_ops.SIGNATURES  # of every op {argument: (kind, optional, choices)}


class _DLPackOps:
    """The ops over DLPack, with results handed back to the framework that the input came from."""

    def __init__(self, op: str, array: Any) -> None:
        if not (hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__")):
            raise TypeError(f"{op}: expected arrays (NumPy, torch or DLPack), got {type(array).__name__}")
        if hasattr(array, "__array_namespace__"):
            self._namespace = array.__array_namespace__()
        else:
            self._namespace = sys.modules.get(type(array).__module__.partition(".")[0])
        if not hasattr(self._namespace, "from_dlpack"):
            raise TypeError(f"{op}: expected an array whose namespace has from_dlpack, got {type(array).__name__}")
        self._op, self._array = op, array

    def __getattr__(self, name: str) -> Any:
        op = getattr(_numpy_ops.DLPack, name)

        def call(*args: Any) -> Any:
            result = op(self._framework(), *args)
            return tuple(map(self._returned, result)) if isinstance(result, tuple) else self._returned(result)

        return call

    def _framework(self) -> Any:
        """On the stream that the framework works on now, where it can be asked for it (CuPy)."""
        current = getattr(getattr(self._namespace, "cuda", None), "get_current_stream", None)
        if current is None:
            return _numpy_ops.DLPack()
        kind, index = self._array.__dlpack_device__()
        return _numpy_ops.DLPack(current(index)) if kind in (2, 13) else _numpy_ops.DLPack()

    def _returned(self, result: Any) -> Any:
        array = self._namespace.from_dlpack(result)
        # JAX makes int32 of int64 without a word, unless jax_enable_x64 is set.
        narrowed = result.dtype == "int64" and str(getattr(array, "dtype", "")).endswith("int32")
        if narrowed and result.__dlpack_device__()[0] == 1:
            values = np.from_dlpack(result)
            if (values != values.astype(np.int32)).any():
                raise ValueError(
                    f"{self._op}: expected results that int32 holds (JAX: jax_enable_x64), got larger ones"
                )
        return array


def backend(op: str, first: Any, second: Any = None, third: Any = None, *more: Any) -> Any:
    """The ops for these arrays, which are all tensors or none is; None where one is not given."""
    if type(first) is ndarray and (second is None or type(second) is ndarray) and third is None:
        return _numpy_ops  # the usual, soonest
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(first, torch.Tensor):
        same = (second is None or isinstance(second, torch.Tensor)) and (
            third is None or isinstance(third, torch.Tensor)
        )
        if more or not same:  # a loop takes longer
            for other in (second, third, *more):
                if not (other is None or isinstance(other, torch.Tensor)):
                    raise TypeError(f"{op}: expected arrays of one kind, got Tensor and {type(other).__name__}")
        # A look is sooner than an import; but torch.compile would hold on to what it saw there before the import.
        torch_ops = None if torch.compiler.is_dynamo_compiling() else sys.modules.get("boxops.torch_ops")
        if torch_ops is None:
            from boxops import torch_ops

        return torch_ops
    for other in (second, third, *more):
        if torch is not None and isinstance(other, torch.Tensor):
            raise TypeError(f"{op}: expected arrays of one kind, got {type(first).__name__} and Tensor")
    return _numpy_ops if isinstance(first, ndarray) else _DLPackOps(op, first)


def check_kind(op: str, name: str, value: Any) -> None:
    """An array that comes to the binding for NumPy beside NumPy arrays."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        raise TypeError(f"{op}: expected arrays of one kind, got ndarray and Tensor")


# Plain arguments. Numbers may also come as an array or tensor of one element, lists and pairs as an array.

_LARGEST = 2**1023  # an integer up to it is a double, if not always the same number


def _is_compiling() -> bool:
    """By torch; numbers may have no value yet."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_dynamo_compiling()


def _is_symbolic(value: Any) -> bool:
    """A number that torch traces outside of its compiler."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, (torch.SymInt, torch.SymFloat))


def _is_array(op: str, name: str, value: Any) -> bool:
    if isinstance(value, (int, float, list, tuple, str)) or not hasattr(value, "shape"):
        return False
    if _is_compiling() and isinstance(value, (torch := sys.modules["torch"]).Tensor):
        torch._dynamo.graph_break(msg=f"{op}: expected {name} in Python numbers to compile in one graph, got a tensor")
    return True


def _as_lists(op: str, name: str, value: Any) -> Any:
    """The numbers of an array in nested lists; anything else as it came."""
    if not _is_array(op, name, value):
        return value
    return value.tolist() if hasattr(value, "tolist") else np.asarray(value).tolist()


def as_number(op: str, name: str, value: Any) -> Any:
    """The number of an array that has one element; lists of another array, and anything else as it came."""
    if not _is_array(op, name, value) or any(side != 1 for side in value.shape):
        return _as_lists(op, name, value)
    return value.item() if hasattr(value, "item") else np.asarray(value).item()


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", ())
    return f"{type(value).__name__} of shape {[*shape]}" if shape else type(value).__name__


def _shown(value: Any) -> str:
    return _kind(value) if hasattr(value, "shape") else repr(value)


def check_number(op: str, name: str, value: Any) -> Any:
    """The value, if it can serve as a number that a double holds."""
    if isinstance(value, float) or (isinstance(value, int) and (_is_compiling() or -_LARGEST <= value <= _LARGEST)):
        return value
    if _is_symbolic(value):
        return value
    number = as_number(op, name, value)
    if isinstance(number, (str, complex)) or not hasattr(number, "__float__"):
        raise TypeError(f"{op}: expected {name} as a number, got {_kind(value)}")
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"{op}: expected {name} as a number that float64 holds, got a larger one") from None


def is_integer(value: Any) -> bool:
    return isinstance(value, int) or hasattr(value, "__index__")  # in this order: torch.compile knows the first


def check_integer(op: str, name: str, value: Any) -> Any:
    """The value, if it can serve as an integer that int64 holds."""
    if isinstance(value, int) and (_is_compiling() or -(2**63) <= value < 2**63):
        return value
    if _is_symbolic(value):
        return value
    number = as_number(op, name, value)
    if not is_integer(number):
        raise TypeError(f"{op}: expected {name} as an integer, got {_kind(value)}")
    number = operator.index(number)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{op}: expected {name} as an integer that int64 holds, got a larger one")
    return number


def check_flag(op: str, name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    flag = as_number(op, name, value)
    if isinstance(flag, list) and flag is not value:
        raise TypeError(f"{op}: expected {name} as a bool, got {_kind(value)}")
    return bool(flag)


def check_choice(op: str, name: str, value: Any, known: Sequence[str]) -> str:
    """The value, if it is one of the known names."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{op}: expected {name} to be one of {', '.join(map(repr, known))}, got {_shown(value)}")
    return value


def choices(op: str, name: str) -> Sequence[str]:
    """The names that an argument of the op takes."""
    return SIGNATURES[op][name][2]


def check_list(op: str, name: str, values: Any, words: str = "a list or tuple") -> list[Any]:
    items = _as_lists(op, name, values)
    if not isinstance(items, (tuple, list)):
        raise TypeError(f"{op}: expected {name} as {words}, got {_kind(values)}")
    return list(items)


_are_floats, _are_integers = frozenset((float,)).issuperset, frozenset((int,)).issuperset


def check_numbers(op: str, name: str, values: Any) -> list[Any]:
    if type(values) is list and _are_floats(map(type, values)):
        return values
    return [check_number(op, name, value) for value in check_list(op, name, values, "numbers in a list or tuple")]


def check_integers(op: str, name: str, values: Any) -> list[Any]:
    return [check_integer(op, name, value) for value in check_list(op, name, values)]


def check_pair(op: str, name: str, pair: Any, words: str = "(height, width)", *, integers: bool = False) -> list[Any]:
    """The two numbers of a pair."""
    sides = pair if isinstance(pair, (tuple, list)) else _as_lists(op, name, pair)
    if not isinstance(sides, (tuple, list)) or len(sides) != 2:
        raise TypeError(f"{op}: expected {name} = {words}, got {_shown(pair)}")
    check = check_integer if integers else check_number
    return [check(op, name, side) for side in sides]


def check_pairs(op: str, name: str, pairs: Any, words: str = "(height, width)", *, integers: bool = False) -> list[Any]:
    """The pairs of a list, one after another."""
    return [
        side for pair in check_list(op, name, pairs) for side in check_pair(op, name, pair, words, integers=integers)
    ]


def check_pair_or_pairs(op: str, name: str, value: Any, words: str = "(height, width)") -> list[Any]:
    """The numbers of a pair, or of the pairs of a list, one after another."""
    values = value if isinstance(value, (tuple, list)) else _as_lists(op, name, value)
    first = values[0] if isinstance(values, (tuple, list)) and values else None
    if isinstance(first, (int, float)):  # in this order: torch.compile knows these
        return check_pair(op, name, value, words)
    many = isinstance(first, (tuple, list)) or [*getattr(first, "shape", ())] == [2]
    return check_pairs(op, name, values, words) if many else check_pair(op, name, value, words)


def check_one_or_pair(op: str, name: str, value: Any, words: str, *, integers: bool = False) -> list[Any]:
    """The two numbers of a pair, or one number twice."""
    if integers and type(value) is int:
        return [check_integer(op, name, value)] * 2
    sides = value if isinstance(value, (int, tuple, list)) else as_number(op, name, value)
    if not isinstance(sides, (tuple, list)):
        sides = (sides, sides)
    of_numbers = all(is_integer(side) if integers else hasattr(side, "__float__") for side in sides)
    if len(sides) != 2 or not of_numbers:
        kind = "an integer" if integers else "a number"
        raise TypeError(f"{op}: expected {name} as {kind} or {words}, got {_shown(value)}")
    return [check_integer(op, name, side) if integers else check_number(op, name, side) for side in sides]


# What the binding for NumPy checks itself, by the kind of an argument; for torch it is done here. Beside each check the
# type that needs none: of names, the op itself looks at the choices.
_CHECKS: dict[str, tuple[Any, type | None]] = {
    "bool": (check_flag, bool),
    "int": (check_integer, None),
    "float": (check_number, float),
    "name": (check_choice, str),
    "ints": (check_integers, None),
    "floats": (check_numbers, None),
}


def plain_arguments(op: str) -> list[tuple[Any, ...]]:
    """Of each argument of an op that is no array: its place, its name, and what `checked` needs to know."""
    return [
        (place, name, *_CHECKS[kind], optional, (known,) if kind == "name" else ())
        for place, (name, (kind, optional, known)) in enumerate(SIGNATURES[op].items())
        if kind in _CHECKS
    ]


def checked(op: str, plain: list[tuple[Any, ...]], args: Sequence[Any]) -> list[Any]:
    """An op's arguments, the plain ones checked: numbers of any kind become Python's."""
    values = list(args)
    for place, name, check, fine, optional, more in plain:
        value = values[place]
        if type(value) is not fine and not (optional and value is None):
            values[place] = check(op, name, value, *more)
    return values
