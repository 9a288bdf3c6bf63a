"""Pix2Seq: objects as a language; a network reads the image and writes down what is where, token after token.

Chen et al., "Pix2seq: A Language Modeling Framework for Object Detection", ICLR 2022. The tokens: sequences.py, the
decoder: causal.py, the encoder is DETR's. Shapes: B images, S cells, D channels, V words, N objects of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import boxops

from . import backbones
from .builders import ADAMW, Weights, detector
from .causal import CausalDecoder, Pair
from .common import IMAGENET, Detector, GroundTruth, Target, mean_over_processes, split
from .sequences import EOS, OBJECT, ORDERINGS, Vocabulary, sequence
from .transformer import Encoder, padding_mask, sine_positions


@dataclass(frozen=True)
class Settings:
    """The hyperparameters; for COCO: section 3.1 and the appendix."""

    size: int = 640  # the longer side of images, and the side of the square they are padded to
    n_bins: int = 1000
    max_objects: int = 100  # of a sequence, in training and in evaluation
    ordering: str = "random"  # area or dist2ori; in training
    noise: bool = True  # sequence augmentation, section 2.3; else EOS ends a sequence
    encoder_layers: int = 6
    decoder_layers: int = 6
    dim: int = 256
    heads: int = 8
    feedforward: int = 1024
    dropout: float = 0.1
    top_p: float = 0.4  # nucleus sampling of coordinates; 0: the likeliest
    temperature: float = 1.0
    seed: int = 0  # of the sampling: an image's detections depend on nothing but the image

    def __post_init__(self) -> None:
        least = {"size": 1, "n_bins": 2, "max_objects": 1, "encoder_layers": 0, "decoder_layers": 1, "heads": 1,
                 "dim": 4, "feedforward": 1}  # fmt: skip
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}: expected {low} or more, got {getattr(self, name)}")
        if self.ordering not in ORDERINGS:
            raise ValueError(f"ordering: expected one of {', '.join(ORDERINGS)}, got {self.ordering!r}")
        if self.dim % 4 or self.dim % self.heads:
            raise ValueError(f"dim: expected a multiple of 4 and of the {self.heads} heads, got {self.dim}")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p: expected a share in 0..1, got {self.top_p}")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}; --set top_p=0 takes "
                             "the likeliest tokens")  # fmt: skip
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a share below 1, got {self.dropout}")


class Pix2Seq(Detector):
    """Pix2Seq on any backbone; see :class:`Detector` for what goes in and comes out.

    Args:
        backbone: maps images ``[B, 3, size, size]`` to a dict of features, of which the last, with ``out_channels``, is
            read.
        num_classes: with the background, which is 0.
        settings: the hyperparameters.

    The losses are ``coordinates`` and ``classes``, of the tokens at those places: their sum is equation 1, the mean
    cross-entropy of the tokens with a weight. Of an image with more objects than a sequence has, the last of the
    ordering are not learnt; one with fewer goes on to say noise, or ends. With ``noise`` a sequence always has all its
    objects, each with the likeliest class, though noise be likelier, and that class's probability as its score;
    without, the model says where it ends.

    A coordinate's token is taken from the coordinates only (where a sequence may end, also EOS), a class's from the
    classes. Boxes that are empty or not within the image are dropped.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, settings: Settings = Settings()) -> None:
        s = settings
        super().__init__(GeneralizedRCNNTransform(s.size, s.size, *IMAGENET, size_divisible=s.size))
        self.settings, self.backbone = s, backbone
        self.vocabulary = Vocabulary(s.n_bins, num_classes, s.size)
        self.length = OBJECT * s.max_objects
        channels = int(backbone.out_channels)  # type: ignore[arg-type]
        self.input_proj, self.input_norm = nn.Conv2d(channels, s.dim, 1), nn.LayerNorm(s.dim)
        self.encoder = Encoder(s.encoder_layers, s.dim, s.heads, s.feedforward, s.dropout)
        sizes = s.decoder_layers, s.dim, s.heads, s.feedforward, s.dropout
        self.decoder = CausalDecoder(len(self.vocabulary), self.length, *sizes)
        self.draws: list[float] = np.random.default_rng(s.seed).random(self.length).tolist()

    def read(self, batch: ImageList) -> tuple[list[Pair], Tensor]:
        """What the decoder's layers read of the images, and bool [B, S] of cells beyond them."""
        features = self.input_proj([*self.backbone(batch.tensors).values()][-1])  # [B, D, H, W]
        image_size, grid = (tuple(x.shape[-2:]) for x in (batch.tensors, features))
        padding = padding_mask(batch.image_sizes, image_size, grid, features.device)  # type: ignore[arg-type]
        positions = sine_positions(padding, self.settings.dim).flatten(1, 2)  # [B, S, D]
        padding = padding.flatten(1)
        cells = self.input_norm(features.flatten(2).transpose(1, 2)) + positions  # values say where they are, too
        return self.decoder.memory(self.encoder(cells, positions, padding) + positions), padding

    def losses(self, batch: ImageList, targets: list[Target]) -> dict[str, Tensor]:
        s = self.settings
        rows = [
            sequence(self.vocabulary, image["boxes"].float(), image["labels"], size, s.max_objects, s.ordering, s.noise)
            for image, size in zip(GroundTruth.of(targets).images, batch.image_sizes, strict=True)
        ]
        read, said, weights = (torch.stack(parts) for parts in zip(*rows, strict=True))  # [B, 5 N] each
        memory, padding = self.read(batch)
        logits = self.decoder(
            F.pad(read[:, :-1], (1, 0), value=EOS), memory, padding
        )  # of each token, from those before
        each = F.cross_entropy(logits.flatten(0, 1).float(), said.flatten(), reduction="none")
        each = (each * weights.flatten()).view(-1, OBJECT) / mean_over_processes(weights.sum())
        return {"coordinates": each[:, :-1].sum(), "classes": each[:, -1].sum()}

    def generate(
        self, memory: list[Pair], padding: Tensor | None, wait: bool = False, cached: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Writes the sequences of all images, token by token: [B, 5 N], and the probability of each class, [B, N].

        Args:
            wait: look after each object whether all sequences have ended: waits for the device.
            cached: else each token costs as much as all tokens before it together, with the same result.
        """
        s, v = self.settings, self.vocabulary
        cache = self.decoder.cache(memory) if cached else None
        last = torch.full((len(memory[0][0]), 1), EOS, device=memory[0][0].device)
        ended, read, scores = last != EOS, [last], []
        for t in range(self.length):
            place = t % OBJECT
            if place == 0 and wait and bool(ended.all()):
                break
            tokens = last if cached else torch.cat(read, dim=1)
            logits = self.decoder(tokens, memory, padding, cache, t if cached else 0)[:, -1].float()  # [B, V]
            if place == OBJECT - 1:
                score, label = logits.softmax(dim=-1)[:, v.n_bins + 1 : v.noise].max(dim=-1, keepdim=True)
                scores.append(score)
                token = v.n_bins + 1 + label
            else:
                first = EOS if place == 0 and not s.noise else EOS + 1
                token = first + pick(logits[:, first : v.n_bins + 1] / s.temperature, s.top_p, self.draws[t])
            last = token.where(~ended, EOS)
            ended = ended | (last == EOS)
            read.append(last)
        rest = self.length + 1 - len(read)
        return (F.pad(torch.cat(read[1:], dim=1), (0, rest), value=EOS),
                F.pad(torch.cat(scores, dim=1), (0, rest // OBJECT)))  # fmt: skip

    def find(self, batch: ImageList, wait: bool) -> tuple[dict[str, Tensor], Tensor]:
        tokens, scores = self.generate(*self.read(batch), wait)
        boxes, labels, real = self.vocabulary.objects(tokens)
        inside = [*map(boxops.clip_boxes_to_image, boxes, batch.image_sizes)]
        boxes = torch.stack(inside)  # [B, N, 4]
        real &= boxops.box_area(boxes) > 0
        scores, at = scores.where(real, -1).sort(dim=1, descending=True, stable=True)
        real = real.gather(1, at)
        boxes = boxes.gather(1, at[..., None].expand(-1, -1, 4)) * real[..., None]
        return {"boxes": boxes, "scores": scores * real, "labels": labels.gather(1, at) * real}, real.sum(dim=1)

    def padded(self, batch: ImageList) -> tuple[dict[str, Tensor], Tensor]:
        return self.find(batch, wait=False)

    def detections(self, batch: ImageList) -> list[dict[str, Tensor]]:
        return split(*self.find(batch, wait=not self.settings.noise))


def pick(logits: Tensor, top_p: float, draw: float) -> Tensor:
    """A token [B, 1] for each row of logits [B, V] by nucleus sampling: of the likeliest tokens, as few as have the
    probability top_p together, the one at this share of it (draw, in 0 up to 1). Holtzman et al., ICLR 2020."""
    probabilities, tokens = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    up_to = probabilities.cumsum(dim=-1)
    kept = up_to - probabilities < top_p
    kept[:, 0] = True
    whole = (probabilities * kept).sum(dim=-1, keepdim=True)
    at = ((up_to <= draw * whole) & kept).sum(dim=-1, keepdim=True)
    return tokens.gather(1, at.minimum(kept.sum(dim=-1, keepdim=True) - 1))


@detector(
    Settings(),
    pretrained={"norm": "frozen", "freeze": 5},
    training={**ADAMW, "lr": 1e-4, "weight_decay": 0.05},
)
def pix2seq_resnet50(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> Pix2Seq:
    """Pix2Seq on ResNet-50, at 640 pixels."""
    network = backbones.classifier("resnet50", norm, backbone_weights, freeze)
    return Pix2Seq(backbones.resnet_c5(network), num_classes, settings)


SMALL: dict[str, Any] = {
    "size": 160,
    "n_bins": 100,
    "max_objects": 16,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "dim": 128,
    "heads": 4,
    "feedforward": 256,
    "dropout": 0.0,
}


@detector(
    Settings(**SMALL),
    short="pix2seq",
    pretrained={"norm": "frozen", "freeze": 2},
    training={**ADAMW, "lr": 1e-3, "batch_size": 16},
)
def pix2seq_mobilenet_v2(
    num_classes: int, backbone_weights: Weights, settings: Settings, norm: str = "batch", freeze: int = 0
) -> Pix2Seq:
    """Pix2Seq on MobileNetV2's map of stride 16, with 3 + 3 layers: learns on a CPU."""
    network = backbones.classifier("mobilenet_v2", norm, backbone_weights, freeze)
    return Pix2Seq(backbones.mobilenet_v2_c4(network), num_classes, settings)
