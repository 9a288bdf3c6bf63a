"""Backbones: torchvision's and timm's networks as the pyramids of features that detectors read.

A backbone maps images ``[B, 3, H, W]`` to a dict of features, fine to coarse, and has ``out_channels``: one number with
FPN, and for SSD the channels of each map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from .checkpoint import load_weights, read, state_of
from .weights import Weights, address

NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
    "frozen_eps0": partial(FrozenBatchNorm2d, eps=0.0),
    "batch_lite": partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03),
    "frozen_lite": partial(FrozenBatchNorm2d, eps=1e-3),
}
LEGACY_FPN = (r"^(backbone\.fpn\.\w+_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2")  # see Detector.legacy_names


def classifier(name: str, norm: str | None, weights: Weights = None, freeze: int = 0, **options: Any) -> nn.Module:
    """torchvision's network of that name, whose parts make backbones.

    Args:
        norm: "batch" normalises by the batch and learns; "frozen" is fixed, for small batches on pretrained weights;
            "frozen_eps0" likewise, without adding to the variance; "batch_lite" and "frozen_lite" have the numbers of
            torchvision's SSDLite; None for networks that have none.
        weights: a file, a URL or the name of ImageNet weights; of all of the network or of its ``features`` alone.
        freeze: so many of the first stages do not learn.
        options: of torchvision's network.
    """
    if norm is not None and norm not in NORMS:
        raise ValueError(f"expected norm to be one of {', '.join(NORMS)}, got {norm!r}")
    layer = {} if norm is None else {"norm_layer": NORMS[norm]}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **layer, **options)
    source, features = address(name, weights), getattr(network, "features", network)
    if source is not None:
        state = state_of(read(source), source)
        only_features = features is not network and state.keys() <= features.state_dict().keys()
        load_weights(features if only_features else network, state, source=source)
    for stage in list(features.children())[:freeze]:
        stage.requires_grad_(False)
    return network


def resnet_fpn(network: nn.Module, channels: int = 256, norm: str | None = None) -> nn.Module:
    """A ResNet with FPN: levels of stride 4 to 32, and one more pooled from the last. Lin et al. 2017, section 3.

    ``norm`` is of the convolutions of the FPN, one of NORMS or None.
    """
    width = network.fc.in_features // 8  # type: ignore[union-attr, operator]
    levels = {f"layer{i + 1}": str(i) for i in range(4)}
    widths = [width << i for i in range(4)]  # type: ignore[operator]
    return BackboneWithFPN(network, levels, widths, channels, LastLevelMaxPool(), norm and NORMS[norm])


def mobilenet_fpn(network: nn.Module, blocks: Sequence[int], channels: int) -> nn.Module:
    """A MobileNet with FPN: its features after these blocks, and one more level pooled from the last."""
    features: Any = network.features
    levels = {str(block): str(i) for i, block in enumerate(blocks)}
    widths = [features[block].out_channels for block in blocks]
    return BackboneWithFPN(features, levels, widths, channels, LastLevelMaxPool())


class OneLevel(nn.Module):
    """The first layers of a network: one level of features."""

    def __init__(self, body: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"0": self.body(images)}


def resnet_c4(network: nn.Module) -> OneLevel:
    """A ResNet up to its fourth stage: stride 16. Ren et al. 2015; He et al. 2016, appendix A."""
    body = nn.Sequential(OrderedDict(list(network.named_children())[:7]))  # conv1 ... layer3
    return OneLevel(body, network.fc.in_features // 2)  # type: ignore[union-attr, operator, arg-type]


def resnet_c5(network: nn.Module) -> OneLevel:
    """A ResNet up to its last stage: stride 32, or 16 where that stage is dilated."""
    body = nn.Sequential(OrderedDict(list(network.named_children())[:8]))  # conv1 ... layer4
    return OneLevel(body, network.fc.in_features)  # type: ignore[union-attr, arg-type]


def alexnet_conv5(network: nn.Module) -> OneLevel:
    """AlexNet up to conv5, without the last pooling: stride 16."""
    return OneLevel(network.features[:12], 256)  # type: ignore[index, arg-type]


def alexnet_valid(network: nn.Module, convs: int) -> OneLevel:
    """AlexNet up to conv3, 4 or 5, without padding: stride 16, and a cell sees 99, 131 or 163 pixels a side."""
    if convs not in (3, 4, 5):
        raise ValueError(f"convs: expected 3, 4 or 5, got {convs}")
    layers: Any = network.features[: 2 * convs + 2]  # type: ignore[index]
    for layer in layers:
        if hasattr(layer, "padding"):
            layer.padding = (0, 0)
    return OneLevel(layers, layers[-2].out_channels)


def vgg16_conv5(network: nn.Module) -> OneLevel:
    """VGG16 up to conv5_3, without the last pooling: stride 16."""
    return OneLevel(network.features[:30], 512)  # type: ignore[index, arg-type]


def mobilenet_v2_c4(network: nn.Module) -> OneLevel:
    """MobileNetV2 up to its last block of stride 16."""
    return OneLevel(network.features[:14], 96)  # type: ignore[index, arg-type]


class TimmFPN(nn.Module):
    """Any timm network that gives features, with FPN."""

    def __init__(
        self,
        name: str,
        channels: int = 256,
        levels: Sequence[int] = (1, 2, 3, 4),
        weights: Weights = None,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ImportError(f"expected timm for the backbone {name}, got none: pip install timm") from error
        own = weights == "DEFAULT"  # timm's own
        source = None if own else address(name, weights)
        self.body = timm.create_model(name, features_only=True, out_indices=tuple(levels), pretrained=own)
        if source is not None:
            load_weights(self.body, source)
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


class VGG16Maps(nn.Module):
    """VGG16 with the maps of SSD300: conv4_3 (normalised), fc7 as a convolution, and conv8_2 to conv11_2. Section 3."""

    out_channels = (512, 1024, 512, 256, 256, 256)

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        layers = list(network.features)  # type: ignore[arg-type]
        pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        layers[pools[2]].ceil_mode = True  # 75 -> 38 cells, as in the paper
        self.features = nn.Sequential(*layers[: pools[3]])  # to conv4_3
        self.scale_weight = nn.Parameter(torch.full((512,), 20.0))  # of the channels of conv4_3; section 3.1
        fc = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(inplace=True),
        )
        strided: dict[str, Any] = {"stride": 2, "padding": 1}
        self.extra = nn.ModuleList(
            [
                nn.Sequential(*layers[pools[3] : -1], fc),
                narrow_wide(1024, 256, 512, **strided),
                narrow_wide(512, 128, 256, **strided),
                narrow_wide(256, 128, 256),
                narrow_wide(256, 128, 256),
            ]
        )
        xavier(fc)
        xavier(self.extra[1:])

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # [B, 3, 300, 300] -> 38, 19, 10, 5, 3, 1 cells
        x = self.features(images)
        maps = [self.scale_weight[:, None, None] * F.normalize(x)]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return {str(i): x for i, x in enumerate(maps)}


class MobileNetV2Maps(nn.Module):
    """MobileNetV2 with maps of SSD300's sizes: two of its expansions and its end, and three smaller ones beyond.

    The expansions have six times the channels of the blocks' ends; Sandler et al. 2018, section 6.2, read them too. All
    maps are normalised as the paper's first one is (section 3.1), and the new layers by the batch: as they come, 1280
    channels of large values make a head's first steps so rough that the backbone learns to silence them for good.
    """

    out_channels = (192, 576, 1280, 512, 256, 256)
    scale = 4.0  # length of every cell's features

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = network.features
        self.extra = nn.ModuleList(
            [
                nn.Sequential(*normed(1280, 256, 1), *normed(256, 512, 3, stride=2, padding=1)),
                nn.Sequential(*normed(512, 128, 1), *normed(128, 256, 3, stride=2, padding=1)),
                nn.Sequential(*normed(256, 128, 1), nn.Conv2d(128, 256, 3), nn.ReLU(inplace=True)),  # one cell: no norm
            ]
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # [B, 3, 300, 300] -> 38, 19, 10, 5, 3, 1 cells
        x, maps = images, []
        for i, block in enumerate(self.features):  # type: ignore[arg-type]
            if i in (7, 14):  # its first layer expands, the second has stride 2
                x = block.conv[0](x)
                maps.append(x)
                x = block.conv[1:](x)
            else:
                x = block(x)
        maps.append(x)
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return {str(i): self.scale * F.normalize(x) for i, x in enumerate(maps)}


class MobileNetV3Maps(SSDLiteFeatureExtractorMobileNet):
    """MobileNetV3-Large with the maps of SSDLite, torchvision's. Howard et al. 2019, section 6.3."""

    def __init__(self, network: nn.Module, norm: str) -> None:
        blocks: Any = network.features
        super().__init__(blocks, 13, NORMS[norm])  # block 13's first layer expands, the second has stride 2
        wide = blocks[13].block[0].out_channels
        self.out_channels = (wide, blocks[16].out_channels, 512, 256, 256, 128)


def normed(channels: int, out: int, size: int, **conv: Any) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, size, bias=False, **conv), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


def narrow_wide(channels: int, narrow: int, wide: int, **conv: Any) -> nn.Sequential:
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(nn.Conv2d(channels, narrow, 1), relu, nn.Conv2d(narrow, wide, 3, **conv), relu)


def small_normal(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.03)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def xavier(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
