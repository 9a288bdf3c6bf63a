"""`boxops study proposals`: how many objects the first N proposals of an image cover, method by method.

Recall at an IoU is the share of objects that some proposal overlaps by it or more; average recall is the mean over IoUs
of 0.5 to 1, which tells more of the detectors that are built on them: Hosang et al., "What makes for effective
detection proposals?", PAMI 2016.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from boxops.cli.common import (
    UserError,
    add_data_arguments,
    data_kind,
    key_value,
    one_line_errors,
    tell,
    user_errors,
)
from boxops.cli.outputs import figure_of, protect, save_json
from boxops.cli.splits import open_held_out
from boxops.studies import store

IOUS = (0.5, 0.7, 0.9)
DEFAULT = "selective_search_fast,edge_boxes"
TIMED = 5  # images
COLOURS = ("#2563eb", "#ea7317", "#16a34a", "#9333ea", "#dc2626", "#0891b2")

Find = Callable[[Any], Any]  # an image of PIL -> boxes [P, 4], the best first


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = """Recall of proposals against the objects of held-out images:

  boxops study proposals --root DIR
  boxops study proposals --root DIR --checkpoint runs/faster_rcnn/best.pt

In --out: a table as proposals.csv, all numbers as proposals.json, the curves as
proposals.png and proposals.svg."""
    add_data_arguments(parser)
    parser.add_argument("--split", metavar="NAME", help="as of boxops evaluate: a name, train's share, or all")
    parser.add_argument("--methods", default=DEFAULT, metavar="NAMES", help=f"with commas between them ({DEFAULT}); "
                        "an unknown one lists all")  # fmt: skip
    parser.add_argument("--trained", type=key_value, action="append", default=[], metavar="METHOD=PATH",
                        help="the model that a method needs (bing) or may have (edge_boxes)")  # fmt: skip
    parser.add_argument("--checkpoint", metavar="FILE", help="a detector with a region proposal network, to compare")
    parser.add_argument("--device", default="auto", help="of that: auto, cpu, cuda")
    parser.add_argument("--max-proposals", type=int, default=2000, metavar="N", help="proposals of an image (2000)")
    parser.add_argument("--min-size", type=float, default=1, metavar="N", help="their least side in pixels (1)")
    parser.add_argument("--max-images", type=int, metavar="N", help="look at so many images (all)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that find proposals (2)")
    parser.add_argument("--out", type=Path, default=Path("study-proposals"), metavar="DIR", help="(study-proposals)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that boxops did not make")


@one_line_errors
def run(args: argparse.Namespace) -> int:
    for name, least in (("max_proposals", 1), ("max_images", 1), ("workers", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')}: expected {least} or more, got {value}")
    files = {kind: args.out / f"proposals.{kind}" for kind in ("csv", "json", "png", "svg")}
    protect([("--out", file) for file in files.values()], [args.checkpoint, args.annotations],
            args.overwrite or store.read(files["json"], "proposals") is not None)  # fmt: skip
    with user_errors():
        data, finders = prepare(args)
    results = measure(data, finders, args.max_proposals)
    show(results)
    with user_errors():
        write(results, files)
    print(f"wrote {', '.join(map(str, files.values()))}")
    return 0


def prepare(args: argparse.Namespace) -> tuple[Any, dict[str, Find]]:
    """The images, and by name what finds proposals in one; of those with a cache it has them all by then."""
    from boxops.models.proposals import Proposals

    data_kind(args)
    names, trained = [name.strip() for name in args.methods.split(",") if name.strip()], dict(args.trained)
    if unused := [name for name in trained if name not in names]:
        raise UserError(f"--trained: expected a method of {', '.join(names)}, got {unused[0]}")
    if not names and args.checkpoint is None:
        raise UserError("--methods: expected names, got none")
    methods = {}
    for name in names:
        given = {"model": trained[name]} if name in trained else {}
        try:
            methods[name] = Proposals(name, args.max_proposals, min_size=args.min_size, **given)
        except (ValueError, TypeError) as error:
            raise UserError(f"--methods: {error}") from error
    finders: dict[str, Find] = dict(methods)
    divided = None
    if args.checkpoint is not None:
        finders["RPN"], divided = of_checkpoint(args)
    data = open_held_out(args, divided, masks=False, keypoints=False)
    tell(data.report())
    if args.max_images is not None:
        data = Part(data, args.max_images)
    for proposals in methods.values():
        proposals.prepare(data, workers=args.workers, say=tell)
    return data, finders


class Part:
    """The first images of a data set."""

    def __init__(self, data: Any, count: int) -> None:
        self.data, self.count = data, min(count, len(data))

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> Any:
        return self.data.load(index)


def of_checkpoint(args: argparse.Namespace) -> tuple[Find, Any]:
    """What finds the proposals of its RPN, and which images its run held out."""
    import torch
    from torchvision.transforms.v2 import functional as F

    from boxops.models.common import scaled
    from boxops.models.rpn import RegionProposalNetwork
    from boxops.training import load_model
    from boxops.training.parts import start_processes

    _, _, device = start_processes(args.device)
    model, checkpoint = load_model(args.checkpoint, device)
    rpn = getattr(model, "rpn", None)
    if not isinstance(rpn, RegionProposalNetwork):
        raise UserError(f"--checkpoint: expected a model with a region proposal network, got {model.config['name']}")
    before = max(args.max_proposals, rpn.settings.rpn_pre_nms_top_n_test)  # of each level
    rpn.settings = replace(rpn.settings, rpn_pre_nms_top_n_test=before, rpn_post_nms_top_n_test=args.max_proposals)

    @torch.inference_mode()
    def find(image: Any) -> Any:
        pixels = F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True).to(device)
        batch, _ = model.transform([pixels])
        boxes, counts, _ = rpn(list(model.backbone(batch.tensors).values()), batch, None)
        size, original = batch.image_sizes[0], (image.height, image.width)
        boxes = scaled(boxes[0, : int(counts[0])], original, size)
        least = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= args.min_size
        return boxes[least].cpu()

    return find, checkpoint.get("settings", {}).get("divided")


def counts_to(max_proposals: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last one."""
    steps = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
    return [step for step in steps if step < max_proposals] + [max_proposals]


def best_overlaps(objects: Any, boxes: Any, counts: Sequence[int]) -> Any:
    """[G, N]: of each object [G, 4] the largest IoU with the first counts[n] of the boxes [P, 4]."""
    import numpy as np

    import boxops

    if not len(boxes):
        return np.zeros((len(objects), len(counts)), np.float32)
    overlaps = np.maximum.accumulate(boxops.box_iou(objects, boxes), axis=1)
    return overlaps[:, np.minimum(counts, len(boxes)) - 1]


def measure(data: Any, finders: Mapping[str, Find], max_proposals: int) -> dict[str, Any]:
    """Recalls, numbers and times of each method. Crowds and what VOC calls difficult need not be found."""
    import numpy as np

    from boxops.models.proposal_cache import Cache

    counts = counts_to(max_proposals)
    overlaps: dict[str, list[Any]] = {name: [] for name in finders}
    numbers: dict[str, list[int]] = {name: [] for name in finders}
    seconds: dict[str, list[float]] = {name: [] for name in finders}
    images = 0
    for image, objects in loaded(data):
        images += 1
        for name, find in finders.items():
            boxes = np.asarray(find(image), np.float32)
            numbers[name].append(len(boxes))
            overlaps[name].append(best_overlaps(objects, boxes, counts))
    for name, find in finders.items():
        if hasattr(find, "cache"):
            find.cache = Cache(None)  # now they are found anew
        for image, _ in loaded(data, TIMED):
            start = time.perf_counter()
            find(image)
            seconds[name].append(time.perf_counter() - start)
    found, of_objects = {}, np.zeros((0, len(counts)))
    for name, parts in overlaps.items():
        of_objects = np.concatenate([of_objects[:0], *parts])  # [G, N]
        if not len(of_objects):
            raise UserError(f"expected objects to find, got none in {images} images")
        found[name] = {
            "recall": {f"{iou:g}": (of_objects >= iou).mean(0).tolist() for iou in IOUS},
            "average_recall": (2 * np.maximum(of_objects - 0.5, 0)).mean(0).tolist(),  # the integral over all IoUs
            "proposals_per_image": statistics.mean(numbers[name]),
            "seconds_per_image": statistics.median(seconds[name]),
        }
    return {"study": "proposals", "images": images, "objects": len(of_objects), "counts": counts, "methods": found}


def loaded(data: Any, max_images: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Images that can be read, and the boxes [G, 4] of the objects that count."""
    from boxops.data import BadData

    for index in range(len(data) if max_images is None else min(max_images, len(data))):
        try:
            image, record, _ = data.load(index)
        except BadData as error:
            if max_images is None:
                tell(f"left out: {error}")
            continue
        yield image, record.boxes[record.counted]


def show(results: Mapping[str, Any]) -> None:
    """A row for each method: recalls with all its proposals, and average recall with fewer."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    counts = results["counts"]
    some = [at for at, count in enumerate(counts) if count in (100, 1000)] or [len(counts) - 1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("", no_wrap=True)
    for heading in ("boxes", "s", *map(str, IOUS), *(f"AR {counts[at]}" for at in some)):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, found in results["methods"].items():
        recalls = [found["recall"][f"{iou:g}"][-1] for iou in IOUS] + [found["average_recall"][at] for at in some]
        numbers = (f"{value:.3f}" for value in recalls)
        table.add_row(name, f"{found['proposals_per_image']:.0f}", f"{found['seconds_per_image']:.2f}", *numbers)
    console = Console()
    console.print(table)
    told = (
        f"{results['images']} images, {results['objects']} objects; boxes and seconds of an image, recall with at most "
    )
    told += f"{counts[-1]} boxes at IoU {', '.join(map(str, IOUS))}, AR: average recall with the first ones"
    console.print(told, highlight=False)


def write(results: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    from boxops.training.checkpoint import atomic

    save_json(results, files["json"])
    with atomic(files["csv"], "w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", "proposals", *(f"recall_{iou:g}" for iou in IOUS), "average_recall"])
        for name, found in results["methods"].items():
            columns = [*(found["recall"][f"{iou:g}"] for iou in IOUS), found["average_recall"]]
            for count, *values in zip(results["counts"], *columns, strict=True):
                table.writerow([name, count, *(f"{value:.4f}" for value in values)])
    with figure_of([files["png"], files["svg"]], (11, 3.2)) as figure:
        draw(results, figure)


def draw(results: Mapping[str, Any], figure: Any) -> None:
    """Recall at each IoU, and average recall, over the number of proposals."""
    axes = figure.subplots(1, len(IOUS) + 1, sharey=True)
    for colour, (name, found) in zip(COLOURS * 9, results["methods"].items(), strict=False):
        for axis, values in zip(axes, [*found["recall"].values(), found["average_recall"]], strict=True):
            axis.plot(results["counts"], values, "o-", markersize=2.5, linewidth=1.4, color=colour, label=name)
    for axis, title in zip(axes, [*(f"recall at IoU {iou}" for iou in IOUS), "average recall"], strict=True):
        axis.set(title=title, xscale="log", xlabel="proposals of an image", ylim=(0, 1))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
