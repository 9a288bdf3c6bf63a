"""`boxops train`: trains a detector on shapes, COCO, VOC, YOLO or CSV data."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from boxops.cli.common import (
    SPLITS,
    UserError,
    add_data_arguments,
    data_kind,
    data_options,
    find_proposals,
    is_first,
    key_value,
    needs,
    one_line_errors,
    tell,
    user_errors,
)
from boxops.cli.models import add_cfg_argument, cfg_of
from boxops.cli.splits import open_splits
from boxops.training import Options

AUGMENTATION: dict[str, Any] = {"augment": None, "vertical_flip": False, "jitter": False, "mixup": 0.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Trains a detector and says how to use it. Nothing but a model and data is needed:

  boxops train ssd --data shapes --epochs 3
  boxops train faster_rcnn --root DIR --backbone-weights FILE_OR_URL
  torchrun --nproc-per-node 4 -m boxops train mask_rcnn_resnet50_fpn --root DIR

In the run's folder: last.pt, best.pt, log.csv, metrics.csv, TensorBoard's logs,
and in samples/ pictures of detections. A run that was stopped or killed goes on
with the same command and --resume."""
    parser.add_argument("model", help="localizer, sliding_window, rcnn, sppnet, fast_rcnn, faster_rcnn, mask_rcnn, "
                        "ssd, retinanet, fcos, yolo_v1, yolo_v2, yolo_v3, detr, pix2seq (learn on a CPU), or a long "
                        "name as faster_rcnn_resnet50_fpn; an unknown one lists all")  # fmt: skip
    add_data_arguments(parser)
    text = ", ".join(f"{kind} {'/'.join(splits)}" for kind, splits in SPLITS.items())
    parser.add_argument(
        "--train-split", metavar="NAME", help=f"images to learn from; this and --eval-split are by default: {text}"
    )
    parser.add_argument("--eval-split", metavar="NAME", help="held-out images; none: no evaluation")
    parser.add_argument("--split", metavar="SHARE", help="learn from this share of the images and hold the others out; "
                        "0.8 where the files hold none out")  # fmt: skip
    parser.add_argument("--augment", metavar="NAMES", help="rcnn (flip), ssd (colour, expand, crop, flip: for long "
                        "runs), yolo (exposure, shift, flip), none, or by commas any of mosaic, colour, jitter, "
                        "exposure, expand, crop, shift, flip (rcnn)")  # fmt: skip
    parser.add_argument("--mixup", type=float, metavar="ALPHA", help="two images in one, lambda from Beta(ALPHA, "
                        "ALPHA): 1.5 in the paper; of detectors whose losses weigh objects (none)")  # fmt: skip
    parser.add_argument("--vertical-flip", action="store_true", help="for images that have no up and down")
    parser.add_argument("--jitter", action="store_true", help="for rcnn: vary brightness, contrast, saturation")
    group = parser.add_argument_group("model")
    group.add_argument("--size", type=int, help="pixels of the images' side, of the shorter one where they keep their "
                       "proportions")  # fmt: skip
    group.add_argument("--backbone-weights", metavar="FILE_OR_URL", help="weights of the backbone (YOLO: of "
                       "the first layers), or DEFAULT: ImageNet's")  # fmt: skip
    group.add_argument("--weights", metavar="FILE_OR_URL", help="weights of the whole model, or DEFAULT: torchvision's")
    add_cfg_argument(group)
    group.add_argument("--fine-tune", action="store_true", help="load only what fits from --weights: other classes")
    group.add_argument("--set", type=key_value, action="append", default=[], metavar="KEY=VALUE",
                       help="any option of the model, as norm=frozen, freeze=2, score_thresh=0.1")  # fmt: skip
    group = parser.add_argument_group("training")
    group.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (runs/MODEL)")
    group.add_argument("--resume", action="store_true", help="go on from last.pt in the run's folder, if there is one")
    group.add_argument("--overwrite", action="store_true", help="begin anew in a folder with another run")
    for option in fields(Options):
        told = "by model" if option.metadata["by_model"] else str(option.default)
        told = option.metadata["help"] + (f" ({told})" if told not in ("None", "False") else "")
        flag: dict[str, Any] = {"help": told, "default": argparse.SUPPRESS}
        if option.type == "bool":
            flag["action"] = argparse.BooleanOptionalAction
        else:
            flag["type"] = {"int": int, "float": float}.get(str(option.type).removesuffix(" | None"), str)
            flag |= {"choices": option.metadata["choices"]} if option.metadata["choices"] else {"metavar": "N"}
        group.add_argument("--" + option.name.replace("_", "-"), **flag)


@one_line_errors
def run(args: argparse.Namespace) -> int:
    with user_errors():
        from boxops.training import RunFolder, TrainingError
        from boxops.training.signals import early

    folder = RunFolder(args.out or Path("runs") / args.model, first=is_first(), overwrite=args.overwrite)
    trainer = None
    try:
        with folder:
            with early(), named_flags(args), user_errors():
                trainer = prepare(args, folder)
            trainer.run()
    except KeyboardInterrupt as error:
        return stopped(error, trainer)
    except (TrainingError, OSError) as error:
        raise UserError(f"{error}") from error
    except ValueError as error:  # a sample that cannot be read, with the traceback of the worker in front
        if args.on_bad == "raise" and type(error).__name__ == "BadData":
            raise UserError(str(error).strip().splitlines()[-1]) from error
        raise
    if trainer.rank == 0 and (folder.path / "image.jpg").exists():
        image, checkpoint = shlex.quote(str(folder.path / "image.jpg")), shlex.quote(str(folder.path / "last.pt"))
        print(f"done; see detections: boxops detect --checkpoint {checkpoint} {image} --out detections.jpg")
    return 0


def stopped(error: KeyboardInterrupt, trainer: Any, command: str = "train") -> int:
    """What the signal left behind; the exit status."""
    told = [f"boxops {command}: {error or 'stopped'}"]
    if trainer is not None:
        told.append(trainer.kept)
        if trainer.saved_step is not None:
            words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
            told.append(f"go on with: {shlex.join(['boxops', *words, '--resume'])}")
    tell("; ".join(told))
    return 128 + int(getattr(error, "number", signal.SIGINT))


@contextmanager
def named_flags(args: argparse.Namespace) -> Iterator[None]:
    """Errors that begin with the name of an option get its flag instead: ``lr: ...`` is ``--lr: ...``."""
    names = [*(option.name for option in fields(Options)), "data", *AUGMENTATION]
    flags = {key: f"--set {key}" for key, _ in args.set} | {name: "--" + name.replace("_", "-") for name in names}
    flags |= {"size": "--size"} if args.size is not None else {}
    try:
        yield
    except UserError as error:
        name, colon, rest = str(error).partition(":")
        raise UserError(flags.get(name, name) + colon + rest) from error


def prepare(args: argparse.Namespace, folder: Any) -> Any:
    """The Trainer. Everything is opened and checked before the folder is touched."""
    import torch

    from boxops import models
    from boxops.data import transforms
    from boxops.evaluation import evaluate
    from boxops.training import HeldOut, Trainer
    from boxops.training.parts import check_amp, find_device

    name = models.full_name(args.model)
    if name not in models.MODELS:
        raise UserError(f"expected a model of {', '.join([*models.SHORT, *models.MODELS])}, got {args.model!r}")
    check_flags(args)
    former = open_folder(args, folder)
    options = options_of(args, name, former.get("options", {}))
    check_amp(options.amp, find_device(options.device))
    config = check_model(args, name, former, folder)
    settings = augmentation(args, name, former, folder)
    data, seen = open_splits(args, seed=options.seed, **needs(config))
    names, mixup = settings["augment"], settings["mixup"]
    transforms.augment(data, names, **{key: settings[key] for key in AUGMENTATION if key != "augment"})
    tell(data.report())
    if data.keypoint_names is not None and needs(config)["keypoints"] and not former:
        config["num_keypoints"] = dict(args.set).get("num_keypoints", len(data.keypoint_names))
    torch.manual_seed(options.seed)
    if former:
        model = models.create(**config)
    else:
        model = models.create(**{**config, "num_classes": len(data.classes) + 1}, weights=args.weights,
                              fine_tune=args.fine_tune, backbone_weights=args.backbone_weights)  # fmt: skip
    data.enough = transforms.enough(model.transform, names)  # large photos are read no larger
    if mixup and not model.weighted:
        raise UserError(f"--mixup: expected a detector whose losses weigh objects, got {name}, whose do not")
    if mixup and model.proposals is not None:
        raise UserError(f"--mixup: expected 0 for {name}, whose proposals are of whole images, got {mixup:g}")
    if "mosaic" in transforms.parts(names) and needs(config).get("one_object"):
        raise UserError(f"--augment: expected no mosaic for {name}, which learns one object an image, got {names}")
    if model.proposals is not None:
        if {*transforms.parts(names)} - {*transforms.UNMOVED}:
            whole = [recipe for recipe, parts in transforms.RECIPES.items() if {*parts} <= {*transforms.UNMOVED}]
            raise UserError(f"--augment: expected {' or '.join(whole)} for {name}, whose proposals are of whole "
                            f"images, got {names}")  # fmt: skip
        data.proposals = model.proposals
        find_proposals(model, data, seen, workers=options.workers)
    held_out = None
    if seen is not None:
        measure = partial(evaluate, batch_size=options.batch_size, workers=options.workers, progress=True)
        held_out = HeldOut(seen, measure, folder.path, options.pictures)
    if data.divided is not None:  # for `boxops evaluate`
        settings["divided"] = list(data.divided)
    trainer = Trainer(model, data, options, folder, held_out, resume=bool(former), settings=settings)
    if trainer.finished:
        tell(f"{folder.path}: the run is done, {trainer.step} of {trainer.total} steps; more --epochs or --steps go on")
    elif held_out is not None and is_first():
        held_out.save_image()
    return trainer


def check_flags(args: argparse.Namespace) -> None:
    """What can be told from the flags alone."""
    if args.overwrite and args.resume:
        raise UserError("--overwrite: begins anew, but --resume goes on: expected one of them, got both")
    data_kind(args)
    if args.data != "shapes" and args.root is None and not {"annotations", "images"} & data_options(args).keys():
        raise UserError(f"--root: expected the folder of the data for --data {args.data}, got none")
    if args.fine_tune and args.weights is None:
        raise UserError("--fine-tune: expected --weights with it, got none")
    if args.size is not None and args.size < 1:
        raise UserError(f"--size: expected 1 or more, got {args.size}")


def open_folder(args: argparse.Namespace, folder: Any) -> dict[str, Any]:
    """The checkpoint to go on from, or {} for a new run."""
    from boxops.training.checkpoint import load

    try:
        folder.open()
    except OSError as error:
        raise UserError(f"--out: {error}") from error
    out, last = folder.path, folder.path / "last.pt"
    if args.resume and last.exists():
        for flag in ("weights", "backbone_weights", "cfg"):
            if getattr(args, flag) is not None:
                tell(f"--{flag.replace('_', '-')}: not read, since the run goes on from {last}")
        return load(last)
    if args.resume and folder.has_run:
        raise UserError(f"--resume: expected {last}, got only best.pt, which has nothing to go on from; --overwrite "
                        "begins anew, --out takes another folder")  # fmt: skip
    if args.resume:
        tell(f"--resume: {out} has no run yet, so one begins")
    elif folder.has_run and not args.overwrite:
        raise UserError(
            f"{out} has a run: --resume goes on with it, --overwrite begins anew, --out takes another folder"
        )
    return {}


def options_of(args: argparse.Namespace, name: str, former: Mapping[str, Any]) -> Options:
    """What is given, else what the run to go on with has, else what is usual for the model."""
    from boxops.models import MODELS

    given = {option.name: getattr(args, option.name) for option in fields(Options) if hasattr(args, option.name)}
    usual = MODELS[name].training
    if not (args.weights or args.backbone_weights):  # nothing is pretrained
        usual = {**usual, "backbone_lr": 1.0}
    known = {option.name: former[option.name] for option in fields(Options) if option.name in former}
    if "epochs" in given:
        known.pop("steps", None)  # the older limit
    return Options(**{**usual, **known, **given})


def check_model(args: argparse.Namespace, name: str, former: Mapping[str, Any], folder: Any) -> dict[str, Any]:
    """The model's name and options, checked; for a run to go on with, its own."""
    from boxops.cli import model_options
    from boxops.models import MODELS
    from boxops.training.resuming import check_model

    settings, known = dict(args.set), model_options.hints(name) or {}
    size = settings.get("size") if args.size is None and "size" in known else args.size
    if size is not None:
        sized = MODELS[name].sized(size)
        key = next(iter(sized))
        if args.size is not None and settings.get(key, sized[key]) != sized[key]:
            raise UserError(f"--size: expected one size, got {args.size} and --set {key}={settings[key]}")
        settings = {**sized, **settings}
    if former:
        last, config = folder.path / "last.pt", dict(former["model"])
        asked = {"name": name, **settings}
        check_model(last, {key: value for key, value in config.items() if key in asked}, asked)
        return config
    settings |= cfg_of(args, name)
    model_options.check(name, settings)
    points = args.data == "shapes" or dict(args.data_option).get("keypoints", False)  # those of the data are learnt too
    if "num_keypoints" in known and (points or needs({"name": name})["keypoints"]):
        settings.setdefault("num_keypoints", 17)  # until the data are read
    return {"name": name, **settings}


def augmentation(args: argparse.Namespace, name: str, former: Mapping[str, Any], folder: Any) -> dict[str, Any]:
    """How the images vary, and what they are: kept in the checkpoints, since a run goes on with it."""
    from boxops.data import transforms
    from boxops.training.resuming import other

    given = {"data": args.data, **{key: getattr(args, key) for key in AUGMENTATION}}
    asked = {key: value for key, value in given.items() if value is not None and value is not False}
    settings = {"data": args.data, **AUGMENTATION, "augment": transforms.USUAL, **former.get("settings", {})}
    for key, value in asked.items() if former.get("settings") else ():
        if settings[key] != value:
            raise UserError(other(folder.path / "last.pt", key, settings[key], value))
    settings |= asked
    names = settings["augment"]
    transforms.parts(names)  # raises where one is unknown
    if settings["jitter"] and names != transforms.USUAL:
        raise UserError(f"--jitter: expected --augment {transforms.USUAL} with it, got {names}")
    if settings["vertical_flip"] and not transforms.parts(names):
        *recipes, last = [name for name, parts in transforms.RECIPES.items() if parts]
        raise UserError(f"--vertical-flip: expected --augment {', '.join(recipes)} or {last} with it, got {names}")
    return settings
