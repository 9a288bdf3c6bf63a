"""Evaluation of a detector or a result file: COCO's and Pascal VOC's average precision, ILSVRC's localization."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import distributed, nn

from boxops.data import DetectionDataset, Problem, collate
from boxops.data.loader import Loader, bar
from boxops.evaluation.coco import TYPES, Detections, coco_ap
from boxops.evaluation.files import evaluate_files
from boxops.evaluation.labels import by_name, categories_of, differences
from boxops.evaluation.localization import localization
from boxops.evaluation.metrics import check_metric
from boxops.evaluation.metrics import measure as measure_rows
from boxops.evaluation.voc import voc_ap

__all__ = [
    "Detections",
    "by_name",
    "coco_ap",
    "differences",
    "evaluate",
    "evaluate_files",
    "localization",
    "table",
    "voc_ap",
]

COLUMN = 8  # a measure and the space around it, in characters
AMP = {None: None, "none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
PIXELS = 8_000_000  # of a batch


def evaluate(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    metric: str | None = None,
    iou_types: Iterable[str] | None = None,
    labels: Sequence[str] | Mapping[int, int | None] | None = None,
    batch_size: int = 4,
    workers: int = 0,
    device: torch.device | str | None = None,
    amp: str | None = None,
    parallel: bool = False,
    progress: bool = False,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """The metrics of a model on a data set.

    Args:
        model: in eval mode, ``model(images)`` gives per image ``boxes``, ``scores``, ``labels``; its mode is put back.
        dataset: with a transform that leaves images in their size, such as :func:`boxops.data.transforms.evaluate`. An
            image that cannot be read does not count, and is warned of.
        metric: ``coco``, see :func:`coco_ap`; ``voc``, AP at IoU 0.5 with the area under the curve, or ``voc2007``
            with 11 points, see :func:`voc_ap`; ``localization`` of data of one object an image, see
            :func:`localization`. If None, the model's own, ``model.metric``, else ``coco``.
        iou_types: of COCO's ``bbox``, ``segm``, ``keypoints``; by default all that data and model have.
        batch_size: images at a time; of photos of several megapixels fewer.
        labels: what the model's labels mean: names, label i being labels[i - 1], found by name among
            ``dataset.classes``; or ``{label: category id}``. Detections of other names, and of labels with None, do not
            count. If None, as many classes as the data has are its classes in their order (as training on it gives),
            and a model of 91 is one of COCO's, as torchvision's are, by COCO's names. Of a model that does not say how
            many it has, labels beyond the data's classes are category ids.
        workers: processes that read images.
        device: of the model if None.
        amp: ``bf16`` or ``fp16`` for autocast.
        parallel: all processes of torch.distributed call this; each takes a part of the images, all get the result.
        progress: a bar on stderr, where that is a terminal.
        sigmas: of the keypoints, see :func:`coco_ap`.

    Returns:
        The numbers in 0..1 by name, ``box_AP`` (``VOC_AP``, ``LOC_correct``) first; -1 where there is nothing to find.

    Raises:
        ValueError: the model does not give what iou_types ask for, or has other classes than the data; an image is of
            another size than annotated; or an argument is out of range.
    """
    if metric is None:
        metric = getattr(getattr(model, "module", model), "metric", "coco")
    check_metric(metric)
    if amp not in AMP:
        raise ValueError(f"evaluate: expected amp to be bf16, fp16 or none, got {amp!r}")
    truth = dataset.coco()
    at = torch.device(device) if device is not None else next(model.parameters(), torch.zeros(())).device
    if iou_types is None:
        keys = {key for annotation in truth["annotations"] for key in annotation} | {"bbox"}
        wanted = [kind for kind, (_, key, _) in TYPES.items() if (key in keys and metric == "coco") or kind == "bbox"]
    else:
        wanted = list(iou_types)
    if labels is None:
        categories = categories_of(model, dataset)
    else:
        categories = labels if isinstance(labels, Mapping) else by_name(labels, dataset)
    found = Detections(dataset.category_ids, wanted, categories)
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)
    part = torch.utils.data.Subset(dataset, range(rank, len(dataset), world))
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    sampler = list(_batches([sizes[i] for i in dataset.ids[rank::world]], batch_size))
    batches: Any = Loader(part, batch_sampler=sampler, num_workers=workers, collate_fn=collate)
    if progress and rank == 0 and sys.stderr.isatty():
        batches = bar(batches, "evaluation")
    problems: dict[Problem, None] = {}
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(at.type, AMP[amp], enabled=AMP[amp] is not None):
            for images, targets, bad in batches:
                problems.update(dict.fromkeys(bad))
                ids = [target["image_id"] for target in targets]
                for i, image in zip(ids, images, strict=True):
                    if (got := (image.shape[-2], image.shape[-1])) != sizes[i]:
                        raise ValueError(f"evaluate: expected image {i} in its size {sizes[i]}, got {got}")
                found.update(ids, model([image.to(at) for image in images]))
    finally:
        model.train(training)
    if problems:
        told = f"{len(problems)} of {len(part)} images do not count, since they cannot be read"
        warnings.warn(f"evaluate: {told}; {'; '.join(map(str, islice(problems, 5)))}", stacklevel=2)
    if parallel:
        found.gather()
    kinds = [kind for kind in wanted if kind in found.given]
    if iou_types is not None and kinds != wanted:
        raise ValueError(f"evaluate: expected a model that gives {wanted}, got one that gives {kinds}")
    return measure_rows(metric, truth, found.rows(), kinds, image_ids=found.images, sigmas=sigmas)


def _batches(sizes: Sequence[tuple[int, int]], batch_size: int) -> Iterator[list[int]]:
    """Batches of batch_size images, of large ones fewer: a photo of 12 megapixels is 144 MB of floating numbers."""
    batch: list[int] = []
    pixels = 0
    for index, (height, width) in enumerate(sizes):
        if batch and (len(batch) == batch_size or pixels + height * width > PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(index)
        pixels += height * width
    if batch:
        yield batch


def table(metrics: Mapping[str, float], width: int = 80) -> Any:
    """For ``rich``: a row for all classes and one for each, a column for each measure.

    What is wider than width comes as several tables, one below the other; long names of classes are cut."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    classes = dict.fromkeys(name.partition("/")[2] for name in metrics if "/" in name)
    labels = {"all": "", **{label: f"/{label}" for label in classes}}
    names = [name for name in metrics if "/" not in name]
    longest = min(max(map(cell_len, labels)), max(width - 2 - 6 * COLUMN, COLUMN))
    most = max((width - 2 - longest) // COLUMN, 1)
    most = math.ceil(len(names) / math.ceil(len(names) / most))  # tables of one width
    tables = []
    for part in [names[i : i + most] for i in range(0, len(names), most)]:
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        shown.add_column("", no_wrap=True, width=longest)
        for name in part:
            shown.add_column(name.replace("_", " "), justify="right", no_wrap=True, min_width=5)
        for label, ending in labels.items():
            values = [metrics.get(name + ending) for name in part]
            if any(value is not None for value in values):
                numbers = ("" if value is None else "-" if value < 0 else f"{value:.3f}" for value in values)
                shown.add_row(Text(label), *numbers)
        tables.append(shown)
    return Group(*tables)
