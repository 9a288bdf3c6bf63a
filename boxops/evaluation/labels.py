"""What a model's labels mean in a data set: it may have more classes, in its own order or with its own numbers."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from torch import nn

from boxops.data import DetectionDataset

Categories = Mapping[int, int | None]  # of each label the category id, or None: not a class of the data
# Where torchvision's detectors say their number of classes, with the background: R-CNNs, RetinaNet and FCOS, SSD.
SAID = (
    "roi_heads.box_predictor.cls_score.out_features",
    "head.classification_head.num_classes",
    "head.classification_head.num_columns",
)
UNUSED = ("__background__", "N/A")
# Six of COCO's classes as Pascal VOC spells them, and darknet's coco.names
SPELLINGS = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
SPELLINGS |= {other: name for name, other in SPELLINGS.items()}


def coco_names() -> list[str]:
    """What torchvision's models of COCO call the labels 1 to 90, which are COCO's category ids; ten are "N/A"."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

    names: list[str] = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
    return names


def names_of(count: int) -> list[str]:
    """What the labels 1 to ``count`` of a model mean that says nothing but their number: COCO's ids (90) or its classes
    alone, as darknet counts them (80), or Pascal VOC's (20); else []."""
    from torchvision.models.segmentation import FCN_ResNet50_Weights

    voc: list[str] = FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"][1:]
    known = coco_names(), [name for name in coco_names() if name not in UNUSED], voc
    return next((names for names in known if len(names) == count), [])


def number_of_classes(model: Any) -> int | None:
    """With the background, as detectors of boxops and torchvision say it; None where a model does not."""
    model = getattr(model, "module", model)  # of DistributedDataParallel
    config = getattr(model, "config", None)
    said = config.get("num_classes") if isinstance(config, Mapping) else None
    for path in SAID:
        if said is None:
            try:
                said = attrgetter(path)(model)
            except AttributeError:
                continue
    return said if isinstance(said, int) else None


def by_name(names: Sequence[str], dataset: DetectionDataset) -> Categories:
    """The categories of a model whose label i is names[i - 1], in COCO's or Pascal VOC's spelling.

    Raises:
        ValueError: the data set has a class that the model has not (says which names only one of them has), or, in
            another order than the model's, one name twice.
    """
    if list(names) == dataset.classes:
        return dict(enumerate(dataset.category_ids, 1))
    ids = dict(zip(dataset.classes, dataset.category_ids, strict=True))
    if len(ids) < len(dataset.classes):
        raise ValueError(f"expected classes of different names in the data, got {reprlib.repr(dataset.classes)}")
    names = spelt(names, list(ids))
    if set(ids) - set(names):
        raise ValueError(f"expected a model of the data's classes, got other names: {differences(names, list(ids))}")
    return {label: ids.get(name) for label, name in enumerate(names, 1)}


def spelt(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The names, of COCO's and Pascal VOC's spellings those that the classes have."""
    only = {*classes} - {*names}
    return [SPELLINGS[name] if SPELLINGS.get(name) in only and name not in classes else name for name in names]


def differences(names: Sequence[str], classes: Sequence[str]) -> str:
    """The names that only the model or only the data has; empty if they have the same."""
    names = spelt(names, classes)
    sides = {"only the model has": (names, classes), "only the data has": (classes, names)}
    told = []
    for text, (these, others) in sides.items():
        own = [repr(name) for name in dict.fromkeys(these) if name not in {*others, *UNUSED}]
        if own:
            told.append(f"{text} {', '.join(own[:10])}" + f" and {len(own) - 10} more" * (len(own) > 10))
    return "; ".join(told)


def categories_of(model: nn.Module, dataset: DetectionDataset) -> Categories | None:
    """The categories of a model's labels, from its number of classes; None where it says none.

    As many as the data has: label i is dataset.classes[i - 1]. 91: COCO's, by their names. Else ValueError.
    """
    said, own = number_of_classes(model), len(dataset.classes) + 1
    if said is None:
        return None
    if said == own:
        return dict(enumerate(dataset.category_ids, 1))
    if said == len(coco_names()) + 1:
        return by_name(coco_names(), dataset)
    raise ValueError(
        f"expected a model of {own} classes with the background, as the data has, got one of {said} without names"
    )
