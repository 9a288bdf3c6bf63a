"""The networks of YOLO: small ones in the language of darknet's cfg, and what training changes about any of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from .darknet import Darknet
from .darknet_files import Section
from .darknet_layers import Linear
from .dense import PRIOR
from .yolo_heads import HEADS, Detection, Head


def convolution(filters: int, size: int = 3) -> list[str]:
    return ["[convolutional]", "batch_normalize=1", f"filters={filters}", f"size={size}", "stride=1", "pad=1",
            "activation=leaky"]  # fmt: skip


def output(filters: int) -> list[str]:
    return ["[convolutional]", f"filters={filters}", "size=1", "stride=1", "pad=1", "activation=linear"]


def pool(stride: int = 2) -> list[str]:
    return ["[maxpool]", "size=2", f"stride={stride}"]


def net(size: int) -> list[str]:
    return ["[net]", f"width={size}", f"height={size}", "channels=3"]


def yolo(mask: str) -> list[str]:
    anchors = "10,14,23,27,37,58,81,82,135,169,344,319"
    return ["[yolo]", f"mask={mask}", f"anchors={anchors}", "classes=80", "num=6", "ignore_thresh=.7", "random=1"]


FIVE = [line for filters in (16, 32, 64, 128, 256) for line in (*convolution(filters), *pool())]  # 3 to 256, 1/32
COARSE = [*FIVE, *convolution(512), *pool(1), *convolution(1024)]
TINY = {  # by the kind of their heads: yolov1-tiny (with fewer channels to connect), yolov2-tiny, yolov3-tiny
    "detection": [
        *net(448), *FIVE, *convolution(512), *pool(), *convolution(1024), *convolution(256), *convolution(32, 1),
        "[connected]", f"output={7 * 7 * (80 + 2 * 5)}", "activation=linear",
        "[detection]", "classes=80", "coords=4", "rescore=1", "side=7", "num=2", "sqrt=1",
        "noobject_scale=.5", "coord_scale=5",
    ],
    "region": [
        *net(416), *COARSE, *convolution(512), *output(425),
        "[region]", "anchors=0.57273,0.677385,1.87446,2.06253,3.33843,5.47434,7.88282,3.52778,9.77052,9.16828",
        "bias_match=1", "classes=80", "coords=4", "num=5", "softmax=1", "object_scale=5", "thresh=.6", "random=1",
    ],
    "yolo": [
        *net(416), *COARSE, *convolution(256, 1), *convolution(512), *output(255), *yolo("3,4,5"),
        "[route]", "layers=-4", *convolution(128, 1), "[upsample]", "stride=2",
        "[route]", "layers=-1,8", *convolution(256), *output(255), *yolo("0,1,2"),
    ],
}  # fmt: skip


def with_classes(sections: Sequence[Section], num_classes: int | None) -> list[Section]:
    """The sections for so many classes and the background: the heads', and the outputs of the layers before them.

    Raises:
        ValueError: no layer before a head says how many outputs it has.
    """
    made = list(sections)
    for i, section in enumerate(sections):
        if num_classes is None or section.kind not in HEADS or section.integer("classes", 20) == num_classes - 1:
            continue
        made[i] = changed(section, classes=num_classes - 1)
        option = {"convolutional": "filters", "connected": "output"}.get(sections[i - 1].kind)
        if option is None:
            raise section.error("[convolutional] or [connected] before it", f"[{sections[i - 1].kind}]")
        made[i - 1] = changed(sections[i - 1], **{option: HEADS[section.kind].inputs(made[i])})
    return made


def changed(section: Section, **options: int) -> Section:
    return replace(section, options=section.options | {name: str(value) for name, value in options.items()})


def start_head(network: Darknet, index: int, head: Head) -> None:
    """What the layer before the head with this index starts with.

    A convolution begins with outputs near 0 and few objects: thousands of boxes without any would else be all there is
    to the loss (Lin et al., ICCV 2017, section 4.1). v1's connected layer has weights of its own for each cell, so that
    a few hundred images hardly tell one what another has learnt; where it can, it begins as a convolution too: each
    cell reads its own place, and all alike.
    """
    layer = network.layers[index - 1]
    if not isinstance(layer, Linear) or layer.linear.bias is None:
        return
    nn.init.normal_(layer.linear.weight, std=0.01)
    nn.init.zeros_(layer.linear.bias)
    if not isinstance(head, Detection):
        nn.init.constant_(layer.linear.bias.view(-1, head.columns)[:, 4], -math.log((1 - PRIOR) / PRIOR))
        return
    before = network.sources[index - 1][0]
    channels, *grid = network.layers[before].shape if before >= 0 else network.shape
    if grid == [head.side, head.side]:
        cells = head.side**2
        each = torch.randn(head.classes + 5 * head.num, channels) / channels**0.5
        parts = torch.arange(len(layer.linear.weight)).split(head.parts)
        outputs = torch.cat([part.view(cells, -1) for part in parts], dim=1)  # [cells, C + 5 num]
        with torch.no_grad():
            weight = layer.linear.weight.zero_().view(-1, channels, cells)
            weight[outputs, :, torch.arange(cells)[:, None]] = each.to(weight)
