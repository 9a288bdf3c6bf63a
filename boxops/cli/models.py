"""The flags of a trained model, for detect and evaluate, and the model that they name. Imports no torch."""

from __future__ import annotations

import argparse
from typing import Any

from boxops.cli.common import UserError, key_value


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--checkpoint", metavar="FILE", help="last.pt or best.pt of boxops train")
    group.add_argument("--model", metavar="NAME", help="with --weights: a model such as faster_rcnn_resnet50_fpn")
    group.add_argument("--weights", metavar="FILE_OR_URL", help="its weights, as torchvision's of COCO")
    add_cfg_argument(group)
    group.add_argument("--set", type=key_value, action="append", default=[], metavar="KEY=VALUE",
                       help="with --model: its options, as num_classes=21")  # fmt: skip
    group.add_argument("--device", default="auto", help="auto, cpu, cuda; auto is a GPU if there is one")


def add_cfg_argument(group: Any) -> None:
    group.add_argument("--cfg", metavar="FILE", help="darknet's network of a YOLO (by default its tiny one)")


def cfg_of(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """The option cfg of a model, if it is given."""
    from boxops.cli import model_options
    from boxops.models import MODELS

    if args.cfg is None:
        return {}
    built = [known for known in MODELS if "cfg" in (model_options.hints(known) or {})]
    if name in MODELS and name not in built:
        raise UserError(f"--cfg: expected a model that is built from one, as {built[-1]}, got {name}")
    return {"cfg": args.cfg}


def open_model(args: argparse.Namespace) -> tuple[Any, dict[str, Any], Any]:
    """Folded model, its checkpoint, device; "classes" of the checkpoint is [] where they are not known."""
    if (args.checkpoint is None) == (args.model is None):
        raise UserError("expected either --checkpoint FILE or --model NAME --weights FILE_OR_URL")
    if args.checkpoint is not None:
        for option in ("weights", "cfg", "set"):
            if getattr(args, option):
                raise UserError(f"--{option}: expected it with --model, got --checkpoint, which has its own")
    elif args.weights is None:
        raise UserError("--model: expected --weights FILE_OR_URL with it, got none")

    if args.checkpoint is not None:
        return open_checkpoint(args.checkpoint, args.device)

    from boxops import models
    from boxops.evaluation.labels import names_of
    from boxops.training.parts import start_processes

    _, _, device = start_processes(args.device)
    full = models.full_name(args.model)
    names = models.categories(full)[1:]  # without the background
    options = {"num_classes": len(names) + 1} if names else {}
    model = models.create(args.model, weights=args.weights, **{**options, **cfg_of(args, full), **dict(args.set)})
    if len(names) + 1 != model.config["num_classes"]:
        names = names_of(model.config["num_classes"] - 1)
    return checked(model).to(device).fold(), {"classes": names}, device


def open_checkpoint(path: str, device: str) -> tuple[Any, dict[str, Any], Any]:
    """The same of a checkpoint."""
    from boxops.training import load_model
    from boxops.training.parts import start_processes

    _, _, place = start_processes(device)
    model, checkpoint = load_model(path, place)
    return checked(model).fold(), checkpoint, place


def checked(model: Any) -> Any:
    """The model; ImportError if its proposals need what is not here."""
    from boxops.models.proposals import Proposals, opencv

    if isinstance(getattr(model, "proposals", None), Proposals):
        opencv()
    return model


def find_anew(model: Any) -> None:
    """From now on the model's proposals, if it is given any, are found for every image, those in the cache too."""
    if getattr(model, "proposals", None) is not None:
        from boxops.models.proposal_cache import Cache

        model.proposals.cache = Cache(None)
