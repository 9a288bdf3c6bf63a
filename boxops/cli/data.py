"""`boxops data`: what a data set holds, and the anchors for it."""

from __future__ import annotations

import argparse

from boxops.cli.common import add_commands

ACTIONS = {  # each a module with add_arguments(parser) and run(args)
    "check": ("boxops.cli.data_check", "what a data set holds, what is wrong in it"),
    "anchors": ("boxops.cli.data_anchors", "YOLO's anchors for a data set, by k-means over its boxes"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_commands(parser, "action", ACTIONS)
