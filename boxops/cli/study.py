"""`boxops study`: experiments that compare detectors, each with a table, files and a picture."""

from __future__ import annotations

import argparse
from importlib import import_module

STUDIES: dict[str, tuple[str, str]] = {}  # each a module with add_arguments(parser) and run(args)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    studies = parser.add_subparsers(dest="study", metavar="study", required=True)
    for name, (package, text) in STUDIES.items():
        study = studies.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        module = import_module(package)
        module.add_arguments(study)
        study.set_defaults(run_study=module.run)


def run(args: argparse.Namespace) -> int:
    status: int = args.run_study(args)
    return status
