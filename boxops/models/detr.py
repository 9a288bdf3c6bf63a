"""DETR: a transformer turns learnt queries into the set of an image's objects; no anchors, no suppression.

Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020. Modules and settings have the names of
facebookresearch/detr, whose checkpoints load as they are. Its panoptic head is not here. Shapes: B images, Q queries, L
layers of the decoder, G objects of the batch, D channels, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import boxops

from . import backbones
from .builders import Weights, detector
from .common import IMAGENET, Detector, GroundTruth, Target, mean_over_processes
from .transformer import Transformer, padding_mask, sine_positions


@dataclass(frozen=True)
class Settings:
    """The hyperparameters, with facebookresearch/detr's names and values; appendix A.4."""

    min_size: int | Sequence[int] = 800
    max_size: int = 1333
    num_queries: int = 100  # as many objects as an image can have
    enc_layers: int = 6
    dec_layers: int = 6
    nheads: int = 8
    hidden_dim: int = 256
    dim_feedforward: int = 2048
    dropout: float = 0.1
    set_cost_class: float = 1.0  # what the matching weighs; section 3.1
    set_cost_bbox: float = 5.0
    set_cost_giou: float = 2.0
    bbox_loss_coef: float = 5.0
    giou_loss_coef: float = 2.0
    eos_coef: float = 0.1  # weight of "no object" in the class loss
    on_invalid: str = "raise"  # in training, at costs that are not finite; or "unmatched": their image teaches nothing


class MLP(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, out) for width, out in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


class DETR(Detector):
    """DETR on any backbone; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, H, W]`` to a dict of features, the last of which, with ``out_channels`` channels,
            is read.
        num_classes: C, with the background 0, which is never learnt and never found: of COCO 91, its ids from 1 to 90.
            ``class_embed`` has one column more, the last, for "no object".
        settings: the hyperparameters.

    The losses are those of the last layer of the decoder, ``loss_ce``, ``loss_bbox`` (L1) and ``loss_giou``, and of
    every layer before, ``loss_ce_0`` and so on: section 3.1 and equation 2. They are weighted already.

    Raises:
        ValueError: in training, for an image with more objects than there are queries; and on the CPU for costs that
            are not finite, which names the query. On CUDA the host would have to wait: there the losses are NaN. With
            ``on_invalid="unmatched"`` losses are those of the other images instead, and ``loss_ce`` is NaN where there
            are none.
    """

    legacy_names: Sequence[tuple[str, str]] = ((r"^backbone\.0\.", "backbone."),)

    def __init__(self, backbone: nn.Module, num_classes: int, settings: Settings = Settings()) -> None:
        s = settings
        super().__init__(GeneralizedRCNNTransform(s.min_size, s.max_size, *IMAGENET, size_divisible=1))  # type: ignore[arg-type]
        for name in ("num_queries", "dec_layers", "nheads"):
            if getattr(s, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(s, name)}")
        if s.hidden_dim < 1 or s.hidden_dim % s.nheads or s.hidden_dim % 4:
            raise ValueError(f"hidden_dim: expected a multiple of 4 and of nheads, {s.nheads}, got {s.hidden_dim}")
        if s.on_invalid not in ("raise", "unmatched"):
            raise ValueError(f"on_invalid: expected raise or unmatched, got {s.on_invalid!r}")
        self.settings, self.backbone = s, backbone
        self.transformer = Transformer(s.enc_layers, s.dec_layers, s.hidden_dim, s.nheads, s.dim_feedforward, s.dropout)
        self.input_proj = nn.Conv2d(int(backbone.out_channels), s.hidden_dim, 1)  # type: ignore[arg-type]
        self.query_embed = nn.Embedding(s.num_queries, s.hidden_dim)
        self.class_embed = nn.Linear(s.hidden_dim, num_classes + 1)
        self.bbox_embed = MLP(s.hidden_dim, s.hidden_dim, s.hidden_dim, 4)

    def predict(self, batch: ImageList) -> tuple[Tensor, Tensor]:
        """After each layer of the decoder class logits [L, B, Q, C + 1] and boxes [L, B, Q, 4], cxcywh as fractions
        of the image without its padding."""
        features = self.input_proj(list(self.backbone(batch.tensors).values())[-1])  # [B, D, H, W]
        (height, width), grid = batch.tensors.shape[-2:], (features.shape[-2], features.shape[-1])
        padding = padding_mask(batch.image_sizes, (height, width), grid, features.device)
        positions = sine_positions(padding, features.shape[1]).flatten(1, 2)  # [B, H W, D]
        full = all(size == (height, width) for size in batch.image_sizes)  # attention is faster without a mask
        cells = features.flatten(2).transpose(1, 2)
        hidden = self.transformer(cells, self.query_embed.weight, positions, None if full else padding.flatten(1))
        return self.class_embed(hidden).float(), self.bbox_embed(hidden).float().sigmoid()

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        s, truth = self.settings, GroundTruth.of(targets)
        logits, boxes = self.predict(batch)
        layers, images, queries = logits.shape[:3]
        no_object, device = logits.shape[-1] - 1, logits.device
        layer = torch.arange(layers, device=device)[:, None]
        image = torch.arange(images, device=device)
        image = image.repeat_interleave(truth.offsets.diff(), output_size=len(truth.boxes))  # [G]
        corners = truth.boxes / sides(batch, boxes)[image]
        target_boxes = boxops.box_convert(corners, "xyxy", "cxcywh")
        match = self.match(logits, boxes, truth, target_boxes)  # [L, G]

        labels = torch.full((layers, images, queries + 1), no_object, device=device)  # the last is of no query: -1
        labels[layer, image, match] = truth.labels
        labels, of_none = labels[..., :-1], labels[..., -1]
        weights = torch.where(labels == no_object, s.eos_coef, 1.0)
        if s.on_invalid == "unmatched":
            valid = logits.isfinite().all(dim=(2, 3)) & (of_none == no_object)  # [L, B]
            logits = logits.where(valid[..., None, None], 0.0)  # else gradients of 0 times NaN
            nothing = torch.where(valid.any(dim=1), 0.0, torch.nan)  # of no image at all the loss is NaN
            weights = weights.where(valid[..., None], nothing[:, None, None])
        classes = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), reduction="none").view_as(labels)
        found = match >= 0
        matched = boxes[layer, image, match.clamp(min=0)].where(found[..., None], torch.nan)  # [L, G, 4]
        l1 = F.l1_loss(matched, target_boxes.expand_as(matched), reduction="none").sum(dim=-1)
        giou = boxops.generalized_box_iou_loss(boxops.box_convert(matched, "cxcywh", "xyxy"), corners, eps=0.0)
        objects = mean_over_processes(found.sum(dim=1))  # [L]
        total = torch.nansum if s.on_invalid == "unmatched" else torch.sum
        losses = {
            "loss_ce": (classes * weights).sum(dim=(1, 2)) / mean_over_processes(weights.sum(dim=(1, 2))),
            "loss_bbox": s.bbox_loss_coef * total(l1, dim=1) / objects,
            "loss_giou": s.giou_loss_coef * total(giou, dim=1) / objects,
        }
        names = [*(f"_{i}" for i in range(layers - 1)), ""]
        return {name + of: loss for name, each in losses.items() for of, loss in zip(names, each.unbind(), strict=True)}

    @torch.no_grad()
    def match(self, logits: Tensor, boxes: Tensor, truth: GroundTruth, target_boxes: Tensor) -> Tensor:
        """The query of each object [L, G], at the least cost of all, in every layer by itself; equation 1.

        -1 for the objects of an image whose costs are not finite: on CUDA, and where ``on_invalid`` says so.

        Args:
            logits, boxes: as of ``predict``.
            target_boxes: the objects ``[G, 4]``, cxcywh, as fractions of their images' sides.
        """
        s, (layers, images, queries) = self.settings, logits.shape[:3]
        for i, target in enumerate(truth.images):
            if (objects := len(target["boxes"])) > queries:
                raise ValueError(f"num_queries: expected {objects} or more, a query for each object of image {i}, got "
                                 f"{queries}")  # fmt: skip
        # All layers at once: layer after layer, each with all images
        first = torch.arange(layers, device=logits.device)[:, None] * len(target_boxes) + truth.offsets[:-1]
        offsets = F.pad(first.flatten(), (0, 1), value=layers * len(target_boxes))  # [L B + 1]
        cost = boxops.detr_cost(
            logits.flatten(0, 1),
            boxes.flatten(0, 1),
            truth.labels.repeat(layers),
            target_boxes.repeat(layers, 1),
            offsets,
            class_weight=s.set_cost_class,
            box_weight=s.set_cost_bbox,
            giou_weight=s.set_cost_giou,
        )  # [L G, Q]
        try:
            _, match = boxops.linear_sum_assignment(cost, offsets=offsets, on_invalid=s.on_invalid)
        except (RuntimeError, ValueError):
            if cost.isfinite().all():
                raise
            at, query = (~cost.isfinite()).nonzero()[0].tolist()
            layer, image = divmod(int((offsets <= at).sum()) - 1, images)
            raise ValueError(
                f"expected finite logits and boxes, got a cost of {float(cost[at, query])} and the box "
                f"{boxes[layer, image, query].tolist()} of query {query} of image {image} after layer {layer}"
            ) from None
        return match.view(layers, -1)

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        """Every query is a detection, of its best class: section 4, "we override these slots"; the score may be low."""
        logits, boxes = (each[-1] for each in self.predict(batch))  # [B, Q, ...]
        scores, labels = logits.softmax(dim=-1)[..., 1:-1].max(dim=-1)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        boxes = boxops.box_convert(boxes, "cxcywh", "xyxy") * sides(batch, boxes)[:, None]
        boxes = torch.stack([*map(boxops.clip_boxes_to_image, boxes, batch.image_sizes)])
        boxes = boxes.gather(1, order[..., None].expand_as(boxes))
        found = {"boxes": boxes, "scores": scores, "labels": 1 + labels.gather(1, order)}
        return found, torch.full_like(order[:, 0], order.shape[1])


def sides(batch: ImageList, like: Tensor) -> Tensor:  # [B, 4]
    return like.new_tensor([[width, height, width, height] for height, width in batch.image_sizes])


# Appendix A.4, for batches of 64 images and 300 epochs or 500
PAPER: dict[str, Any] = {
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 1e-4,
    "backbone_lr": 0.1,
    "weight_decay": 1e-4,
    "clip": 0.1,
}
RESNET = {"norm": "frozen", "freeze": 5}  # on pretrained weights: no norm learns, nor conv1 to layer1


def resnet(
    name: str, num_classes: int, weights: Weights, norm: str, freeze: int, settings: Settings, dc5: bool = False
) -> DETR:
    """``dc5``: the last stage is dilated instead of strided, so that cells are 16 pixels wide; section 4."""
    dilation = {"replace_stride_with_dilation": [False, False, dc5]}
    network = backbones.classifier(name, norm, weights, freeze, **dilation)
    return DETR(backbones.resnet_c5(network), num_classes, settings)


@detector(Settings(), pretrained=RESNET, training=PAPER)
def detr_resnet50(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> DETR:
    """DETR on ResNet-50; loads facebookresearch/detr's ``detr_resnet50``."""
    return resnet("resnet50", num_classes, backbone_weights, norm, freeze, settings)


@detector(Settings(), pretrained=RESNET, training=PAPER)
def detr_resnet50_dc5(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> DETR:
    """The same on cells half as wide; loads ``detr_resnet50_dc5``."""
    return resnet("resnet50", num_classes, backbone_weights, norm, freeze, settings, dc5=True)


@detector(Settings(), pretrained=RESNET, training=PAPER)
def detr_resnet101(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> DETR:
    """DETR on ResNet-101; loads ``detr_resnet101``."""
    return resnet("resnet101", num_classes, backbone_weights, norm, freeze, settings)


@detector(Settings(), pretrained=RESNET, training=PAPER)
def detr_resnet101_dc5(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> DETR:
    """The same on cells half as wide; loads ``detr_resnet101_dc5``."""
    return resnet("resnet101", num_classes, backbone_weights, norm, freeze, settings, dc5=True)


SMALL: dict[str, Any] = {  # for images of 320 to 640 pixels, on a CPU
    "min_size": 320,
    "max_size": 640,
    "enc_layers": 3,
    "dec_layers": 3,
    "dim_feedforward": 1024,
    "dropout": 0.0,
}


@detector(
    Settings(**SMALL),
    short="detr",
    pretrained={"norm": "frozen", "freeze": 2},
    training={**PAPER, "lr": 3e-4, "channels_last": True},
)
def detr_mobilenet_v2(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> DETR:
    """DETR on MobileNetV2 up to stride 16, with 3 layers of each kind: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    return DETR(backbones.mobilenet_v2_c4(network), num_classes, settings)
