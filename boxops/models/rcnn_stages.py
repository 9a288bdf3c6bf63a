"""What R-CNN and SPP-net learn when the network is trained: SVMs and box regressors, on features kept on the disk.

Girshick et al. 2014 (arXiv 1311.2524v5), section 2.3 and appendices B and C. Shapes: P proposals, R regions (proposals
and ground truth), F features, C classes with the background.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

import boxops

from .checkpoint import read
from .linear import Settings, mine, ridge, scale_of
from .rows import Rows

if TYPE_CHECKING:
    from torchvision.models.detection.image_list import ImageList

    from boxops.training import StageRun

LARGEST = float(np.finfo(np.float16).max)


class Regions(Protocol):
    """What a detector of regions, :class:`boxops.models.RCNN`, has for its stages."""

    settings: Settings
    transform: nn.Module
    head: nn.Module
    svms: nn.Linear
    regressors: nn.Linear

    def add_proposals(self, batch: ImageList, images: Sequence[Tensor], targets: Sequence[Any]) -> None: ...

    def pooled(self, batch: ImageList, boxes: Sequence[Tensor]) -> Tensor: ...


def check(model: Regions, data: Any) -> None:
    """What SVMs need, told before anything is trained.

    Raises:
        ValueError: the images have no object of a class.
        ImportError: scikit-learn is missing.
    """
    if find_spec("sklearn") is None:
        raise ImportError("expected scikit-learn for the SVMs, got none: pip install scikit-learn")
    objects = np.zeros(len(data.classes) + 1, np.int64)
    for record in data.records():
        objects += np.bincount(record.labels[record.counted], minlength=len(objects))
    for name, count in zip(data.classes, objects[1:], strict=True):
        if count == 0:
            raise ValueError(f"data: expected objects of every class, got none of {name!r}: an SVM can't be trained")


def open_rows(model: Regions, folder: Path) -> Rows:
    """The features on the disk, as float16, which halves it.

    ``regions`` has a row of each ground truth box and each proposal: ``feature`` [F]; ``overlap`` [C - 1], the largest
    IoU with an object of each class; ``label``, 0 for proposals. ``near`` has a row of each proposal near an object:
    the pooled ``feature`` of the regressors, the object's ``label``, and its ``code`` relative to the proposal.
    """
    classes, pooled = model.svms.out_features, model.regressors.in_features
    regions = [("feature", "f2", model.svms.in_features), ("overlap", "f4", (classes,)), ("label", "i4")]
    near = [("feature", "f2", pooled), ("code", "f4", 4), ("label", "i4")]
    return Rows(folder, "features", {"regions": np.dtype(regions), "near": np.dtype(near)})


@torch.inference_mode()
def features(model: Regions, data: Any, run: StageRun) -> None:
    """The features of all training images. Section 2.2."""
    from boxops.data import transforms

    plain = copy.copy(data)
    plain.transform = transforms.evaluate()
    rows, total = open_rows(model, run.folder), len(data)
    for index in run.track(range(rows.images, total), total, rows.images):
        image, target = plain[index]
        images = [image.as_subclass(Tensor).to(run.device)]
        targets = [{k: v.as_subclass(Tensor).to(run.device) for k, v in target.items() if isinstance(v, Tensor)}]
        batch, known = model.transform(images, targets)
        model.add_proposals(batch, images, targets)
        try:
            rows.add(look(model, batch, known[0]))
        except OSError as error:
            about = f" (about {size(rows.size * total / rows.images)})" if rows.images else ""
            raise OSError(
                f"{run.folder}: {error.strerror}: expected room for the features of {total} images{about}, got it for "
                f"{rows.images} ({size(rows.size)}), which are kept; make room, and --resume goes on"
            ) from error
        if rows.images == 1:
            run.logs.say(f"features: about {size(rows.size * total)}, {total} images")
    run.logs.say(f"features: {size(rows.size)}, {total} images, {len(rows.read('regions'))} regions")


def size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def look(model: Regions, image: ImageList, target: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The rows of one image; see :func:`open_rows`."""
    s, proposals = model.settings, image.proposals[0]
    boxes, labels = target["boxes"].float(), target["labels"]
    crowd = target["iscrowd"].bool()
    learnt = ~(crowd | target.get("difficult", crowd))
    regions = torch.cat([boxes[learnt], proposals])
    pooled = model.pooled(image, [regions])
    known = {
        "feature": kept(model.head(pooled)),
        "overlap": overlaps(regions, boxes, labels, crowd, model.svms.out_features),
        "label": torch.cat([labels[learnt], labels.new_zeros(len(proposals))]),
    }
    matches, ious = boxops.match_max_iou(proposals, boxes[learnt], s.ridge_iou)
    near = ious > s.ridge_iou
    objects = matches[near]
    told = {
        "feature": kept(pooled.flatten(1)[int(learnt.sum()) :][near]),
        "code": boxops.encode_boxes(boxes[learnt][objects], proposals[near]),
        "label": labels[learnt][objects],
    }
    return {"regions": known, "near": told}


def kept(features: Tensor) -> Tensor:
    return features.clamp(-LARGEST, LARGEST).half()


def overlaps(regions: Tensor, boxes: Tensor, labels: Tensor, crowd: Tensor, classes: int) -> Tensor:
    """The largest IoU of regions [R, 4] with objects of each class [R, classes]; 1 in a crowd of it."""
    order = labels.argsort(stable=True)
    boxes, labels, crowd = boxes[order], labels[order], crowd[order]

    def offsets(of: Tensor) -> Tensor:  # classes take the place of a batch's images
        return torch.bincount(of, minlength=classes + 1)[: classes + 1].cumsum(0)

    matches, ious = boxops.match_max_iou(
        regions,
        boxes[~crowd],
        0.5,
        offsets=offsets(labels[~crowd]),
        ignore_boxes=boxes[crowd],
        ignore_offsets=offsets(labels[crowd]),
    )  # [classes, R]
    return ious.masked_fill(matches == -2, 1).T


def svms(model: Regions, data: Any, run: StageRun) -> None:
    """A linear SVM of each class, against mined negatives. Section 2.3, appendix B."""
    rows, s = open_rows(model, run.folder), model.settings
    regions, spans = rows.read("regions"), rows.spans("regions")
    labels, overlaps = np.array(regions["label"]), np.array(regions["overlap"])  # in memory: they are small
    scale = scale_of(regions["feature"], s.feature_norm)

    def fit(label: int) -> tuple[np.ndarray, np.ndarray]:
        positive, negative = labels == label, overlaps[:, label - 1] < s.svm_neg_iou
        for some, what in ((positive, "objects of"), (negative, "proposals apart from")):
            if not some.any():  # as where the images that have them cannot be read
                name = data.classes[label - 1]
                raise ValueError(f"data: expected {what} {name!r} in the images, got none: an SVM can't be trained")
        return mine(regions["feature"], positive, negative, spans, scale, s, run.seed)

    each_class(model.svms, "svms", data.classes, fit, run)


def regressors(model: Regions, data: Any, run: StageRun) -> None:
    """A ridge regression of each class, from pooled features to deltas. Appendix C."""
    near = open_rows(model, run.folder).read("near")
    labels, scale = np.array(near["label"]), scale_of(near["feature"], model.settings.feature_norm)

    def fit(label: int) -> tuple[np.ndarray, np.ndarray]:
        at = np.flatnonzero(labels == label)
        if not len(at):
            run.logs.say(f"regressors: no proposals near {data.classes[label - 1]!r}, whose boxes stay as proposed")
            return np.zeros((4, model.regressors.in_features)), np.zeros(4)
        return ridge(near, at, scale, model.settings.ridge_lambda)

    each_class(model.regressors, "regressors", data.classes, fit, run)


def each_class(
    layer: nn.Linear,
    name: str,
    classes: list[str],
    fit: Callable[[int], tuple[np.ndarray, np.ndarray]],
    run: StageRun,
) -> None:
    """Fits the rows of a layer class by class, each kept in a file of its own."""
    from boxops.training.checkpoint import save

    files = [run.folder / f"{name}.{label}.pt" for label in range(1, len(classes) + 1)]
    done = sum(file.exists() for file in files)  # they come one after another
    for label in run.track(range(done + 1, len(files) + 1), len(files), done):
        weight, bias = fit(label)
        save(files[label - 1], {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    parts = [read(file) for file in files]
    with torch.no_grad():
        layer.weight.copy_(torch.cat([part["weight"] for part in parts]))
        layer.bias.copy_(torch.cat([part["bias"] for part in parts]))
