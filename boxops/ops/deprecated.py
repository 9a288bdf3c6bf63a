"""Arguments under their former names: they still work, with a DeprecationWarning."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class nothing:  # named so that errors read "expected ..., got nothing"
    def __repr__(self) -> str:
        return "nothing"


_MISSING = nothing()


def renamed(**names: str) -> Callable[[Function], Function]:
    """Lets a function take arguments by keyword under former names, each given with the name of today.

    The function ends its parameters with ``**former: NoReturn`` and begins with
    ``if former: return by_new_names(function, locals())``; signature and help do not show the former names. A wrapper
    around it would cost each call 60 to 200 ns, this costs 5 to 10.
    """

    def decorate(function: Any) -> Any:
        signature = inspect.signature(function)
        parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        function.__signature__ = signature.replace(parameters=parameters)
        function.former_names = names
        if any(p.name in names.values() and p.default is p.empty for p in parameters):
            # What is required may come by its former name, so Python must not insist on the name of today.
            positional = [p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
            function.__defaults__ = tuple(_MISSING if default is inspect.Parameter.empty else default
                                          for default in positional)  # fmt: skip
        return function

    return decorate


def by_new_names(function: Any, arguments: dict[str, Any]) -> Any:
    """Calls the function again, with the arguments that came under former names under those of today."""
    op, parameters = function.__name__, inspect.signature(function).parameters
    for old, value in arguments.pop("former").items():
        new = function.former_names.get(old)
        if new is None:
            raise TypeError(f"{op}() got an unexpected keyword argument {old!r}")
        default = parameters[new].default
        if arguments[new] is not (_MISSING if default is inspect.Parameter.empty else default):
            raise TypeError(f"{op}() got both {new!r} and {old!r}, its former name")
        warnings.warn(f"{op}: {old} is now called {new}", DeprecationWarning, stacklevel=3)
        arguments[new] = value
    return function(**arguments)
