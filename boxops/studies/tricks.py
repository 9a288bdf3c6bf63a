"""`boxops study tricks`: what training does for a detector that stays the same, trick upon trick.

The lecture's table, after Zhang et al., "Bag of Freebies for Training Object Detection Neural Networks", 2019
(arXiv:1902.04103). Each run is one of `boxops train` in a folder of its own.
"""

from __future__ import annotations

import argparse
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from boxops.cli.common import (
    UserError,
    data_kind,
    is_first,
    key_value,
    needs,
    one_line_errors,
    user_errors,
)
from boxops.studies import increments, store

# Zhang et al. 2019, table 2: YOLOv3 at 416 pixels on Pascal VOC 2007.
PAPER: dict[str, float | None] = {
    "baseline": 0.6426,
    "augmentation": 0.8025,
    "sync_bn": 0.8081,
    "random_shapes": 0.8123,
    "cosine": 0.8169,
    "label_smoothing": 0.8214,
    "mixup": 0.8368,
}
ROWS = {  # each: its name, and what it adds to the words of the row above
    "baseline": ("baseline", ["--augment", "none", "--schedule", "multistep"]),
    "augmentation": ("+ augmentation", []),  # --augment
    "sync_bn": ("+ synchronised BN", ["--sync-bn"]),
    "random_shapes": ("+ random shapes", ["--set", "multi_scale=true"]),
    "cosine": ("+ cosine decay", ["--schedule", "cosine"]),
    "label_smoothing": ("+ label smoothing", ["--set", "label_smoothing=0.1"]),
    "mixup": ("+ mixup", ["--mixup", "1.5"]),
}
NEEDS: dict[str, tuple[str, Any]] = {  # options of the model
    "random_shapes": ("multi_scale", True),
    "label_smoothing": ("label_smoothing", 0.1),
}
MEASURES = {"box_AP50": "AP50", "VOC_AP": "VOC07 AP"}  # COCO's, and of 11 points
FLAGS = ("data", "root", "images", "annotations", "on_bad", "split", "size", "cfg", "weights", "backbone_weights",
         "epochs", "steps", "batch_size", "lr", "device", "workers")  # fmt: skip  # of boxops train
OPTIONS = (*FLAGS, "model", "set", "augment", "fine_tune", "data_option", "quick", "processes")
USUAL: dict[str, Any] = {"seeds": 3}
QUICK: dict[str, Any] = {"seeds": 1, "size": 96, "steps": 3, "batch_size": 2}
QUICK_SHAPES = {"size": 96, "max_objects": 2, "length": 8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Trains a detector without augmentation, then adds to it, one by one:
augmentation, synchronised batch norm, random shapes, cosine decay, label
smoothing, mixup. Every row is trained with several seeds:

  boxops study tricks --root DIR --epochs 30
  torchrun --nproc-per-node 2 -m boxops study tricks --root DIR --epochs 30
  boxops study tricks --quick

In --out: the table as tricks.csv, all numbers as tricks.json, a picture as
tricks.svg and tricks.png, and the runs. Synchronised batch norm is run with
several processes only. A study that was stopped or killed goes on with the same
command and --resume."""
    increments.add_arguments(parser, "tricks")
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="yolo_v3", metavar="NAME", help="(yolo_v3, whose network is YOLOv3-tiny's)")
    group.add_argument("--size", type=int, help="side of the input (by model)")
    group.add_argument("--cfg", metavar="FILE", help="darknet's network of a YOLO")
    group.add_argument("--weights", metavar="FILE_OR_URL", help="begin with these, as in boxops train")
    group.add_argument("--fine-tune", action="store_true", help="load only what fits from --weights: other classes")
    group.add_argument("--backbone-weights", metavar="FILE_OR_URL", help="as in boxops train")
    group.add_argument("--set", type=key_value, action="append", default=[], metavar="KEY=VALUE",
                       help="any option of the model, as in boxops train")  # fmt: skip
    group = parser.add_argument_group("training")
    group.add_argument("--augment", default="ssd", metavar="NAMES", help="the augmentation, as in boxops train (ssd)")
    group.add_argument("--epochs", type=int, metavar="N", help="passes through the data (by model)")
    group.add_argument("--steps", type=int, metavar="N", help="stop after so many steps")
    group.add_argument("--batch-size", type=int, metavar="N", help="images at a time (by model)")
    group.add_argument("--lr", type=float, metavar="N", help="learning rate (by model)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda; auto is a GPU if there is one")
    group.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (2)")


@one_line_errors
def run(args: argparse.Namespace) -> int:
    with user_errors():
        left_out = prepare(args)
    begin = {
        "title": args.model,
        "theirs": "Zhang et al. 2019: YOLOv3 on VOC 2007, mAP in %",
        "rows": {row: name for row, (name, _) in ROWS.items()},
        "left_out": left_out,
        "measures": MEASURES,
        "papers": {"the paper": PAPER},
    }
    inputs = [args.annotations, args.cfg, args.weights, args.backbone_weights]
    return increments.carry_out(args, "tricks", begin, OPTIONS, lambda results: partial(train, args, results), inputs)


def prepare(args: argparse.Namespace) -> dict[str, str]:
    """The rows that are not run, and why, after all checks that need no data."""
    import torch

    from boxops import models
    from boxops.cli import model_options
    from boxops.data import transforms

    increments.take_defaults(args, USUAL, QUICK, QUICK_SHAPES)
    data_kind(args)
    store.check_arguments(args, ("seeds", "size", "epochs", "steps", "batch_size"))
    name = models.full_name(args.model)
    if name not in models.MODELS:
        raise UserError(f"--model: expected one of {', '.join([*models.SHORT, *models.MODELS])}, got {args.model!r}")
    try:
        parts = transforms.parts(args.augment)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    if not parts:
        raise UserError(f"--augment: expected an augmentation, which the second row adds, got {args.augment}")
    model_options.check(name, dict(args.set))
    args.processes = int(os.environ.get("WORLD_SIZE", 1))
    left_out = {}
    if args.processes == 1:
        left_out["sync_bn"] = "the batch norm of a single process sees the whole batch"
    for row, option in NEEDS.items():
        try:
            model_options.check(name, {**dict(args.set), **dict([option])})
        except (UserError, ValueError):
            left_out[row] = f"{name} has no {option[0]}"
    with torch.device("meta"):
        model = models.create(name, 2)
    if model.metric != "coco":
        raise UserError(f"--model: expected a detector whose AP50 is measured, got {name}")
    if not model.weighted or model.proposals is not None:
        left_out["mixup"] = f"{name} does not learn from mixed images"
    return {row: left_out[row] for row in ROWS if row in left_out}


def words_of(args: argparse.Namespace, row: str, left_out: Any) -> list[str]:
    """Those of `boxops train` for a row, but for seed and folder."""
    words = ["train", args.model]
    for name in FLAGS:
        if (value := getattr(args, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--fine-tune"] * args.fine_tune
    for key, value in args.data_option:
        words += ["--data-option", f"{key}={value!r}"]
    for key, value in args.set:
        words += ["--set", f"{key}={value!r}"]
    if "random_shapes" not in left_out:
        words += ["--set", "multi_scale=false"]  # of YOLO the cfg says it else
    words += ["--eval-every", "0", "--pictures", "0"]
    for key, (_, added) in ROWS.items():
        if key not in left_out:
            words += ["--augment", args.augment] if key == "augmentation" else added
        if key == row:
            break
    return words


def train(args: argparse.Namespace, results: dict[str, Any], row: str, seed: int, out: Path) -> dict[str, Any] | int:
    """The run of a row with a seed."""
    from boxops.cli import main

    words = [*words_of(args, row, results["left_out"]), "--seed", str(seed)]
    if status := main([*words, "--out", str(out), *store.mode(args, results, out)]):
        return status
    if not is_first():
        return {}
    with user_errors():
        return {"command": shlex.join(["boxops", *words]), **measure(args, out)}


def measure(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """What a run took and gave."""
    from boxops.cli.models import open_checkpoint
    from boxops.cli.splits import open_held_out
    from boxops.data import transforms
    from boxops.evaluation import evaluate
    from boxops.training.logs import training_seconds

    model, checkpoint, device = open_checkpoint(str(out / "last.pt"), args.device)
    options, divided = checkpoint["options"], checkpoint["settings"].get("divided")
    data = open_held_out(args, divided, transform=transforms.evaluate(), seed=options["seed"], **needs(model.config))
    voc = evaluate(model, data, metric="voc2007", batch_size=options["batch_size"], workers=args.workers)
    coco = store.last_row(out / "metrics.csv")
    return {
        "box_AP50": float(coco["box_AP50"]),
        "box_AP": float(coco["box_AP"]),
        "VOC_AP": voc["VOC_AP"],
        "steps": int(coco["step"]),
        "training_seconds": training_seconds(out),
        "machine": store.machine(device),
    }
