"""The region proposal network: which of all anchors hold an object, and where it is exactly.

Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1. Shapes: B images, A anchors, P proposals, S anchors sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import Conv2dNormActivation

import boxops

from .common import GroundTruth, mean_over_processes

BETA = 1 / 9  # where smooth L1 turns linear; section 3.1.2 with the sigma of the authors' code


@dataclass(frozen=True)
class Settings:
    """The hyperparameters, with torchvision's names and values."""

    anchor_sizes: Sequence[Sequence[float]] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    rpn_pre_nms_top_n_train: int = 2000
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n_train: int = 2000
    rpn_post_nms_top_n_test: int = 1000
    rpn_nms_thresh: float = 0.7
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_score_thresh: float = 0.0


class RPNHead(nn.Module):
    """An objectness logit and the deltas of a box for each anchor of each cell."""

    def __init__(self, channels: int, num_anchors: int, convs: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(*(Conv2dNormActivation(channels, channels, 3, norm_layer=None) for _ in range(convs)))
        self.cls_logits = nn.Conv2d(channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, num_anchors * 4, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        hidden = [self.conv(feature) for feature in features]
        # [B, anchors * K, H, W] -> [B, H * W * anchors, K]: cells row by row, their anchors inner, as grid_anchors
        logits = [self.cls_logits(h).permute(0, 2, 3, 1).flatten(1) for h in hidden]
        deltas = [self.bbox_pred(h).permute(0, 2, 3, 1).reshape(h.shape[0], -1, 4) for h in hidden]
        return torch.cat(logits, dim=1).float(), torch.cat(deltas, dim=1).float()  # [B, A], [B, A, 4]


class RegionProposalNetwork(nn.Module):
    def __init__(self, channels: int, settings: Settings, convs: int = 1) -> None:
        super().__init__()
        self.settings = settings
        anchors = {len(sizes) * len(settings.aspect_ratios) for sizes in settings.anchor_sizes}
        if len(anchors) != 1:
            raise ValueError(f"expected anchor_sizes with as many sizes on every level, got {settings.anchor_sizes}")
        self.head = RPNHead(channels, anchors.pop(), convs)

    def forward(
        self, features: Sequence[Tensor], batch: ImageList, truth: GroundTruth | None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Proposals [B, P, 4], how many of them are real [B], and with ground truth the losses."""
        s = self.settings
        grids = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        if len(grids) != len(s.anchor_sizes):
            raise ValueError(f"expected anchor_sizes for {len(grids)} levels of features, got {len(s.anchor_sizes)}")
        logits, deltas = self.head(features)
        ratios = [s.aspect_ratios] * len(grids)
        image_size = (batch.tensors.shape[-2], batch.tensors.shape[-1])
        anchors = boxops.grid_anchors(image_size, grids, s.anchor_sizes, ratios, like=deltas)  # [A, 4]
        per_cell = self.head.cls_logits.out_channels
        boxes, _, counts = boxops.generate_proposals(
            logits.detach(),
            deltas.detach(),
            anchors,
            [height * width * per_cell for height, width in grids],
            batch.image_sizes,
            s.rpn_pre_nms_top_n_train if self.training else s.rpn_pre_nms_top_n_test,
            s.rpn_post_nms_top_n_train if self.training else s.rpn_post_nms_top_n_test,
            s.rpn_nms_thresh,
            score_threshold=s.rpn_score_thresh,
        )
        return boxes, counts, self.losses(logits, deltas, anchors, truth) if truth else {}

    def losses(self, logits: Tensor, deltas: Tensor, anchors: Tensor, truth: GroundTruth) -> dict[str, Tensor]:
        s = self.settings
        matches, _ = boxops.match_max_iou(
            anchors, truth.boxes, s.rpn_fg_iou_thresh, s.rpn_bg_iou_thresh, True, offsets=truth.offsets, **truth.crowds
        )  # [B, A]
        sample = Sample(matches, s.rpn_batch_size_per_image, s.rpn_positive_fraction)
        weights = sample.of(truth.weigh(matches))
        objectness = F.binary_cross_entropy_with_logits(
            sample.of(logits), sample.positive.float(), sample.real * weights, reduction="sum"
        )
        chosen = anchors[sample.at]  # [B, S, 4]
        # Where nothing is to be learnt, the anchor is its own target: finite deltas, times 0.
        boxes = torch.where(sample.positive[..., None], truth.take(truth.boxes, sample.of(matches)), chosen)
        regression_targets = boxops.encode_boxes(boxes, chosen)
        regression = F.smooth_l1_loss(sample.of(deltas), regression_targets, reduction="none", beta=BETA)
        regression = (regression * (sample.positive * weights)[..., None]).sum()
        return {"loss_objectness": objectness / sample.total, "loss_rpn_box_reg": regression / sample.total}


class Sample:
    """The anchors or proposals that a loss looks at, S of each image. Ren et al. 2015, section 3.1.3."""

    def __init__(self, matches: Tensor, size: int, positive_fraction: float) -> None:
        picked, positives, taken = boxops.sample_matches(matches, size, positive_fraction)
        self.real = picked >= 0  # [B, S]
        self.positive = torch.arange(size, device=matches.device) < positives[:, None]  # [B, S]
        self.at = picked.clamp(min=0)  # [B, S]
        self.total = mean_over_processes(taken.sum())

    def of(self, values: Tensor) -> Tensor:
        """Those of values [B, A, ...], as [B, S, ...]."""
        return values[torch.arange(len(values), device=values.device)[:, None], self.at]
