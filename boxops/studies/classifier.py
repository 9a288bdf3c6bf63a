"""What `boxops study classification` trains, and its images: one class each, from folders or cut out of larger ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from boxops.cli.common import UserError, tell
from boxops.cli.splits import SHARE, open_splits, share_of
from boxops.data import DetectionDataset, collate
from boxops.data.find import folders_in
from boxops.data.images import image_size
from boxops.data.loader import Loader
from boxops.data.records import Object, pack
from boxops.data.splits import aliases
from boxops.models import backbones
from boxops.models.common import IMAGENET
from boxops.models.labels import torch_smoothing


class Classifier(nn.Module):
    """A network of torchvision with its loss: ``model(images, targets)`` gives losses in training, ``model(images)``
    logits [B, C].

    Args:
        network: maps images [B, 3, H, W] to logits.
        config: what a resumed run must have equal.
        smoothing: eps of the labels: 1 - eps for the class, eps / (C - 1) for the others.
        alpha: of mixup's Beta distribution; 0: none.
    """

    def __init__(self, network: nn.Module, num_classes: int, config: dict[str, Any], smoothing: float, alpha: float):
        super().__init__()
        self.backbone, self.config = network, {**config, "smoothing": smoothing, "alpha": alpha}
        self.smoothing = torch_smoothing(smoothing, num_classes)
        self.mixup = v2.MixUp(alpha=alpha, num_classes=num_classes) if alpha else None

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        batch = torch.stack(images)
        if not self.training or targets is None:
            return self.backbone(batch)
        labels = torch.stack([target["labels"] for target in targets])  # or, mixed, shares of each class [B, C]
        if self.mixup is not None:
            batch, labels = self.mixup(batch, labels)
        return {"classification": F.cross_entropy(self.backbone(batch), labels, label_smoothing=self.smoothing)}


def check(name: str, size: int) -> None:
    """UserError unless torchvision has that network, and it takes images of that size."""
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"--model: expected a classifier of torchvision, {', '.join(known)}, got {name!r}")
    try:
        with torch.device("meta"):
            logits = torchvision.models.get_model(name, num_classes=2)(torch.empty(2, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"--size: expected one that {name} takes, got {size}: {error}") from error
    if not isinstance(logits, Tensor):
        raise UserError(f"--model: expected a classifier with one output in training, got {name}")


def build(args: argparse.Namespace, num_classes: int, smoothing: float, alpha: float, seed: int) -> Classifier:
    torch.manual_seed(seed)
    if args.weights is None:
        network = backbones.classifier(args.model, None, num_classes=num_classes)
    else:
        network = backbones.classifier(args.model, None, args.weights)
        name, last = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear)][-1]
        network.set_submodule(name, nn.Linear(last.in_features, num_classes))
    return Classifier(network, num_classes, {"name": args.model, "size": args.size}, smoothing, alpha)


class Folder(DetectionDataset):
    """Images in folders named after their classes: each is an object as large as its image."""

    def __init__(self, root: str | Path, *, on_bad: str = "skip", seed: int = 0) -> None:
        super().__init__(None, on_bad, seed)
        found = ImageFolder(str(root))
        self.classes, self.category_ids = found.classes, list(range(1, len(found.classes) + 1))
        for number, (path, label) in enumerate(found.samples, 1):
            with self.skipping(path, ""):
                width, height = size = image_size(Path(path))
                whole = Object(label + 1, np.array([0, 0, width, height], np.float32))
                self._records.append(pack(Path(path), number, size, [whole], None, False))
        self.finish()


class Pictures(torch.utils.data.Dataset[Any]):
    """Images of a side, each with its class in 0..C-1 as ``labels``: of data of one object an image.

    Args:
        learn: they vary in place, size, ratio and mirror image; else each is shown as a whole.
        per_class: take at most so many of each class, evenly spread over the data.
    """

    def __init__(self, data: DetectionDataset, size: int, learn: bool, per_class: int | None = None) -> None:
        self.data, self.classes, self.category_ids = data, data.classes, data.category_ids
        vary = [v2.RandomResizedCrop(size, (0.35, 1)), v2.RandomHorizontalFlip()]
        data.transform = Picture(vary if learn else [v2.Resize((size, size))])
        self.chosen = list(range(len(data)))
        if per_class is not None:
            labels = np.array([record.labels[0] for record in data.records()])
            of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
            places = [np.linspace(0, len(some) - 1, min(per_class, len(some))).round().astype(int) for some in of_class]
            parts = [some[at] for some, at in zip(of_class, places, strict=True)]
            self.chosen = np.sort(np.concatenate(parts)).tolist()

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        return self.data[self.chosen[index]]

    def set_epoch(self, epoch: int) -> None:
        self.data.set_epoch(epoch)


class Picture:
    """The transform of a sample: uint8 image [3, H, W] and target to a normalised one and its class."""

    def __init__(self, steps: list[nn.Module]) -> None:
        self.steps = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET)])

    def __call__(self, image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return self.steps(image), {"labels": target["labels"][0] - 1}


def has_classes(root: str) -> bool:
    """Whether the folder, or the split to learn from in it, has folders of images."""
    try:
        ImageFolder(_splits(root)[0])
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def open_data(args: argparse.Namespace, seed: int) -> tuple[Pictures, Pictures]:
    """The images to learn from, and the held-out ones."""
    if args.data == "folder":
        learn, held_out = open_folder(args, seed)
    else:
        learn, held_out = open_splits(args, seed=seed, masks=False, keypoints=False, one_object=True)
    pictures = Pictures(learn, args.size, True, args.per_class), Pictures(held_out, args.size, False)
    tell(f"{len(pictures[0])} images of {len(learn.classes)} classes to learn from, {len(pictures[1])} held out")
    return pictures


def open_folder(args: argparse.Namespace, seed: int) -> tuple[DetectionDataset, DetectionDataset]:
    """Of folders by class: train and val, or test, if the root has those; else a part is split off."""
    train, other = _splits(args.root)
    learn = Folder(train, on_bad=args.on_bad, seed=seed)
    if other is None or args.split is not None:
        share = SHARE if args.split is None else share_of(args.split)
        if share is None:
            raise UserError(f"--split: expected a share to learn from, between 0 and 1, got {args.split}")
        return learn.split_off(share)
    held_out = Folder(other, on_bad=args.on_bad, seed=seed)
    if held_out.classes != learn.classes:
        raise UserError(f"--root: expected in {other} the classes of {train}, {learn.classes}, got {held_out.classes}")
    return learn, held_out


def _splits(root: str) -> tuple[Path, Path | None]:
    """The folders to learn from and to hold out."""
    below = folders_in(Path(root))
    train, other = (
        next((below[name] for name in names if name in below), None)
        for names in (aliases("train"), aliases("val") + aliases("test"))
    )
    return train or Path(root), other if train else None


@torch.inference_mode()
def accuracy(held_out: Pictures, batch_size: int, workers: int, model: nn.Module, epoch: int) -> dict[str, float]:
    """The share of the images that get their class, and the mean of that share over the classes."""
    device = next(model.parameters()).device
    right: dict[int, list[bool]] = {}
    for images, targets, _ in Loader(held_out, batch_size, num_workers=workers, collate_fn=collate):
        found = model([image.to(device) for image in images]).argmax(dim=1).tolist()
        for one, target in zip(found, targets, strict=True):
            right.setdefault(int(target["labels"]), []).append(one == int(target["labels"]))
    of_class = [fmean(some) for some in right.values()]
    return {"accuracy": fmean(one for some in right.values() for one in some), "class_accuracy": fmean(of_class)}
