"""`boxops study classification`: cosine decay, label smoothing and mixup, one upon the other, for a classifier.

The lecture's table, after He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", CVPR
2019 (arXiv:1812.01187), table 6. Label smoothing is the paper's: 1 - eps for the class, eps / (n - 1) for the others.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from boxops.cli.common import UserError, data_kind, is_first, one_line_errors, user_errors
from boxops.studies import increments, store

# He et al. 2019, table 6: top-1 on ImageNet, mixup without distillation.
PAPERS: dict[str, dict[str, float | None]] = {
    "ResNet-50-D": {"baseline": 0.7716, "cosine": 0.7791, "label_smoothing": 0.7831, "mixup": 0.7915},
    "Inception-V3": {"baseline": 0.7750, "cosine": 0.7819, "label_smoothing": 0.7840, "mixup": 0.7877},
    "MobileNet": {"baseline": 0.7190, "cosine": 0.7283, "label_smoothing": 0.7293, "mixup": 0.7328},
}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {  # each: its name, and what it adds to the row above
    "baseline": ("baseline", {"schedule": "multistep", "smoothing": 0.0, "alpha": 0.0}),
    "cosine": ("+ cosine decay", {"schedule": "cosine"}),
    "label_smoothing": ("+ label smoothing", {"smoothing": 0.1}),
    "mixup": ("+ mixup", {"alpha": 0.2}),
}
MEASURES = {"accuracy": "top-1", "class_accuracy": "mean of classes"}
OPTIONS = ("data", "root", "images", "annotations", "on_bad", "split", "data_option", "per_class", "model", "size",
           "weights", "epochs", "steps", "batch_size", "lr", "device", "workers", "quick")  # fmt: skip
USUAL: dict[str, Any] = {"seeds": 3, "size": 96, "epochs": 20}
QUICK: dict[str, Any] = {"seeds": 1, "size": 48, "epochs": 1, "batch_size": 8}
QUICK_SHAPES = {"size": 64, "length": 16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Trains a classifier, then adds to it, one by one: cosine decay, label smoothing,
mixup. Every row is trained with several seeds:

  boxops study classification --root DIR --weights mobilenet_v2-b0353104.pth
  boxops study classification --quick

DIR has images in folders named after their classes, maybe in train and val; or
it is data of boxops train, of which every object is cut out as an image. In
--out: the table as classification.csv, all numbers as classification.json, a
picture as classification.svg and classification.png, and the runs. A study that
was stopped or killed goes on with the same command and --resume."""
    increments.add_arguments(parser, "classification")
    parser.add_argument("--per-class", type=int, metavar="N", help="learn from at most so many images of each class")
    group = parser.add_argument_group("model")
    group.add_argument("--model", default="mobilenet_v2", metavar="NAME", help="of torchvision's (mobilenet_v2)")
    group.add_argument("--size", type=int, help="side of the input (96)")
    group.add_argument("--weights", metavar="FILE_OR_URL", help="of ImageNet, or DEFAULT; all but the last layer")
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, metavar="N", help="passes through the data (20)")
    group.add_argument("--steps", type=int, metavar="N", help="stop after so many steps")
    group.add_argument("--batch-size", type=int, metavar="N", help="images at a time (32)")
    group.add_argument("--lr", type=float, metavar="N", help="learning rate of SGD (0.05; with --weights 0.01)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda; auto is a GPU if there is one")
    group.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (2)")


@one_line_errors
def run(args: argparse.Namespace) -> int:
    with user_errors():
        prepare(args)
    begin = {
        "title": args.model,
        "theirs": "He et al. 2019: top-1 on ImageNet in %",
        "rows": {row: name for row, (name, _) in ROWS.items()},
        "left_out": {},
        "measures": MEASURES,
        "papers": PAPERS,
    }
    inputs = [args.annotations, args.weights]
    return increments.carry_out(
        args, "classification", begin, OPTIONS, lambda results: partial(train, args, results), inputs
    )


def prepare(args: argparse.Namespace) -> None:
    """All checks that need no data."""
    from boxops.data import kind_of
    from boxops.studies import classifier

    pretrained = {"batch_size": 32, "lr": 0.05 if args.weights is None else 0.01}
    increments.take_defaults(args, USUAL | pretrained, QUICK, QUICK_SHAPES)
    if args.data is None:
        try:
            args.data = kind_of(args.root, args.annotations)
        except ValueError as error:
            if args.annotations is not None or not classifier.has_classes(args.root):
                raise UserError(f"--root: {error}; and no folders of images by class") from error
            args.data = "folder"
    if args.data != "folder":
        data_kind(args)
    elif args.root is None or not classifier.has_classes(args.root):
        raise UserError(f"--root: expected folders of images by class, got {args.root or 'none'}")
    elif others := [name for name in ("images", "annotations", "data_option") if getattr(args, name)]:
        flag = others[0].replace("_", "-")
        raise UserError(f"--{flag}: expected it with annotated images, got folders of images by class in {args.root}")
    args.train_split = args.eval_split = None
    store.check_arguments(args, ("seeds", "size", "epochs", "steps", "batch_size", "per_class"))
    classifier.check(args.model, args.size)


def train(args: argparse.Namespace, results: dict[str, Any], row: str, seed: int, out: Path) -> dict[str, Any] | int:
    """The run of a row with a seed."""
    from boxops.cli.train import stopped
    from boxops.studies import classifier
    from boxops.training import Options, RunFolder, Trainer, TrainingError
    from boxops.training.logs import training_seconds
    from boxops.training.signals import early

    tricks: dict[str, Any] = {}
    for key in list(ROWS)[: list(ROWS).index(row) + 1]:
        tricks |= ROWS[key][1]
    given = {name: getattr(args, name) for name in ("epochs", "steps", "batch_size", "lr", "device", "workers")}
    slower = 1.0 if args.weights is None else 0.1
    options = Options(**given, seed=seed, schedule=tricks["schedule"], backbone_lr=slower, eval_every=0)
    trainer = None
    folder = RunFolder(out, first=is_first(), overwrite="--overwrite" in store.mode(args, results, out))
    try:
        with folder, early(), user_errors():
            learn, held_out = classifier.open_data(args, seed)
            model = classifier.build(args, len(learn.classes), tricks["smoothing"], tricks["alpha"], seed)
            measure = partial(classifier.accuracy, held_out, args.batch_size, args.workers)
            trainer = Trainer(model, learn, options, folder, measure, resume=args.resume)
        trainer.run()
    except KeyboardInterrupt as error:
        return stopped(error, trainer, args.command)
    except (TrainingError, OSError) as error:
        raise UserError(f"{error}") from error
    numbers = {name: float(store.last_row(out / "metrics.csv")[name]) for name in MEASURES} if is_first() else {}
    return {**numbers, "steps": trainer.step, "training_seconds": training_seconds(out),
            "machine": store.machine(trainer.device)}  # fmt: skip
