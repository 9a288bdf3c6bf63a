"""The options of a model by name and type, checked before anything is read, downloaded or trained."""

from __future__ import annotations

import inspect
import types
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from boxops.cli.common import UserError

MOST = 1 << 12  # pixels; the sides of inputs that are tried


def check(name: str, settings: Mapping[str, Any]) -> None:
    """Builds the model without memory or weights; UserError names the option that is unknown or does not fit."""
    import torch

    from boxops import models

    known = hints(name)
    for key, value in settings.items():
        if known is not None and key not in known:
            raise UserError(f"--set {key}: expected an option of {name}, one of {', '.join(known)}")
        if known is not None and not fits(value, known[key]):
            raise UserError(f"--set {key}: expected {text(known[key])}, got {value!r}")
    try:
        with torch.device("meta"):
            model = models.create(
                name, 2, **{**settings, **({"pretrained": False} if "pretrained" in settings else {})}
            )
    except (RuntimeError, NotImplementedError):  # a network of timm that computes with its weights
        return
    size = getattr(getattr(model, "settings", None), "size", None)
    if size is not None and hasattr(model, "backbone"):  # a network of a cfg has checked it
        check_size(model.eval(), name, size)


def check_size(model: Any, name: str, size: int) -> None:
    """Whether all maps of the network have a cell for an input of that side; if one is too small, so are all below."""
    import torch

    def works(side: int) -> bool:
        try:
            model.backbone(torch.empty(1, 3, side, side, device="meta"))
        except (RuntimeError, ValueError):
            return False
        return True

    if not works(size):
        least = bisect_left(range(MOST), True, lo=1, key=works)
        raise UserError(f"--size: expected {least} or more, so that every map of {name} has a cell, got {size}")


def hints(name: str) -> dict[str, Any] | None:
    """The types of a builder's options; None where it takes any."""
    from boxops import models
    from boxops.models.builders import COMMON

    parameters = inspect.signature(models.MODELS[name]).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name: parameter.annotation for parameter in parameters if parameter.name not in COMMON}


def fits(value: Any, kind: Any) -> bool:
    if kind in (Any, None, type(None)):
        return kind is Any or value is None
    inside = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return any(fits(value, one) for one in inside)
    if get_origin(kind) is Sequence:
        return isinstance(value, list | tuple) and all(fits(one, inside[0]) for one in value)
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind) if isinstance(kind, type) else True


def text(kind: Any) -> str:
    """As it is written: ``float``, ``int | Sequence[int]``."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("collections.abc.", "")
