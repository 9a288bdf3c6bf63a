"""What train, detect and evaluate share: flags of the data, key=value, and errors in one line. Imports no torch."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from importlib import import_module
from typing import Any

SPLITS = {
    "shapes": ("train", "val"),
    "coco": ("train", "val"),
    "voc": ("trainval", "test"),
    "yolo": ("train", "val"),
    "csv": ("train", "val"),
}


class UserError(Exception):
    """What a person can put right: one line, exit status 2."""


def one_line_errors(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Errors of arguments and files end with one line on stderr and exit status 2."""

    @wraps(run)
    def guarded(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except UserError as error:
            print(f"boxops {args.command}: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"boxops {args.command}: stopped", file=sys.stderr)
            return 130

    return guarded


@contextmanager
def user_errors() -> Iterator[None]:
    """Here files and arguments are at fault when something cannot be read or is out of range."""
    try:
        yield
    except ImportError as error:
        told = str(error)
        raise UserError(told if "pip install" in told else f'{told}: pip install "boxops[models]"') from error
    except (ValueError, TypeError, OSError) as error:
        raise UserError(str(error)) from error


def add_commands(parser: argparse.ArgumentParser, dest: str, table: Mapping[str, tuple[str, str]]) -> None:
    """Subcommands: by name, a module with add_arguments(parser) and run(args) -> exit status, and what it does.

    One that has subcommands of its own has no run."""
    commands = parser.add_subparsers(dest=dest, metavar=dest, required=True)
    for name, (package, text) in table.items():
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        module = import_module(package)
        command.set_defaults(run=getattr(module, "run", None))
        module.add_arguments(command)


def key_value(text: str) -> tuple[str, Any]:
    """``key=value``, the value as Python would read it, or else as text; ``classes`` and ``only`` are
    lists of names: ``only=cat,dog``."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"expected key=value, got {text!r}")
    if key in ("classes", "only") and not value.startswith("["):
        return key, [name.strip() for name in value.split(",")]
    try:
        return key, ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(value.lower(), value))
    except (ValueError, SyntaxError):
        return key, value


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--root", metavar="DIR", help="the folder of the data")
    add_format_arguments(group)
    group.add_argument("--on-bad", default="skip", choices=("skip", "raise"), help="bad annotations and images (skip)")


def add_format_arguments(group: Any) -> None:
    """What the files are and where, without the root."""
    group.add_argument("--data", metavar="KIND", help="coco, voc, yolo or csv, by default what the files look like; or "
                       "shapes (generated)")  # fmt: skip
    group.add_argument("--images", metavar="DIR", help="the folder of the images, if it is not in --root")
    group.add_argument(
        "--annotations", metavar="PATH", help="the annotations' file, or the folder of the xml or label files"
    )
    group.add_argument("--data-option", type=key_value, action="append", default=[], metavar="KEY=VALUE",
                       help="of the kind: masks=true, one_based=true, length=500, ...; "
                       "only=cat,dog: these classes alone")  # fmt: skip


def data_kind(args: argparse.Namespace) -> str:
    """The kind of the data, recognised where it is not named; it is put into the flags."""
    if args.data == "shapes" and (args.images or args.annotations):
        flag = "--images" if args.images else "--annotations"
        raise UserError(f"{flag}: expected data in files, got --data shapes, which are generated")
    if args.data in (None, "auto"):
        from boxops.data import kind_of

        annotations = data_options(args).get("annotations")
        if args.root is None and annotations is None:
            raise UserError(
                f"--data or --root: expected a kind of {', '.join(SPLITS)} or the folder of your data, got neither"
            )
        args.data = kind_of(args.root, annotations)
    elif args.data not in SPLITS:
        raise UserError(f"--data: expected one of {', '.join(SPLITS)}, got {args.data!r}")
    kind: str = args.data
    return kind


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """The kind's own options of the flags."""
    given = {"images": args.images, "annotations": args.annotations}
    return {name: value for name, value in given.items() if value is not None} | dict(args.data_option)


def open_data(args: argparse.Namespace, split: str, *, masks: bool, keypoints: bool, **options: Any) -> Any:
    """The data set of the flags, with the masks and keypoints that the model asks for."""
    from boxops.data import open_dataset

    given = data_options(args)
    for name in options:
        if options[name] is True and given.get(name) is False:
            raise UserError(f"--data-option {name}: expected true, as this model needs it, got false")
    if args.data in ("shapes", "coco", "yolo"):
        options["masks"] = masks
    if args.data in ("shapes", "coco"):
        options["keypoints"] = keypoints
    if args.data == "shapes":
        options.pop("classes", None)
    data = open_dataset(args.data, args.root, split=split, on_bad=args.on_bad, **{**options, **given})
    if masks and not data.has_masks:
        raise UserError(f"expected data with masks for this model, got {args.data} without")
    if keypoints and data.keypoint_names is None:
        raise UserError(f"expected data with keypoints for this model, got {args.data} without")
    return data


def find_proposals(model: Any, *data: Any, workers: int) -> None:
    """Those of all images, once, where the model is given its proposals; in one of several processes."""
    proposals = getattr(model, "proposals", None)
    if proposals is not None and is_first():
        proposals.prepare(*(part for part in data if part is not None), workers=workers, say=tell)


def is_first() -> bool:
    """Of several processes one speaks and writes."""
    return os.environ.get("RANK", "0") == "0"


def tell(text: str) -> None:
    if is_first():
        with suppress(OSError):  # a terminal that was closed
            print(text, file=sys.stderr, flush=True)


def needs(config: dict[str, Any]) -> dict[str, bool]:
    """What a model needs of its data: masks, keypoints, and more that its builder says."""
    from boxops.models import MODELS

    said = dict.fromkeys(MODELS[config["name"]].needs, True)
    return {"masks": False, "keypoints": bool(config.get("num_keypoints")), **said}
