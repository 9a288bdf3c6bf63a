"""The layers of darknet's networks, from sections of a cfg; each says which functions or files of darknet it follows.

Shapes: B images, C channels; what goes in and comes out is [B, C, H, W] everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from .darknet_files import LARGEST, Section

Shape = tuple[int, int, int]  # channels, height, width
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {  # activations.h; inplace, as what they are given is theirs
    "linear": nn.Identity,
    "leaky": partial(nn.LeakyReLU, 0.1, inplace=True),
    "logistic": nn.Sigmoid,
    "relu": partial(nn.ReLU, inplace=True),
    "elu": nn.ELU,
    "tanh": nn.Tanh,
}
HEADS = ("yolo", "region", "detection")
NORM = {"eps": 1e-6, "momentum": 0.01}  # normalize_cpu adds it to the root: the same but for variances near 1e-6


class Layer(nn.Module):
    """A layer that knows the section it was built from and the shape of its output."""

    def __init__(self, section: Section, shape: Shape) -> None:
        super().__init__()
        channels, height, width = self.shape = shape
        self.section = section
        if min(shape) < 1 or channels * height * width > LARGEST:
            raise section.error("an output of 1 to 2^31 values", f"channels, height and width {shape}")

    def stored(self, transposed: bool = False) -> list[Tensor]:
        """The tensors that a .weights file has of this layer, in its order."""
        return []

    def fold(self) -> None:
        """Batch norm, as it is in evaluation, becomes part of the layer's weights."""


class Linear(Layer):
    """What convolutional and connected layers share: weights, then batch norm or a bias, then the activation."""

    linear: Any  # nn.Conv2d or nn.Linear
    norm: Any  # nn.BatchNorm2d or nn.BatchNorm1d, or None

    def __init__(self, section: Section, shape: Shape, linear: Callable[..., nn.Module], norm: Any, fan: int) -> None:
        super().__init__(section, shape)
        if fan * shape[0] > LARGEST:
            raise section.error("fewer than 2^31 weights", fan * shape[0])
        normed = section.flag("batch_normalize")
        self.linear, self.norm = linear(bias=not normed), norm(shape[0], **NORM) if normed else None
        self.activation = activation(section, "logistic")
        initialize(self.linear, fan)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        result: Tensor = self.activation(x if self.norm is None else self.norm(x))
        return result

    def bias_and_statistics(self) -> tuple[Tensor, list[Tensor]]:
        norm = self.norm
        if norm is not None:
            return norm.bias, [norm.weight, norm.running_mean, norm.running_var]
        if self.section.flag("batch_normalize"):
            raise ValueError(f"{self.section.place}: expected weights with their batch norm, got folded ones")
        return self.linear.bias, []

    def fold(self) -> None:
        if self.norm is not None:
            fuse = fuse_conv_bn_eval if isinstance(self.linear, nn.Conv2d) else fuse_linear_bn_eval
            self.linear, self.norm = fuse(self.linear.eval(), self.norm.eval()), None


class Convolutional(Linear):
    """parse_convolutional; convolutional_layer.c."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        channels, height, width = inputs[0]
        filters, size, stride = s.integer("filters", 1), s.integer("size", 1), s.integer("stride", 1)
        groups, padding = s.integer("groups", 1), size // 2 if s.flag("pad") else s.integer("padding", 0, 0)
        if channels % groups or filters % groups:
            raise s.error(f"groups that divide {channels} channels and {filters} filters", groups, "groups")
        sides = [(side + 2 * padding - size) // stride + 1 for side in (height, width)]
        conv = partial(nn.Conv2d, channels, filters, size, stride, padding, groups=groups)
        super().__init__(s, (filters, sides[0], sides[1]), conv, nn.BatchNorm2d, channels // groups * size**2)

    def stored(self, transposed: bool = False) -> list[Tensor]:
        bias, statistics = self.bias_and_statistics()
        return [bias, *statistics, self.linear.weight]


class Connected(Linear):
    """parse_connected; connected_layer.c: [B, C, H, W] -> [B, outputs, 1, 1]."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        values = inputs[0][0] * inputs[0][1] * inputs[0][2]
        outputs = s.integer("output", 1)
        super().__init__(s, (outputs, 1, 1), partial(nn.Linear, values, outputs), nn.BatchNorm1d, values)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))[..., None, None]

    def stored(self, transposed: bool = False) -> list[Tensor]:
        bias, statistics = self.bias_and_statistics()
        return [bias, self.linear.weight.T if transposed else self.linear.weight, *statistics]


class Local(Layer):
    """parse_local; local_layer.c: a convolution with weights of its own at each place."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        channels, height, width = inputs[0]
        filters, self.size, self.stride = s.integer("filters", 1), s.integer("size", 1), s.integer("stride", 1)
        self.padding = self.size // 2 if s.flag("pad") else 0
        if self.padding and self.size % 2 == 0:
            raise s.error("an odd size with pad", self.size, "size")
        sides = [(side + 2 * self.padding - self.size) // self.stride + 1 for side in (height, width)]
        super().__init__(s, (filters, sides[0], sides[1]))
        places, fan = sides[0] * sides[1], channels * self.size**2
        if places * filters * fan > LARGEST:
            raise s.error("fewer than 2^31 weights", places * filters * fan)
        self.weight = nn.Parameter(torch.empty(places, filters, fan))
        self.bias = nn.Parameter(torch.empty(filters, places))
        self.activation = activation(s, "logistic")
        initialize(self, fan)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.size, padding=self.padding, stride=self.stride)  # [B, C size^2, places]
        outputs = torch.einsum("bkp,pfk->bfp", patches, self.weight) + self.bias
        result: Tensor = self.activation(outputs.unflatten(2, self.shape[1:]))
        return result

    def stored(self, transposed: bool = False) -> list[Tensor]:
        return [self.bias, self.weight]


class MaxPool(Layer):
    """parse_maxpool; maxpool_layer.c: padded by size - 1 in all, the larger half after the map, whatever the stride."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        channels, height, width = inputs[0]
        self.stride = s.integer("stride", 1)
        self.size = s.integer("size", self.stride)
        self.padding = s.integer("padding", self.size - 1, 0, 2 * self.size - 2)  # no window lies in the padding alone
        sides = [(side + self.padding - self.size) // self.stride + 1 for side in (height, width)]
        super().__init__(s, (channels, sides[0], sides[1]))

    def forward(self, x: Tensor) -> Tensor:
        before = self.padding // 2
        after = []
        for side in x.shape[2:]:
            outputs = (side + self.padding - self.size) // self.stride + 1
            after.append(max((outputs - 1) * self.stride + self.size - before - side, 0))
        if after == [before, before] and 2 * before <= self.size:
            return F.max_pool2d(x, self.size, self.stride, before)
        if before or any(after):
            x = F.pad(x, (before, after[1], before, after[0]), value=-torch.inf)
        return F.max_pool2d(x, self.size, self.stride)


class AvgPool(Layer):
    """avgpool_layer.c: of the whole map."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        super().__init__(s, (inputs[0][0], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True)


class Reorg(Layer):
    """parse_reorg; reorg_cpu: v2's passthrough, [B, C, H, W] -> [B, C s^2, H / s, W / s].

    darknet takes the map's memory for one of C / s^2 channels and sides s times as long, moves each s x s block of that
    into channels, and reads the result as the shape above: not the paper's order, but the one that weights know.
    """

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        channels, height, width = inputs[0]
        self.stride, self.reverse = s.integer("stride", 1), s.flag("reverse")
        n, square = self.stride, self.stride**2
        if channels % square or (not self.reverse and (height % n or width % n)):
            raise s.error(f"channels that {n}^2 divides, and sides that {n} does", inputs[0], "stride")
        if self.reverse:
            super().__init__(s, (channels // square, height * n, width * n))
        else:
            super().__init__(s, (channels * square, height // n, width // n))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        n = self.stride
        if self.reverse:
            x = x.reshape(batch, n, n, channels // n**2, height, width).permute(0, 3, 4, 1, 5, 2)
            return x.reshape(batch, channels // n**2, height * n, width * n)
        x = x.reshape(batch, channels // n**2, height, n, width, n).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(batch, channels * n**2, height // n, width // n)


class Upsample(Layer):
    """parse_upsample; upsample_cpu."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        channels, height, width = inputs[0]
        self.stride, self.scale = s.integer("stride", 2), s.number("scale", 1)
        super().__init__(s, (channels, height * self.stride, width * self.stride))

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=self.stride, mode="nearest")
        return x if self.scale == 1 else x * self.scale


class Route(Layer):
    """parse_route; route_layer.c: the channels of other layers, of each the group ``group_id`` of ``groups``."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        self.groups = s.integer("groups", 1)
        self.group = s.integer("group_id", 0, 0, self.groups - 1)
        if len({shape[1:] for shape in inputs}) > 1:
            raise s.error("layers of one height and width", f"the shapes {list(inputs)}", "layers")
        if any(shape[0] % self.groups for shape in inputs):
            raise s.error("groups that divide the layers' channels", f"the shapes {list(inputs)}", "groups")
        super().__init__(s, (sum(shape[0] for shape in inputs) // self.groups, *inputs[0][1:]))

    def forward(self, *maps: Tensor) -> Tensor:
        parts = [some.chunk(self.groups, dim=1)[self.group] for some in maps]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class Shortcut(Layer):
    """parse_shortcut; shortcut_cpu: adds another layer's channels, as far as both have them, where places meet."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        (channels, height, width), other = inputs
        self.alpha, self.beta = s.number("alpha", 1), s.number("beta", 1)  # of the layer before, of the other one
        self.step, self.every = max(other[2] // width, 1), max(width // other[2], 1)
        self.common = min(channels, other[0])
        if (other[1] * self.every, other[2] * self.every) != (height * self.step, width * self.step):
            raise s.error(f"a layer of {height} x {width}, or a multiple or a part of it", other, "from")
        super().__init__(s, inputs[0])
        self.activation = activation(s, "linear")

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        if x.shape == other.shape:
            x = x + other if self.alpha == self.beta == 1 else self.alpha * x + self.beta * other
        else:
            x = x.clone()
            part = x[:, : self.common, :: self.every, :: self.every]
            part.mul_(self.alpha).add_(other[:, : self.common, :: self.step, :: self.step], alpha=self.beta)
        result: Tensor = self.activation(x)
        return result


class Crop(Layer):
    """crop_layer.c, as in evaluation: the middle of the map, from 0..1 to -1..1 unless ``noadjust``."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        channels, height, width = inputs[0]
        size = s.integer("crop_height", 1, 1, height), s.integer("crop_width", 1, 1, width)
        self.adjust = not s.flag("noadjust")
        super().__init__(s, (channels, *size))

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.shape[1:]
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        x = x[..., top : top + height, left : left + width]
        return 2 * x - 1 if self.adjust else x


class Dropout(Layer):
    """dropout_layer.c."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        super().__init__(s, inputs[0])
        self.probability = s.number("probability", 0.5)
        if not 0 <= self.probability <= 1:
            raise s.error("probability of 0 to 1", self.probability, "probability")

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.probability, self.training)


class Softmax(Layer):
    """parse_softmax; softmax_layer.c: of each of ``groups`` parts of all values."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        super().__init__(s, inputs[0])
        values = inputs[0][0] * inputs[0][1] * inputs[0][2]
        self.groups, self.temperature = s.integer("groups", 1), s.number("temperature", 1)
        if values % self.groups or self.temperature == 0:
            raise s.error(f"groups that divide {values} values, at a temperature", s.options)

    def forward(self, x: Tensor) -> Tensor:
        groups = x.flatten(1).unflatten(1, (self.groups, -1))  # [B, groups, values]
        return (groups / self.temperature).softmax(dim=2).reshape(x.shape)


class Same(Layer):
    """A head, whose numbers come out as they are, or the cost, which matters in darknet's training alone."""

    def __init__(self, s: Section, inputs: Sequence[Shape]) -> None:
        super().__init__(s, inputs[0])

    def forward(self, x: Tensor) -> Tensor:
        return x


LAYERS: dict[str, Callable[[Section, Sequence[Shape]], Layer]] = {
    "convolutional": Convolutional,
    "connected": Connected,
    "local": Local,
    "maxpool": MaxPool,
    "avgpool": AvgPool,
    "reorg": Reorg,
    "upsample": Upsample,
    "route": Route,
    "shortcut": Shortcut,
    "crop": Crop,
    "dropout": Dropout,
    "softmax": Softmax,
    "cost": Same,
    **dict.fromkeys(HEADS, Same),
}


def activation(s: Section, default: str) -> nn.Module:
    name = s.options.get("activation", default)
    if name not in ACTIVATIONS:
        raise s.error(f"activation among {', '.join(ACTIVATIONS)}", repr(name), "activation")
    return ACTIVATIONS[name]()


def initialize(layer: Any, fan: int) -> None:
    """As make_convolutional_layer: normal of variance 2 over the values that make one output."""
    nn.init.normal_(layer.weight, std=(2 / fan) ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
