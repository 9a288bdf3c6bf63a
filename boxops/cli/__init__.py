"""The `boxops` command. A subcommand is a package with add_arguments(parser) and run(args) -> exit status."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from boxops.cli.common import add_commands

COMMANDS = {
    "bench": ("boxops.benchmarks", "verify every op, then time it against its rivals"),
    "data": ("boxops.cli.data", "what a data set holds, what is wrong in it; anchors for it"),
    "train": ("boxops.cli.train", "train a detector on your images, or on generated ones"),
    "detect": ("boxops.cli.detect", "find objects in images and videos; pictures or JSON come out"),
    "evaluate": ("boxops.cli.evaluate", "COCO or VOC average precision of a model or a result file"),
    "study": ("boxops.cli.study", "experiments that compare detectors"),
}


def main(argv: Sequence[str] | None = None) -> int:
    from boxops import __version__, _numpy_ops

    parser = argparse.ArgumentParser(prog="boxops", description="Box operations for detection.")
    parser.add_argument("--version", action="version", version=f"boxops {__version__} ({_numpy_ops.build_info()})")
    add_commands(parser, "command", COMMANDS)
    args = parser.parse_args(argv)
    usual = warnings.formatwarning
    warnings.formatwarning = partial(_in_one_line, usual)
    try:
        status: int = args.run(args)
    finally:
        warnings.formatwarning = usual
    return status


def _in_one_line(usual: Callable[..., str], message: Any, category: Any, filename: str, *place: Any) -> str:
    """A warning of boxops' own is for the person, who does not care where in the code it came up."""
    ours = Path(filename).is_relative_to(Path(__file__).parents[1])
    return f"boxops: {message}\n" if ours else usual(message, category, filename, *place)
