"""`boxops study`: experiments that compare detectors, each with a table, files and a picture."""

from __future__ import annotations

import argparse

from boxops.cli.common import add_commands

STUDIES = {  # each a module with add_arguments(parser) and run(args)
    "proposals": ("boxops.studies.proposals", "recall of proposals, method by method, over their number"),
    "tricks": ("boxops.studies.tricks", "what augmentation, mixup, label smoothing and more do for a detector"),
    "classification": (
        "boxops.studies.classification",
        "what cosine decay, label smoothing and mixup do for a classifier",
    ),
    "regions": ("boxops.studies.regions", "R-CNN, SPP-net, Fast and Faster R-CNN: training and test times compared"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_commands(parser, "study", STUDIES)
