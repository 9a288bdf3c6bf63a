"""`boxops evaluate`: the metrics of a checkpoint, of a model with its weights, or of a result file."""

from __future__ import annotations

import argparse
from pathlib import Path

from boxops.cli.common import (
    SPLITS,
    UserError,
    add_data_arguments,
    data_kind,
    find_proposals,
    needs,
    one_line_errors,
    user_errors,
)
from boxops.cli.models import add_model_arguments, open_model
from boxops.cli.outputs import protect, save_json
from boxops.cli.splits import open_held_out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Average precision, COCO's or VOC's, or ILSVRC's localization, of one of

  boxops evaluate --checkpoint runs/ssd/best.pt --data voc --root DIR
  boxops evaluate --model faster_rcnn_resnet50_fpn --weights FILE_OR_URL --data coco --root DIR
  boxops evaluate --results results.json --annotations instances.json"""
    add_model_arguments(parser)
    add_data_arguments(parser)
    text = ", ".join(f"{kind} {splits[1]}" for kind, splits in SPLITS.items())
    parser.add_argument("--split", metavar="NAME", help=f"by default {text}; of files that name no splits what the "
                        "checkpoint's run held out of them. A share is train's --split; all takes all")  # fmt: skip
    parser.add_argument("--results", metavar="FILE", help="COCO's json of detections of --annotations' images, instead "
                        "of a model")  # fmt: skip
    parser.add_argument("--metric", choices=("coco", "voc", "voc2007", "localization"),
                        help="COCO's AP and AR, VOC's AP, or class and IoU of the one object of an image (the model's "
                        "own: coco of nearly all)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    parser.add_argument("--overwrite", action="store_true", help="--json may replace a file that boxops did not make")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="images at a time (4)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (2)")


@one_line_errors
def run(args: argparse.Namespace) -> int:
    for name, least in (("batch_size", 1), ("workers", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')}: expected {least} or more, got {getattr(args, name)}")
    if args.json is not None:
        read = [args.checkpoint, args.weights, args.cfg, args.results, args.annotations]
        protect([("--json", args.json)], read, args.overwrite)
    metrics = of_model(args) if args.results is None else of_file(args)

    from rich.console import Console

    from boxops import evaluation

    console = Console()
    for part in dict.fromkeys(name.partition("_")[0] for name in metrics):  # boxes, masks, keypoints
        own = {k.removeprefix(f"{part}_"): v for k, v in metrics.items() if k.startswith(f"{part}_")}
        console.print(f"{part}:", evaluation.table(own, console.width))
    if args.json is not None:
        with user_errors():
            save_json(metrics, args.json)
    return 0


def of_file(args: argparse.Namespace) -> dict[str, float]:
    for option in ("checkpoint", "model", "weights", "cfg", "data", "root"):
        if getattr(args, option) is not None:
            raise UserError(f"--results: expected --annotations alone with it, got --{option} too")
    if args.annotations is None:
        raise UserError("--results: expected --annotations FILE with it, got none")
    with user_errors():
        from boxops.evaluation import evaluate_files

        return evaluate_files(args.annotations, args.results, metric=args.metric or "coco")


def of_model(args: argparse.Namespace) -> dict[str, float]:
    with user_errors():
        data_kind(args)
        from boxops import evaluation
        from boxops.data import transforms

        model, checkpoint, _ = open_model(args)
        names, divided = list(checkpoint["classes"]), checkpoint.get("settings", {}).get("divided")
        data = open_held_out(args, divided, transform=transforms.evaluate(), **needs(model.config))
        print(data.report())
        labels = evaluation.by_name(names, data) if names else None
        if names and (other := evaluation.differences(names, data.classes)):
            print(f"{other}: detections of those do not count")
        find_proposals(model, data, workers=args.workers)
    try:
        return evaluation.evaluate(model, data, labels=labels, metric=args.metric, batch_size=args.batch_size,
                                   workers=args.workers, progress=True)  # fmt: skip
    except ValueError as error:  # a worker's has its traceback in front
        raise UserError(str(error).strip().splitlines()[-1]) from error
