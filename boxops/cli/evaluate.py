"""`boxops evaluate`: average precision of a checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from boxops.cli.common import (
    SPLITS,
    UserError,
    add_data_arguments,
    branches,
    data_kind,
    one_line_errors,
    open_data,
    user_errors,
)

WIDTH = 140  # columns of the table, if need be more than the terminal has


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="last.pt or best.pt of boxops train")
    add_data_arguments(parser)
    text = ", ".join(f"{kind} {splits[1]}" for kind, splits in SPLITS.items())
    parser.add_argument("--split", metavar="NAME", help=f"by default: {text}")
    parser.add_argument(
        "--metric", default="coco", choices=("coco", "voc"), help="COCO's AP and AR, or VOC's AP (coco)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    parser.add_argument("--workers", type=int, default=2, help="processes that load images (2)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda; auto is a GPU if there is one")


@one_line_errors
def run(args: argparse.Namespace) -> int:
    with user_errors():
        from rich.console import Console

        from boxops import evaluation
        from boxops.data import transforms
        from boxops.training import load_model
        from boxops.training.parts import start_processes

        data_kind(args)
        _, _, device = start_processes(args.device)
        model, checkpoint = load_model(args.checkpoint, device)
        data = open_data(args, args.split or SPLITS[args.data][1], transform=transforms.evaluate(),
                         classes=checkpoint["classes"], **branches(model.config))  # fmt: skip
        if data.classes != checkpoint["classes"]:
            raise UserError(f"expected data of the classes {checkpoint['classes']}, got {data.classes}")
        print(data.report())
    metrics = evaluation.evaluate(model, data, metric=args.metric, workers=args.workers)
    console = Console()
    console = Console(width=max(console.width, WIDTH))
    for part in dict.fromkeys(name.partition("_")[0] for name in metrics):  # boxes, masks, keypoints
        own = {k.removeprefix(f"{part}_"): v for k, v in metrics.items() if k.startswith(f"{part}_")}
        console.print(f"{part}:", evaluation.table(own))
    if args.json is not None:
        with user_errors():
            args.json.write_text(json.dumps(metrics, indent=1))
    return 0
