"""`boxops detect`: detections of images and videos as pictures, videos and JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from boxops.cli.common import UserError, one_line_errors, user_errors
from boxops.cli.compare import Comparison, check_images, take_checkpoints
from boxops.cli.finder import Finder
from boxops.cli.inputs import Input, find_inputs
from boxops.cli.models import add_model_arguments, open_checkpoint, open_model
from boxops.cli.outputs import place, protect, save_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", help="images, videos, folders of images, patterns such as "
                        "'photos/**/*.jpg', URLs (http, https, file)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="PATH", help="the picture, or the .mp4 of a video; or the folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the detections: boxes are x1, y1, x2, y2")
    parser.add_argument("--overwrite", action="store_true", help="replace files that boxops did not make; never inputs")
    parser.add_argument("--threshold", type=float, default=0.5, help="the smallest score to report (0.5)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every Nth frame of a video (1)")
    parser.add_argument("--compare", nargs="+", action="extend", metavar="FILE",
                        help="checkpoints of several detectors, in place of a model: their detections side by side, "
                        "with the time of each for the image (with proposals, without the first call)")  # fmt: skip
    add_model_arguments(parser)


@one_line_errors
def run(args: argparse.Namespace) -> int:
    with user_errors():
        inputs, outs = prepare(args)
        finder: Finder | Comparison
        if args.compare:
            finder = Comparison(
                args.compare, [Finder(args, *open_checkpoint(path, args.device)) for path in args.compare]
            )
        else:
            finder = Finder(args, *open_model(args))
    failed = 0
    try:
        with progress(len(inputs)) as show:
            for i, (one, out) in enumerate(zip(inputs, outs, strict=True)):
                error = finder.look_at(one, out, partial(show, i))
                if error is not None and len(inputs) == 1 and not finder.told:
                    raise UserError(f"{one.name}: {error}") from error
                if error is not None:
                    failed += 1
                    print(f"{one.name}: left out, {error}")
    finally:  # stopped, or a full disk: what was found until then is not lost
        if args.json is not None and (finder.told or failed):
            with user_errors():
                save_json(finder.told, args.json)
    return 1 if failed else 0


def prepare(args: argparse.Namespace) -> tuple[list[Input], list[Path | None]]:
    """The inputs and the output of each, after all checks that take no model."""
    if args.out is None and args.json is None:
        raise UserError("expected --out PICTURE, --json FILE or both, got neither")
    if not 0 <= args.threshold <= 1:
        raise UserError(f"--threshold: expected a score of 0 to 1, got {args.threshold:g}")
    if args.every < 1:
        raise UserError(f"--every: expected 1 or more, got {args.every}")
    if args.compare:
        take_checkpoints(args)
    if not args.images:
        raise UserError("expected images, got none")
    inputs = find_inputs(args.images)
    if args.compare:
        check_images(inputs)
    several = len(inputs) > 1 or len(args.images) > 1 or Path(args.images[0]).is_dir()
    places = [] if args.out is None else place(inputs, args.out, several)
    planned = [("--out", path) for path in places] + ([("--json", args.json)] if args.json else [])
    models = [args.checkpoint, args.weights, args.cfg, *(args.compare or ())]
    read = [*models, *(one.path for one in inputs if not one.remote)]
    protect(planned, read, args.overwrite)
    if any(one.video for one in inputs):
        from boxops.data import video

        try:
            video.pyav()
        except ImportError as error:
            raise UserError(str(error)) from error
    return inputs, [*places] or [None] * len(inputs)


@contextmanager
def progress(total: int) -> Iterator[Callable[[int, str], None]]:
    """On a terminal, a function that shows how many inputs are done, and what is looked at now."""
    if not sys.stderr.isatty():
        yield lambda done, text: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)

        def show(done: int, text: str) -> None:
            bar.update(task, completed=done, description=escape(text))

        yield show
