"""Backbones: torchvision's and timm's networks as the pyramids of features that detectors read.

A backbone maps images ``[B, 3, H, W]`` to a dict of features, fine to coarse, and has ``out_channels``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torchvision
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from .checkpoint import load_weights

NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
    "frozen_eps0": partial(FrozenBatchNorm2d, eps=0.0),
}
LEGACY_FPN = (r"^(backbone\.fpn\.\w+_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2")  # see Detector.legacy_names


def classifier(name: str, norm: str | None, weights: str | Path | None = None, freeze: int = 0) -> nn.Module:
    """torchvision's network of that name, whose parts make backbones.

    Args:
        norm: "batch" normalises by the batch and learns; "frozen" is fixed, for small batches on pretrained weights;
            "frozen_eps0" likewise, without adding to the variance; None for networks that have none.
        weights: a file or URL of ImageNet weights.
        freeze: so many of the first stages do not learn.
    """
    if norm is not None and norm not in NORMS:
        raise ValueError(f"expected norm to be one of {', '.join(NORMS)}, got {norm!r}")
    layer = {} if norm is None else {"norm_layer": NORMS[norm]}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **layer)
    if weights is not None:
        load_weights(network, weights)
    stages = getattr(network, "features", network)
    for stage in list(stages.children())[:freeze]:
        stage.requires_grad_(False)
    return network


def resnet_fpn(network: nn.Module, channels: int = 256) -> nn.Module:
    """A ResNet with FPN: levels of stride 4 to 32, and one more pooled from the last. Lin et al. 2017, section 3."""
    width = network.fc.in_features // 8  # type: ignore[union-attr, operator]
    levels = {f"layer{i + 1}": str(i) for i in range(4)}
    return BackboneWithFPN(network, levels, [width << i for i in range(4)], channels, LastLevelMaxPool())  # type: ignore[operator]


def mobilenet_v2_fpn(network: nn.Module, channels: int = 128) -> nn.Module:
    """MobileNetV2 with FPN: levels of stride 8, 16 and 32, and one more pooled from the last."""
    levels = {"6": "0", "13": "1", "18": "2"}
    return BackboneWithFPN(network.features, levels, [32, 96, 1280], channels, LastLevelMaxPool())  # type: ignore[arg-type]


class ResNetC4(nn.Module):
    """A ResNet up to its fourth stage: one level of stride 16. Ren et al. 2015; He et al. 2016, appendix A."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(OrderedDict(list(network.named_children())[:7]))  # conv1 ... layer3
        self.out_channels = network.fc.in_features // 2  # type: ignore[union-attr, operator]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": self.body(images)}


class TimmFPN(nn.Module):
    """Any timm network that gives features, with FPN."""

    def __init__(
        self,
        name: str,
        channels: int = 256,
        levels: Sequence[int] = (1, 2, 3, 4),
        pretrained: bool = False,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ImportError(f"expected timm for the backbone {name}, got none: pip install timm") from error
        self.body = timm.create_model(name, features_only=True, out_indices=tuple(levels), pretrained=pretrained)
        if weights is not None:
            load_weights(self.body, weights)
        widths = self.body.feature_info.channels()  # type: ignore[operator, union-attr]
        self.fpn = FeaturePyramidNetwork(widths, channels, LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.fpn(OrderedDict((str(i), f) for i, f in enumerate(self.body(images))))
        return features


def resnet_fpn_p6p7(network: nn.Module, channels: int = 256, from_c5: bool = False) -> nn.Module:
    """A ResNet with FPN from stride 8, and convolutions to 64 and 128, from FPN's last level or, as in the paper, the
    network's (C5). Lin et al. 2017, "Focal Loss", section 4."""
    width = network.fc.in_features // 8  # type: ignore[union-attr, operator]
    levels = {f"layer{i + 2}": str(i) for i in range(3)}
    more = LastLevelP6P7(width * 8 if from_c5 else channels, channels)
    return BackboneWithFPN(network, levels, [width << i for i in range(1, 4)], channels, more)  # type: ignore[operator]
