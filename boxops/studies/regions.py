"""`boxops study regions`: R-CNN, SPP-net, Fast R-CNN and Faster R-CNN, trained and timed on one machine.

Each system is a run of `boxops train` in a folder of its own, then timed on held-out images one at a time. What is
known of a system goes into regions.json when it is done, so that a study that was stopped goes on with --resume.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from boxops.cli.common import UserError, add_data_arguments, data_kind, needs, one_line_errors, tell, user_errors
from boxops.studies import regions_report as report
from boxops.studies import store

# Seconds, on VGG16 and a GPU of the time. R-CNN, SPP-net and Fast R-CNN: the lecture's bars, after Girshick, "Fast
# R-CNN", ICCV 2015, table 4; "with" adds the 2 s of selective search. Faster R-CNN: Ren et al., NeurIPS 2015, table 5.
PAPERS: dict[str, dict[str, float | None]] = {
    "rcnn": {"training": 84 * 3600, "with": 49, "without": 47},
    "sppnet": {"training": 25.5 * 3600, "with": 4.3, "without": 2.3},
    "fast_rcnn": {"training": 8.75 * 3600, "with": 2.3, "without": 0.32},
    "faster_rcnn": {"training": None, "with": 0.2, "without": None},
}
PASSED_ON = ("data", "root", "images", "annotations", "on_bad", "split", "backbone_weights", "device", "workers",
             "seed")  # fmt: skip
OPTIONS = (*PASSED_ON, "backbone", "size", "proposals", "max_proposals", "data_option", "epochs", "steps",
           "test_images", "quick")  # fmt: skip
FILES = ("regions.json", "regions.csv", "regions.svg", "regions.png")
USUAL: dict[str, Any] = {"proposals": "selective_search_fast", "max_proposals": 2000, "test_images": 20}
QUICK: dict[str, Any] = {"size": 256, "proposals": "edge_boxes", "max_proposals": 300, "test_images": 5}
QUICK_STEPS = 4
QUICK_SHAPES = {"size": 256, "max_objects": 3, "length": 12}


def per_system(text: str) -> tuple[str | None, int]:
    """``N``, or ``SYSTEM=N`` for one of them."""
    system, sign, number = text.rpartition("=")
    if (sign and system not in PAPERS) or not number.isdigit() or number == "0":
        raise argparse.ArgumentTypeError(f"expected N or SYSTEM=N with a system of {', '.join(PAPERS)}, got {text!r}")
    return system or None, int(number)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Trains R-CNN, SPP-net, Fast R-CNN and Faster R-CNN on the same backbone, images
and proposals (Faster R-CNN makes its own), times them, and compares:

  boxops study regions --root DIR --backbone-weights FILE_OR_URL
  boxops study regions --quick

In --out: a table, regions.csv, regions.json, pictures regions.svg and
regions.png, and the runs: rcnn, sppnet, fast_rcnn, faster_rcnn. Without data
it takes shapes, which are generated. A study that was stopped goes on with
the same command and --resume."""
    add_data_arguments(parser)
    parser.add_argument("--split", metavar="SHARE", help="learn from this share of the images, as in boxops train")
    store.add_arguments(parser, "regions")
    parser.add_argument("--quick", action="store_true", help="small images, a few steps and proposals: some minutes on "
                        "2 cores, for the times alone")  # fmt: skip
    parser.add_argument("--test-images", type=int, metavar="N", help="held-out images to time (20)")
    group = parser.add_argument_group("model")
    group.add_argument("--backbone", default="mobilenet_v2", metavar="NAME", help="mobilenet_v2, alexnet or vgg16")
    group.add_argument(
        "--backbone-weights", metavar="FILE_OR_URL", help="weights of the backbone, or DEFAULT: ImageNet's"
    )
    group.add_argument("--size", type=int, help="the images' shorter side (by model)")
    group.add_argument("--proposals", metavar="METHOD", help="selective_search_fast, or another one of boxops study "
                       "proposals; not Faster R-CNN's")  # fmt: skip
    group.add_argument("--max-proposals", type=int, metavar="N", help="of an image, likewise (2000)")
    group = parser.add_argument_group("training")
    for name, text in (("epochs", "passes through the data"), ("steps", "stop after so many steps")):
        text += " (by model); SYSTEM=N: of that system"
        group.add_argument(f"--{name}", nargs="+", action="extend", type=per_system, default=[], metavar="N", help=text)
    group.add_argument("--device", default="auto", help="auto, cpu, cuda; auto is a GPU if there is one")
    group.add_argument("--workers", type=int, default=2, metavar="N", help="processes that load images (2)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")


@one_line_errors
def run(args: argparse.Namespace) -> int:
    from boxops.cli import main

    with user_errors():
        from boxops.training import RunFolder

        plan = prepare(args)
    with RunFolder(args.out) as folder:  # which no other study can write to until then
        with user_errors():
            folder.open()
            begin = {"papers": PAPERS, "systems": {}}
            results = store.open_results(
                args, "regions", begin, OPTIONS, plan, [args.annotations, args.backbone_weights]
            )
        for system, words in plan.items():
            if system in results["systems"]:
                tell(f"{report.NAMES[system]}: done before")
                continue
            out = args.out / system
            command = [*words, "--out", str(out), *store.mode(args, results, out)]
            tell(f"{report.NAMES[system]}: boxops {shlex.join(command)}")
            status = main(command)
            if status:
                return status
            with user_errors():
                results["systems"][system] = {"command": shlex.join(["boxops", *words]), **measure(args, out)}
                store.save(results, args.out)
        with user_errors():
            report.write(results, args.out)
    report.show(results)
    print(f"wrote {', '.join(str(args.out / name) for name in FILES)}")
    return 0


def prepare(args: argparse.Namespace) -> dict[str, list[str]]:
    """The words of `boxops train` for each system, but for the folder, after all checks that need no data."""
    from boxops.models import MODELS

    if args.data is None and args.root is None and args.annotations is None:
        args.data = "shapes"
    data_kind(args)
    if args.quick:
        args.steps = args.steps or [(None, QUICK_STEPS)]
        if args.data == "shapes":
            args.data_option = list((QUICK_SHAPES | dict(args.data_option)).items())
    for name, value in (USUAL | (QUICK if args.quick else {})).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    store.check_arguments(args, ("test_images", "max_proposals", "size"))
    backbones = [name.removeprefix("rcnn_") for name in MODELS if name.startswith("rcnn_")]
    backbones = [name for name in backbones if all(f"{system}_{name}" in MODELS for system in PAPERS)]
    if args.backbone not in backbones:
        raise UserError(f"--backbone: expected one of {', '.join(backbones)}, got {args.backbone!r}")
    plan = {}
    for system in PAPERS:
        given = {name: getattr(args, name) for name in PASSED_ON}
        for name in ("epochs", "steps"):
            numbers = dict(getattr(args, name))
            given[name] = numbers.get(system, numbers.get(None))
        words = [word for name, value in given.items() if value is not None
                 for word in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
        for key, value in args.data_option:
            words += ["--data-option", f"{key}={value!r}"]
        model = f"{system}_{args.backbone}"
        for key, value in numbers_of(model, args).items():
            words += ["--set", f"{key}={value!r}"]
        plan[system] = ["train", model, *words, "--eval-every", "0"]  # since that is not training
    return plan


def numbers_of(model: str, args: argparse.Namespace) -> dict[str, Any]:
    """What --size, --proposals and --max-proposals are among the model's own options."""
    from boxops.cli.model_options import hints
    from boxops.models import MODELS

    known = hints(model) or {}
    numbers = {"proposals": args.proposals, "max_proposals": args.max_proposals}
    numbers |= MODELS[model].sized(args.size) if args.size else {}
    return {name: value for name, value in numbers.items() if value is not None and name in known}


def read(out: Path) -> dict[str, Any] | None:
    """What a study wrote to its folder; None where there is none."""
    return store.read(out / FILES[0], "regions")


def measure(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """What the run of a system took and gave; its model is timed here, on single held-out images.

    ``test_seconds`` are medians over the images of the model's call, after a first call on each: with proposals that
    are found anew, and with proposals that are given.
    """
    import torch

    from boxops.benchmarks.machine import Watch, facts
    from boxops.benchmarks.timing import warm_time
    from boxops.cli.models import find_anew, open_checkpoint
    from boxops.cli.splits import open_held_out
    from boxops.data import transforms
    from boxops.training.logs import training_seconds

    model, checkpoint, device = open_checkpoint(str(out / "last.pt"), args.device)
    divided = checkpoint["settings"].get("divided")
    data = open_held_out(args, divided, transform=transforms.evaluate(), seed=args.seed, **needs(model.config))
    find_anew(model)
    times: dict[str, list[float]] = {"with": [], "without": []}
    counts, watch = [], Watch()
    count = min(args.test_images, len(data))
    tell(f"timing it on {count} images")
    with torch.inference_mode():
        for i in range(count):
            pixels = data[i * len(data) // count][0].as_subclass(torch.Tensor).to(device)
            if model.proposals is not None:
                boxes = model.proposals(pixels)
                counts.append(len(boxes))
                times["without"].append(warm_time(partial(model, [pixels], [{"proposals": boxes}]), 0.05))
            times["with"].append(warm_time(partial(model, [pixels]), 0.05))
    return {
        "model": model.config["name"],
        "training_seconds": training_seconds(out),
        "test_seconds": {kind: statistics.median(some) if some else None for kind, some in times.items()},
        "times": {kind: [round(seconds, 6) for seconds in some] for kind, some in times.items()},
        "proposals": statistics.mean(counts) if counts else None,
        "disk": {"features": _bytes(out / "stages", "**/*"), "checkpoints": _bytes(out, "*.pt")},
        "AP50": float(store.last_row(out / "metrics.csv")["box_AP50"]),
        "machine": {**facts(device.type, torch.get_num_threads()), "others": watch.others()},
    }


def _bytes(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file())
