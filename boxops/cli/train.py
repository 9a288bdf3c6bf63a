"""`boxops train`: trains a detector on shapes, COCO, VOC, YOLO or CSV data."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from boxops.cli.common import (
    SPLITS,
    UserError,
    add_data_arguments,
    data_kind,
    key_value,
    one_line_errors,
    user_errors,
)
from boxops.cli.splits import open_splits
from boxops.training import Options

# By what the model's name holds, the first that fits; the rest is in Options. The small ones were tuned on 2 cores, the
# large ones are torchvision's for 8 GPUs, with a learning rate for as few images as here. AdamW takes steps of one size
# however small the gradients are: at the new layers' rate a few dozen of them silence much of a pretrained backbone.
SMALL = {"batch_size": 4, "optimizer": "adamw", "channels_last": True}
DEFAULTS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("ssd", "mobilenet"), {**SMALL, "lr": 1e-3, "backbone_lr": 0.1}),
    (("faster", "mobilenet"), {**SMALL, "batch_size": 2, "lr": 5e-4, "backbone_lr": 0.2}),
    (("mobilenet",), {**SMALL, "lr": 5e-4, "backbone_lr": 0.2}),
    (("ssd",), {"batch_size": 8, "optimizer": "sgd", "lr": 5e-4}),
    ((), {"batch_size": 4, "optimizer": "sgd", "lr": 5e-3}),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Trains a detector and says how to use it. Nothing but a model and data is needed:

  boxops train ssd --data shapes --epochs 3
  boxops train faster_rcnn --data coco --root DIR --backbone-weights FILE_OR_URL
  torchrun --nproc-per-node 4 -m boxops train mask_rcnn_resnet50_fpn --data coco --root DIR

In the run's folder: last.pt, best.pt, log.csv, metrics.csv, TensorBoard's logs, and in samples/ pictures of detections.
A run that was stopped or killed goes on with the same command and --resume."""
    parser.add_argument("model", help="ssd, faster_rcnn or mask_rcnn (MobileNetV2: learn on a CPU), or a long name: "
                        "ssd300_vgg16, faster_rcnn_resnet50_fpn, ...; an unknown one lists all")  # fmt: skip
    add_data_arguments(parser)
    text = ", ".join(f"{kind} {'/'.join(splits)}" for kind, splits in SPLITS.items())
    parser.add_argument("--train-split", metavar="NAME", help=f"by default, with the next: {text}")
    parser.add_argument("--eval-split", metavar="NAME", help="held-out images; none: no evaluation")
    parser.add_argument("--split", metavar="SHARE", help="learn from this share of the images and hold the others out; "
                        "0.8 where the files hold none out")  # fmt: skip
    parser.add_argument("--augment", choices=("rcnn", "ssd", "none"), default="rcnn", help="rcnn (flip), ssd (photo"
                        "metric, zoom out, crop, flip: for long runs) or none (rcnn)")  # fmt: skip
    parser.add_argument("--vertical-flip", action="store_true", help="for images that have no up and down")
    parser.add_argument("--jitter", action="store_true", help="for rcnn: vary brightness, contrast, saturation")
    group = parser.add_argument_group("model")
    group.add_argument("--size", type=int, help="SSD: side of its input; R-CNN: the shorter side")
    group.add_argument("--backbone-weights", metavar="FILE_OR_URL", help="the backbone's, or DEFAULT: of ImageNet")
    group.add_argument("--weights", metavar="FILE_OR_URL", help="the whole model's, or DEFAULT: torchvision's")
    group.add_argument("--fine-tune", action="store_true", help="of --weights take what fits: other classes")
    group.add_argument("--set", type=key_value, action="append", default=[], metavar="KEY=VALUE",
                       help="any option of the model, as norm=frozen, freeze=2, score_thresh=0.1")  # fmt: skip
    group = parser.add_argument_group("training")
    group.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (runs/MODEL)")
    group.add_argument("--resume", action="store_true", help="go on from last.pt in the run's folder, if there is one")
    group.add_argument("--overwrite", action="store_true", help="begin anew in a folder with another run")
    for option in fields(Options):
        usual = dict.fromkeys(str(values.get(option.name, option.default)) for _, values in DEFAULTS)
        told = ", ".join(usual) + " by model" * (len(usual) > 1)
        told = option.metadata["help"] + (f" ({told})" if told not in ("None", "False") else "")
        flag: dict[str, Any] = {"help": told, "default": argparse.SUPPRESS}
        if option.type == "bool":
            flag["action"] = argparse.BooleanOptionalAction
        else:
            flag["type"] = {"int": int, "float": float}.get(str(option.type).removesuffix(" | None"), str)
            flag |= {"choices": option.metadata["choices"]} if option.metadata["choices"] else {"metavar": "N"}
        group.add_argument("--" + option.name.replace("_", "-"), **flag)


def options_of(args: argparse.Namespace, name: str) -> Options:
    given = {option.name: getattr(args, option.name) for option in fields(Options) if hasattr(args, option.name)}
    usual = next(values for parts, values in DEFAULTS if all(part in name for part in parts))
    if not (args.weights or args.backbone_weights):  # nothing is pretrained
        usual = {**usual, "backbone_lr": 1.0}
    return Options(**{**usual, **given})


@one_line_errors
def run(args: argparse.Namespace) -> int:
    with user_errors():
        from boxops.training import Interrupted, TrainingError

        trainer, out = prepare(args)
    again = shlex.join(["boxops", *sys.argv[1:], *["--resume"] * ("--resume" not in sys.argv)]).replace(
        " --overwrite", ""
    )
    try:
        trainer.run()
    except (Interrupted, KeyboardInterrupt) as error:
        if trainer.rank == 0:
            print(
                f"boxops train: {error or 'stopped'}; saved in {out / 'last.pt'}; go on with: {again}", file=sys.stderr
            )
        return 143 if trainer.signals.name == "SIGTERM" else 130
    except (TrainingError, OSError) as error:
        raise UserError(f"{error}") from error
    except ValueError as error:  # a sample that cannot be read, with the traceback of the worker in front
        if args.on_bad == "raise" and type(error).__name__ == "BadData":
            raise UserError(str(error).strip().splitlines()[-1]) from error
        raise
    if trainer.rank == 0 and (out / "image.jpg").exists():
        image, checkpoint = shlex.quote(str(out / "image.jpg")), shlex.quote(str(out / "last.pt"))
        print(f"done; see detections: boxops detect --checkpoint {checkpoint} {image} --out detections.jpg")
    return 0


def prepare(args: argparse.Namespace) -> tuple[Any, Path]:
    import torch

    from boxops import models
    from boxops.data import transforms
    from boxops.evaluation import evaluate
    from boxops.training import HeldOut, Trainer

    name = models.full_name(args.model)
    if name not in models.MODELS:
        raise UserError(f"expected a model of {', '.join([*models.SHORT, *models.MODELS])}, got {args.model!r}")
    options = options_of(args, name)
    out = args.out or Path("runs") / args.model
    if (out / "last.pt").exists() and not args.resume and not args.overwrite:
        raise UserError(
            f"{out} has a run: --resume goes on with it, --overwrite begins anew, --out takes another folder"
        )
    for file in ("last.pt", "log.csv", "metrics.csv") if args.overwrite and not args.resume else ():
        (out / file).unlink(missing_ok=True)
    data_kind(args)
    settings = dict(args.set)
    keypoints = settings.get("num_keypoints", name.startswith(("keypoint_rcnn", "mask_rcnn")) and (
        args.data == "shapes" or name.startswith("keypoint_rcnn") or dict(args.data_option).get("keypoints", False)
    ))  # fmt: skip
    branches = {"masks": name.startswith("mask_rcnn"), "keypoints": bool(keypoints)}
    data, seen = open_splits(args, seed=options.seed, **branches)
    data.transform = transforms.train(
        args.augment, keypoint_flip=data.keypoint_flip, vertical_flip=args.vertical_flip, jitter=args.jitter
    )
    first = os.environ.get("RANK", "0") == "0"
    if first:
        print(data.report(), file=sys.stderr)
    if data.keypoint_names is not None and branches["keypoints"]:
        settings.setdefault("num_keypoints", len(data.keypoint_names))
    if args.size is not None:
        key = {"min_size": args.size, "max_size": 2 * args.size}
        if name.startswith("ssd"):
            key = {"size": args.size, **({"steps": None} if args.size != 300 else {})}
        settings = {**key, **settings}
    torch.manual_seed(options.seed)
    model = models.create(name, len(data.classes) + 1, weights=args.weights, fine_tune=args.fine_tune,
                          backbone_weights=args.backbone_weights, **settings)  # fmt: skip
    data.enough = transforms.enough(model.transform, args.augment)  # large photos are read no larger
    held_out = None
    if seen is not None:
        measure = partial(evaluate, batch_size=options.batch_size, workers=options.workers, progress=True)
        held_out = HeldOut(seen, measure, out, options.pictures)
        if first:
            held_out.save_image()
    return Trainer(model, data, options, out, held_out, resume=args.resume), out
