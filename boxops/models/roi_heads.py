"""The head of Fast R-CNN, and so the second stage of Faster R-CNN: what proposals show, and where it is exactly.

Girshick, "Fast R-CNN", ICCV 2015. Shapes: B images, P proposals, S of them sampled, K RoIs of all images, C classes
with the background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.image_list import ImageList

import boxops

from .common import GroundTruth
from .labels import cross_entropy
from .rpn import Sample

Result = dict[str, Tensor]


@dataclass(frozen=True)
class Sampling:
    """Which proposals train a classifier, with torchvision's names; section 2.3."""

    box_fg_iou_thresh: float = 0.5
    box_bg_iou_low: float = 0.1  # below, proposals teach nothing: a kind of hard example mining
    box_batch_size_per_image: int = 64
    box_positive_fraction: float = 0.25


@dataclass(frozen=True)
class Settings(Sampling):
    """The hyperparameters of the head."""

    box_pool: str = "max"  # RoI pooling; or "align", RoIAlign
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    box_bg_iou_thresh: float = 0.5
    bbox_reg_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0)
    box_beta: float = 1.0  # where smooth L1 turns linear; equation 3
    label_smoothing: float = 0.0  # of the objects' classes, see labels.py


class TwoMLPHead(nn.Module):
    """Two linear layers; ``ranks`` makes each of them two smaller ones, as :class:`LowRank`."""

    def __init__(self, in_features: int, hidden: int = 1024, ranks: Sequence[int] | None = None) -> None:
        super().__init__()
        if ranks is not None and len(ranks) != 2:
            raise ValueError(f"svd: expected two ranks, of fc6 and fc7, got {ranks}")
        self.fc6: nn.Module
        self.fc7: nn.Module
        if ranks is None:
            self.fc6, self.fc7 = nn.Linear(in_features, hidden), nn.Linear(hidden, hidden)
        else:
            self.fc6, self.fc7 = LowRank(in_features, hidden, ranks[0]), LowRank(hidden, hidden, ranks[1])
        self.in_features, self.out_features = in_features, hidden

    def forward(self, pooled: Tensor) -> Tensor:  # [K, channels, 7, 7] -> [K, hidden]
        return F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(1)))))


class LowRank(nn.Sequential):
    """A linear layer of that rank as two: the first without bias. Girshick 2015, section 3.1."""

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        most = min(in_features, out_features)
        if not 1 <= rank <= most:
            raise ValueError(f"svd: expected ranks of 1 to {most} for {in_features} x {out_features}, got {rank}")
        super().__init__(nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features))

    @classmethod
    @torch.no_grad()
    def of(cls, layer: nn.Linear, rank: int) -> LowRank:
        """The nearest to a layer: W = U S V^T becomes S_t V_t^T and U_t, of its t largest singular values."""
        layers = cls(layer.in_features, layer.out_features, rank).to(layer.weight)
        u, s, v = torch.linalg.svd(layer.weight, full_matrices=False)  # [out, n], [n], [n, in]
        first, second = s[:rank, None] * v[:rank], u[:, :rank]
        layers.load_state_dict({"0.weight": first, "1.weight": second, "1.bias": layer.bias})
        return layers


def classifier_head(network: Any, hidden: int = 4096, ranks: Sequence[int] | None = None) -> TwoMLPHead:
    """fc6 and fc7 of AlexNet or VGG16: the network's own, pretrained as it is, unless they are to be of other sizes."""
    fc6, fc7 = [layer for layer in network.classifier if isinstance(layer, nn.Linear)][:2]
    head = TwoMLPHead(fc6.in_features, hidden, ranks)
    if ranks is None and hidden == fc6.out_features:
        head.fc6, head.fc7 = fc6, fc7
    return head


class ConvHead(FastRCNNConvFCHead):
    """Four convolutions with batch norm and a linear layer, of torchvision's "v2" models."""

    def __init__(self, channels: int, pool_size: int = 7, hidden: int = 1024) -> None:
        super().__init__((channels, pool_size, pool_size), [channels] * 4, [hidden], norm_layer=nn.BatchNorm2d)
        self.out_features = hidden


class ResNetTail(nn.Module):
    """The last stage of a ResNet on each RoI, then its mean. He et al. 2016, appendix A."""

    def __init__(self, layer4: nn.Module, out_features: int = 2048) -> None:
        super().__init__()
        self.layer4 = layer4
        self.out_features = out_features

    def forward(self, pooled: Tensor) -> Tensor:  # [K, 1024, 14, 14] -> [K, 2048]
        features: Tensor = self.layer4(pooled)
        return features.mean(dim=(2, 3))


class FastRCNNPredictor(nn.Module):
    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_features, num_classes)
        self.bbox_pred = nn.Linear(in_features, num_classes * 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # [K, features] -> [K, C], [K, C, 4]
        return self.cls_score(features).float(), self.bbox_pred(features).view(len(features), -1, 4).float()


def sample(
    boxes: Tensor, real: Tensor, truth: GroundTruth, s: Sampling, bg_iou_thresh: float | None = None
) -> tuple[Sample, Tensor, Tensor]:
    """Which of boxes [B, P, 4], of which real [B, P] are no padding, train a classifier, their boxes [B, S, 4], and the
    object of each [B, S]. Girshick 2015, section 2.3."""
    matches, ious = boxops.match_max_iou(
        boxes, truth.boxes, s.box_fg_iou_thresh, bg_iou_thresh, offsets=truth.offsets, **truth.crowds
    )
    matches = matches.where(real & ((matches >= 0) | (ious >= s.box_bg_iou_low)), -2)
    chosen = Sample(matches, s.box_batch_size_per_image, s.box_positive_fraction)
    return chosen, chosen.of(boxes), chosen.of(matches)


class RoIHeads(nn.Module):
    """Classifies the proposals and refines their boxes. Girshick 2015, sections 2.1 and 2.3."""

    def __init__(self, box_head: nn.Module, num_classes: int, pool_size: int, settings: Settings) -> None:
        super().__init__()
        if settings.box_pool not in ("max", "align"):
            raise ValueError(f"box_pool: expected max or align, got {settings.box_pool!r}")
        self.settings, self.pool_size = settings, pool_size
        self.box_head = box_head
        self.box_predictor = FastRCNNPredictor(int(box_head.out_features), num_classes)  # type: ignore[arg-type]

    def forward(
        self, features: Sequence[Tensor], boxes: Tensor, batch: ImageList, real: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Class logits [B, P, C] and deltas [B, P, C, 4] of boxes [B, P, 4], of which real [B, P] are no padding."""
        pooled = pool(features, boxes, batch, self.pool_size, self.settings.box_pool)
        if real is not None and any(isinstance(part, _BatchNorm) and part.training for part in self.box_head.modules()):
            pooled = pooled[real.flatten()]  # padding has no part in the statistics; on a GPU the host waits here
            logits, deltas = (
                rows.new_zeros(*real.shape, *rows.shape[1:]).index_put((real,), rows)
                for rows in self.box_predictor(self.box_head(pooled))
            )
            return logits, deltas
        logits, deltas = self.box_predictor(self.box_head(pooled))
        return logits.unflatten(0, boxes.shape[:2]), deltas.unflatten(0, boxes.shape[:2])

    def sample(self, boxes: Tensor, counts: Tensor, truth: GroundTruth) -> tuple[Sample, Tensor, Tensor]:
        """Which proposals train the head, their boxes [B, S, 4], and the object of each [B, S]; the objects
        themselves are proposals too."""
        s, device = self.settings, boxes.device
        most = max(len(image["labels"]) for image in truth.images)
        objects = torch.arange(most, device=device).expand(len(boxes), -1)  # [B, most]
        boxes = torch.cat([boxes, truth.take(truth.boxes, objects.minimum(truth.offsets.diff()[:, None]))], dim=1)
        places = torch.arange(boxes.shape[1] - most, device=device)
        real = torch.cat([places < counts[:, None], objects < truth.offsets.diff()[:, None]], dim=1)
        return sample(boxes, real, truth, s, s.box_bg_iou_thresh)

    def losses(
        self, logits: Tensor, deltas: Tensor, sample: Sample, boxes: Tensor, matches: Tensor, truth: GroundTruth
    ) -> dict[str, Tensor]:
        """Class and box loss of the sampled boxes [B, S, 4] with their objects [B, S]."""
        labels = truth.take(truth.labels, matches) * sample.positive  # 0: background
        classes = cross_entropy(
            logits.flatten(0, 1),
            labels.flatten().where(sample.real.flatten(), -100),
            self.settings.label_smoothing,
        ).view_as(labels)
        weights = truth.weigh(matches)
        deltas = deltas.gather(2, labels[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)  # those of the own class
        objects = torch.where(sample.positive[..., None], truth.take(truth.boxes, matches), boxes)
        # A padded row's box is empty and its deltas NaN: it is left out, not multiplied by 0.
        targets = boxops.encode_boxes(objects, boxes, self.settings.bbox_reg_weights)
        targets = targets.where(sample.positive[..., None], deltas)
        regression = F.smooth_l1_loss(deltas, targets, reduction="none", beta=self.settings.box_beta).sum(dim=-1)
        losses = {"loss_classifier": classes, "loss_box_reg": regression}
        return {name: (loss * weights).sum() / sample.total for name, loss in losses.items()}

    def detections(
        self, logits: Tensor, deltas: Tensor, boxes: Tensor, counts: Tensor, batch: ImageList
    ) -> tuple[Result, Tensor]:
        """The best boxes of each image [B, D, ...] and how many they are [B], from logits [B, P, C], deltas
        [B, P, C, 4] and proposals [B, P, 4]."""
        s = self.settings
        places = torch.arange(boxes.shape[1], device=boxes.device)
        scores = logits.softmax(dim=-1) * (places < counts[:, None])[..., None]  # [B, P, C], padding 0
        decoded = boxops.decode_boxes(
            deltas[:, :, 1:], boxes[:, :, None], s.bbox_reg_weights, image_size=batch.image_sizes
        )  # [B, P, C - 1, 4]
        found, scores, labels, counts = boxops.detect(
            decoded,
            scores[..., 1:],
            s.box_score_thresh,
            s.box_nms_thresh,
            s.box_detections_per_img,
            min_size=1e-2,
        )
        return {"boxes": found, "scores": scores, "labels": labels + 1}, counts


def pool(
    features: Sequence[Tensor], boxes: Tensor | Sequence[Tensor], batch: ImageList, size: int, how: str = "align"
) -> Tensor:
    """Of boxes [B, P, 4], or of a list with those of each image, [B * P, channels, size, size]: by RoIAlign, or "max",
    RoI pooling. Girshick 2015, section 2.1."""
    levels: dict[float, Tensor] = {}  # by scale; of two with one scale, as MobileNetV3 has, RoIs belong to the first
    for feature in features:
        levels.setdefault(scale_of(feature, batch.tensors), feature)
    boxes = list(boxes)
    if how == "max":
        if len(features) > 1:
            raise ValueError(f"box_pool: expected align for {len(features)} levels of features, got max")
        return boxops.roi_pool(features[0], boxes, size, next(iter(levels)))
    if len(features) == 1:  # section 3.1 of the C4 models: no levels, and as many samples as the RoI is large
        return boxops.roi_align(features[0], boxes, size, next(iter(levels)), 0)
    return boxops.multiscale_roi_align([*levels.values()], boxes, size, [*levels], 2)


def scale_of(feature: Tensor, images: Tensor) -> float:
    """Cells of a feature for each pixel of its images: 1/16 at stride 16."""
    return float(2.0 ** round(math.log2(feature.shape[-2] / images.shape[-2])))
