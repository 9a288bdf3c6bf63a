"""What the detectors share: ground truth as flat arrays, results in the images' own pixels, a mean over processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import boxops

from .checkpoint import load_weights

if TYPE_CHECKING:
    from .proposals import Proposals

Target = dict[str, Any]
PER_OBJECT = ("boxes", "labels", "masks", "keypoints", "weights")
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # mean and standard deviation of the backbones' images


@dataclass
class GroundTruth:
    """The objects of a batch, one image's after another's; crowds lie apart, since nothing is trained on them."""

    boxes: Tensor  # [G, 4]
    labels: Tensor  # [G]
    weights: Tensor  # [G], what each counts in the losses: 1, but for those of mixup
    offsets: Tensor  # [B + 1], image b has the objects offsets[b] to offsets[b + 1]
    crowds: dict[str, Any]  # the crowd boxes, as match_max_iou takes them; {} without any
    images: list[Target]  # boxes, labels, masks, keypoints and weights of each image, without crowds

    @classmethod
    def of(cls, targets: Sequence[Target]) -> GroundTruth:
        images, crowds = [], []
        for target in targets:
            image = {key: target[key] for key in PER_OBJECT if key in target}
            apart = image["boxes"][:0]
            if "iscrowd" in target:  # on a GPU the host waits here; the trainer leaves it out where there are no crowds
                crowd = target["iscrowd"].bool()
                apart = image["boxes"][crowd]
                image = {key: values[~crowd] for key, values in image.items()}
            images.append(image)
            crowds.append(apart.float())
        boxes = [image["boxes"].float() for image in images]
        labels = torch.cat([image["labels"] for image in images])
        weights = [image.get("weights", some.new_ones(len(some))) for image, some in zip(images, boxes, strict=True)]
        ignored = {"ignore_boxes": torch.cat(crowds), "ignore_offsets": _offsets(crowds)}
        crowded = len(ignored["ignore_boxes"]) > 0
        weighed = torch.cat(weights).float()
        return cls(torch.cat(boxes), labels, weighed, _offsets(boxes), ignored if crowded else {}, images)

    def take(self, values: Tensor, matches: Tensor) -> Tensor:
        """Of values [G, ...] those that the matches [B, A] name, [B, A, ...]; where none is matched, any value or 0."""
        padded = torch.cat([values, values.new_zeros(1, *values.shape[1:])])  # images without objects read the last row
        return padded[self.offsets[:-1, None] + matches.clamp(min=0)]

    def weigh(self, matches: Tensor) -> Tensor:
        """Of matches [B, A] what each counts, [B, A]: as much as its object, and 1 without one."""
        return self.take(self.weights, matches).where(matches >= 0, 1.0)


def _offsets(parts: Sequence[Tensor]) -> Tensor:
    counts = [0, *(len(part) for part in parts)]
    return torch.tensor(counts, device=parts[0].device).cumsum(0)


@dataclass(frozen=True)
class Stage:
    """Something that a model learns otherwise than by steps, such as its SVMs.

    ``fit(model, data, run)``, with a :class:`boxops.training.StageRun`, changes the model's weights. It is called once
    the steps and the stages before are done, on the data learnt from, and again after a kill: what it keeps in files of
    ``run.folder`` that begin with its name it finds there again. ``check(model, data)`` is called before the first step
    and raises what ``fit`` would raise in the end.
    """

    name: str
    fit: Callable[..., None]
    check: Callable[..., None] | None = None


class Detector(nn.Module):
    """Images and targets in, losses or detections out, as torchvision's detectors.

    A subclass gives ``losses`` and ``padded``. Resizing, normalising and padding are torchvision's.

    Args:
        images: tensors ``[3, H, W]``, floating in 0..1, of any sizes.
        targets: for training, per image a dict of ``boxes`` ``[G, 4]`` (corners in pixels, x1 < x2 and y1 < y2),
            ``labels`` int64 ``[G]`` in 1..num_classes - 1, and where they are known ``iscrowd`` ``[G]``, ``masks``
            ``[G, H, W]``, ``keypoints`` ``[G, K, 3]`` and ``weights`` ``[G]``, what each object counts in the losses
            (mixup's; 1 without them), of a detector that is ``weighted``. A detector that makes no proposals of its own
            reads ``proposals`` ``[P, 4]``, in evaluation too; where there are none, it calls its ``proposals``.

    Returns:
        In training, a dict of scalar losses. In evaluation, per image a dict of ``boxes`` ``[D, 4]`` in its own pixels,
        ``scores`` ``[D]`` descending, ``labels`` ``[D]``, and what the model adds.
    """

    metric = "coco"  # what boxops.evaluation measures of it
    weighted = False  # whether its losses know the weights of objects
    legacy_names: Sequence[tuple[str, str]] = ()  # (pattern, replacement) of older checkpoints' names
    proposals: Proposals | None = None  # of detectors that are given their proposals
    stages: Sequence[Stage] = ()  # what is learnt when the steps of the training are done
    options: Mapping[str, Any] = {}  # of the config, in place of those that were given: of files what is in them
    config: dict[str, Any]

    def __init__(self, transform: GeneralizedRCNNTransform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, images: Sequence[Tensor], targets: Sequence[Target] | None = None) -> Any:
        check_images(images)
        if self.training:
            targets = check_targets(targets, len(images), getattr(self, "config", {}).get("num_classes"), self.weighted)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        images = [image.as_subclass(Tensor) for image in images]
        batch, resized = self.transform(images, targets if self.training else None)
        self.add_proposals(batch, images, targets)
        if self.training:
            return self.losses(batch, resized)
        return [
            to_original(result, size, original)
            for result, size, original in zip(self.detections(batch), batch.image_sizes, sizes, strict=True)
        ]

    def add_proposals(self, batch: ImageList, images: Sequence[Tensor], targets: Sequence[Target] | None) -> None:
        """Gives the batch of these images the targets' proposals, or else its own, in pixels of the resized images."""
        if self.proposals is None:
            return
        given = [target.get("proposals") for target in targets or [{}] * len(images)]
        boxes = [self.proposals(image) if own is None else own for image, own in zip(images, given, strict=True)]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch.proposals = [scaled(*each) for each in zip(boxes, batch.image_sizes, sizes, strict=True)]

    def load(self, source: str | Path, fine_tune: bool = False) -> None:
        """The weights of a file or an address; see :func:`load_weights`."""
        load_weights(self, source, fine_tune=fine_tune)

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        raise NotImplementedError

    def fold(self) -> Detector:
        """For inference, in place: weights as they are read fastest, where the model knows how. No way back: what was
        folded neither learns nor is saved."""
        return self.eval()

    def batch(self, images: Tensor) -> ImageList:
        """What the transform makes of images [B, 3, H, W] of one size in evaluation, as one graph."""
        transform = self.transform
        size = resized((images.shape[-2], images.shape[-1]), transform)
        images = F.interpolate(transform.normalize(images), size, mode="bilinear", align_corners=False)
        multiple = transform.size_divisible
        high, wide = (-(-side // multiple) * multiple for side in size)
        images = F.pad(images, (0, wide - size[1], 0, high - size[0]))
        return ImageList(images, [size] * len(images))

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        """The detections of each image by descending score, padded to a fixed number: [B, D, ...] by name, and how many
        are real [B]. Waits for no device."""
        raise NotImplementedError

    def detections(self, batch: ImageList) -> list[dict[str, Tensor]]:
        return split(*self.padded(batch))


class Padded(nn.Module):
    """A detector with results of fixed size: one graph for ``torch.compile(..., fullgraph=True)`` and ``torch.export``.

    Args:
        images: a batch ``[B, 3, H, W]``, floating in 0..1.

    Returns:
        ``boxes`` ``[B, D, 4]`` in the images' pixels, ``scores`` and ``labels`` ``[B, D]``, ``counts`` ``[B]``, how
        many rows of an image are not padding; these come first. Of Mask R-CNN ``masks`` ``[B, D, 1, 28, 28]``,
        probabilities within the boxes, for :func:`boxops.paste_masks`, and ``keypoint_logits`` ``[B, D, K, 56, 56]``:
        torchvision's decoding of heatmaps resizes each to its own box, and has no fixed size.

    Shapes are part of the graph: export once for each B, H and W.

        program = torch.export.export(boxops.models.Padded(model), (images,))
    """

    def __init__(self, model: Detector) -> None:
        super().__init__()
        if model.proposals is not None:
            raise ValueError(f"expected a detector that makes its own proposals, got {type(model).__name__}")
        self.model = model.eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        batch = self.model.batch(images)
        found, counts = self.model.padded(batch)
        y, x = images.shape[-2] / batch.image_sizes[0][0], images.shape[-1] / batch.image_sizes[0][1]
        found["boxes"] = found["boxes"] * found["boxes"].new_tensor([x, y, x, y])
        return {**found, "counts": counts}


def resized(size: tuple[int, int], transform: GeneralizedRCNNTransform) -> tuple[int, int]:
    """The (height, width) that the transform gives an image of this size in evaluation."""
    if transform.fixed_size is not None:
        return transform.fixed_size[1], transform.fixed_size[0]
    scale = min(transform.min_size[-1] / min(size), transform.max_size / max(size))
    return int(size[0] * scale), int(size[1] * scale)


def check_images(images: Sequence[Tensor]) -> None:
    """Raises ValueError: no images, or one that is no floating tensor [3, H, W]."""
    if len(images) == 0:
        raise ValueError("expected one image or more, got none")
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise ValueError(f"expected tensors [3, H, W] as images, got {type(image).__name__} for image {i}")
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"expected a list of images [3, H, W], got {[*image.shape]} for image {i}")
        if not image.is_floating_point():
            raise ValueError(f"expected floating images in 0..1, got {image.dtype} for image {i}; torchvision's "
                             "transforms.v2.ToDtype(torch.float32, scale=True) converts them")  # fmt: skip


def check_targets(
    targets: Sequence[Target] | None, images: int, num_classes: int | None = None, weighted: bool = False
) -> Sequence[Target]:
    """The targets, integer labels as int64 and integer boxes as float32.

    Raises ValueError: not a target for each image, or boxes and labels that nothing can be learnt from; says which.
    """
    if targets is None or len(targets) != images:
        raise ValueError(f"expected a target for each of {images} images, got {targets and len(targets)}")
    checked = []
    for i, target in enumerate(targets):
        for key in ("boxes", "labels"):
            if key not in target:
                raise ValueError(
                    f"expected boxes and labels for image {i}, got {', '.join(map(str, target)) or 'none'}"
                )
            if not isinstance(target[key], Tensor):
                raise ValueError(f"expected {key} as a tensor for image {i}, got {type(target[key]).__name__}")
        boxes, labels = target["boxes"], target["labels"]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            shapes = f"{[*boxes.shape]} and {[*labels.shape]}"
            raise ValueError(f"expected boxes [G, 4] and labels [G] for image {i}, got {shapes}")
        if len(labels) and (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool):
            raise ValueError(f"expected integer labels for image {i}, got {labels.dtype}")
        weights = target.get("weights")
        if weights is not None and not weighted:
            raise ValueError(f"expected objects without weights for this detector, whose losses do not know them, got "
                             f"weights for image {i}: mixup is for others")  # fmt: skip
        if weights is not None and weights.shape != labels.shape:
            raise ValueError(f"expected weights {[*labels.shape]} for image {i}, got {[*weights.shape]}")
        boxes = boxes if boxes.is_floating_point() else boxes.float()
        checked.append({**target, "boxes": boxes, "labels": labels.long()})
    boxes, labels = (torch.cat([target[key] for target in checked]) for key in ("boxes", "labels"))
    empty = ~(boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    strange = (labels < 1) | (labels > (labels if num_classes is None else num_classes - 1))
    if (empty | strange).any():  # all images at once: on a GPU the host waits here, this one time
        images_of = torch.arange(images).repeat_interleave(torch.tensor([len(t["boxes"]) for t in checked]))
        if empty.any():
            i, box = int(images_of[empty.cpu()][0]), boxes[empty][0].tolist()
            raise ValueError(f"expected boxes with x1 < x2 and y1 < y2 for image {i}, got {box}")
        i, label = int(images_of[strange.cpu()][0]), int(labels[strange][0])
        most = "more" if num_classes is None else num_classes - 1
        raise ValueError(f"expected labels of 1 to {most} for image {i} (0 is the background), got {label}")
    return checked


def scaled(boxes: Tensor, size: tuple[int, int], original: tuple[int, int]) -> Tensor:
    """Boxes [N, 4] of an image that was resized from its original (height, width) to this size."""
    y, x = size[0] / original[0], size[1] / original[1]
    return boxes.as_subclass(Tensor).float() * boxes.new_tensor([x, y, x, y], dtype=torch.float32)


def to_original(result: dict[str, Tensor], size: tuple[int, int], original: tuple[int, int]) -> dict[str, Tensor]:
    """Detections of the resized image in pixels of the original one; masks [D, 1, M, M] are pasted into it."""
    result["boxes"] = scaled(result["boxes"], original, size)
    if "masks" in result:
        result["masks"] = boxops.paste_masks(result["masks"], result["boxes"], original)
    if "keypoints" in result:
        y, x = original[0] / size[0], original[1] / size[1]
        result["keypoints"] = result["keypoints"] * result["keypoints"].new_tensor([x, y, 1])
    return result


def split(found: dict[str, Tensor], counts: Tensor) -> list[dict[str, Tensor]]:
    """Of each image the rows that are not padding: the one place where a detector waits for the device."""
    return [{name: rows[b, :count] for name, rows in found.items()} for b, count in enumerate(counts.tolist())]


def mean_over_processes(count: Tensor) -> Tensor:
    """The mean of a count over all processes, at least 1.

    DistributedDataParallel averages gradients; with losses divided by this, they are those of the whole batch.
    """
    count = count.float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(min=1)
