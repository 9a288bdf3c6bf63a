"""Makes the house's docstrings what mkdocstrings reads: links for :func:`name`, and results of several lines.

Builders of detectors are shown as they are called, with the arguments that their decorator gives them; former names
of arguments are not shown.
"""

import inspect
import re

import griffe

import boxops

DETECTOR = "boxops.models.builders.detector"


class Docstrings(griffe.Extension):
    def on_class(self, *, cls: griffe.Class, **_: object) -> None:
        if cls.docstring:
            cls.docstring.value = re.sub(r":(?:func|class|meth):(`[\w.]+`)", r"\1", cls.docstring.value)

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        if any(decorator.callable_path == DETECTOR for decorator in func.decorators):
            _as_called(func)
        if "former" in func.parameters:  # former names of arguments; see boxops.ops.deprecated
            del func.parameters["former"]
        if func.docstring:
            text = re.sub(r":func:`(\w+)`", _link, func.docstring.value)
            text = re.sub(r":(?:func|class|meth):(`[\w.]+`)", r"\1", text)  # not on these pages
            text = re.sub(r"(?m)^( {4}\w+: )(?=>)", r"\1\\", text)  # ">= 0" is no quotation
            func.docstring.value = re.sub(r"(?<=Returns:\n)(?: {4}.*\n?)+", _indented, text)


def _as_called(func: griffe.Function) -> None:
    from boxops.models import MODELS

    func.parameters = griffe.Parameters(*[
        griffe.Parameter(
            parameter.name,
            annotation=re.sub(r"\w+\.", "", inspect.formatannotation(parameter.annotation)),
            kind=griffe.ParameterKind(parameter.kind.description),
            default=repr(parameter.default),
        )
        for parameter in inspect.signature(MODELS[func.name]).parameters.values()
    ])  # fmt: skip


def _link(match: re.Match) -> str:
    name = match[1]
    if name not in boxops.__all__:
        return f"`{name}`"
    return f"[`{name}`][{getattr(boxops, name).__module__}.{name}]"


def _indented(match: re.Match) -> str:
    """A line that names no result of its own belongs to the one above."""
    first, *rest = match[0].splitlines()
    return "\n".join([first, *(line if re.match(r" {4}\w+: ", line) else f"    {line}" for line in rest)]) + "\n"
