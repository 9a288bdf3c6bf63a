"""Average precision of a detector, or of a result file: COCO's and Pascal VOC's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import distributed, nn

from boxops.data import DetectionDataset, collate
from boxops.data.loader import Loader
from boxops.evaluation.coco import TYPES, Detections, coco_ap
from boxops.evaluation.files import evaluate_files
from boxops.evaluation.voc import voc_ap

__all__ = ["Detections", "coco_ap", "evaluate", "evaluate_files", "table", "voc_ap"]

AMP = {None: None, "none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def evaluate(
    model: nn.Module,
    dataset: DetectionDataset,
    *,
    metric: str = "coco",
    iou_types: Iterable[str] | None = None,
    batch_size: int = 4,
    workers: int = 0,
    device: torch.device | str | None = None,
    amp: str | None = None,
    parallel: bool = False,
    progress: bool = False,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """Average precision of a model on a data set.

    Args:
        model: in eval mode, ``model(images)`` gives per image ``boxes``, ``scores``, ``labels``; its mode is put back.
        dataset: with a transform that leaves images in their size, such as :func:`boxops.data.transforms.evaluate`. An
            image that cannot be read does not count.
        metric: ``coco``, see :func:`coco_ap`; ``voc``, AP at IoU 0.5 with the area under the curve, or ``voc2007``
            with 11 points, see :func:`voc_ap`.
        iou_types: of COCO's ``bbox``, ``segm``, ``keypoints``; by default all that data and model have.
        workers: processes that read images.
        device: of the model if None.
        amp: ``bf16`` or ``fp16`` for autocast.
        parallel: all processes of torch.distributed call this; each takes a part of the images, all get the result.
        progress: a bar on stderr.
        sigmas: of the keypoints, see :func:`coco_ap`.

    Returns:
        The numbers in 0..1 by name, ``box_AP`` (``VOC_AP``) first; -1 where there is nothing to find.

    Raises:
        ValueError: the model does not give what iou_types ask for, an image is of another size than annotated, or an
            argument is out of range.
    """
    if metric not in ("coco", "voc", "voc2007"):
        raise ValueError(f"evaluate: expected metric to be coco, voc or voc2007, got {metric!r}")
    if amp not in AMP:
        raise ValueError(f"evaluate: expected amp to be bf16, fp16 or none, got {amp!r}")
    truth = dataset.coco()
    at = torch.device(device) if device is not None else next(model.parameters(), torch.zeros(())).device
    if iou_types is None:
        keys = {key for annotation in truth["annotations"] for key in annotation} | {"bbox"}
        wanted = [kind for kind, (_, key, _) in TYPES.items() if (key in keys and metric == "coco") or kind == "bbox"]
    else:
        wanted = list(iou_types)
    found = Detections(dataset.category_ids, wanted)
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if parallel else (0, 1)
    part = torch.utils.data.Subset(dataset, range(rank, len(dataset), world))
    batches: Any = Loader(part, batch_size, num_workers=workers, collate_fn=collate)
    if progress and rank == 0:
        batches = _bar(batches)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(at.type, AMP[amp], enabled=AMP[amp] is not None):
            for images, targets, _ in batches:
                ids = [target["image_id"] for target in targets]
                for i, image in zip(ids, images, strict=True):
                    if (got := (image.shape[-2], image.shape[-1])) != sizes[i]:
                        raise ValueError(f"evaluate: expected image {i} in its size {sizes[i]}, got {got}")
                found.update(ids, model([image.to(at) for image in images]))
    finally:
        model.train(training)
    if parallel:
        found.gather()
    kinds = [kind for kind in wanted if kind in found.given]
    if iou_types is not None and kinds != wanted:
        raise ValueError(f"evaluate: expected a model that gives {wanted}, got one that gives {kinds}")
    if metric == "coco":
        return coco_ap(truth, found.rows(), kinds, image_ids=found.images, sigmas=sigmas)
    return voc_ap(truth, found.rows(), image_ids=found.images, eleven_points=metric == "voc2007")


def _bar(batches: Any) -> Any:
    from rich.console import Console
    from rich.progress import track

    return track(batches, "evaluation", console=Console(stderr=True), transient=True)


def table(metrics: Mapping[str, float]) -> Any:
    """A ``rich.table.Table``: a row for all classes and one for each, a column for each measure."""
    from rich import box
    from rich.table import Table

    names = [name for name in metrics if "/" not in name]
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("", no_wrap=True)
    for name in names:
        shown.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    classes = dict.fromkeys(name.partition("/")[2] for name in metrics if "/" in name)
    for label, ending in [("all", ""), *((label, f"/{label}") for label in classes)]:
        values = [metrics.get(name + ending) for name in names]
        shown.add_row(label, *("" if value is None else "-" if value < 0 else f"{value:.3f}" for value in values))
    return shown
