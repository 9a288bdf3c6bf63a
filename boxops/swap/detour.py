"""Leads a function's calls elsewhere without replacing it: its code changes in place.

So every reference follows (a name imported before, what a model holds), it pickles by the name it always had, and
nothing of ours stays behind when its code is put back.
"""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType
from typing import Any


def copy(function: FunctionType) -> FunctionType:
    """The function as it is now, whatever becomes of its code."""
    own = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    own.__kwdefaults__, own.__annotations__ = function.__kwdefaults__, function.__annotations__
    own.__module__, own.__qualname__, own.__doc__ = function.__module__, function.__qualname__, function.__doc__
    return own


def can_detour(function: object) -> bool:
    """Whether it is a Python function of plain arguments, without a closure."""
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    variable = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    return not (code.co_freevars or code.co_kwonlyargcount or variable)


def detour(function: FunctionType, module: str, name: str) -> CodeType:
    """Code of the function's signature and place that calls name of module.

    It claims the function's file and line, so that inspect.getsource, and with it torch.jit.script, finds the source
    that it always found.
    """
    code = function.__code__
    arguments = ", ".join(code.co_varnames[: code.co_argcount])
    source = f"def call({arguments}):\n from {module} import {name} as _step\n return _step({arguments})"
    made: dict[str, FunctionType] = {}
    exec(source, made)  # a string of names that torchvision and this package give
    place: dict[str, Any] = {
        "co_filename": code.co_filename,
        "co_firstlineno": code.co_firstlineno,
        "co_name": code.co_name,
    }
    if hasattr(code, "co_qualname"):  # Python 3.11
        place["co_qualname"] = code.co_qualname
    return made["call"].__code__.replace(**place)
