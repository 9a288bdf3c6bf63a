"""darknet's networks: built from a .cfg, filled from a .weights file, and written back to one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .darknet_files import Header, Section, read_cfg, read_weights, write_weights
from .darknet_layers import HEADS, LAYERS, Layer, Shape


class Darknet(nn.Module):
    """The network of a cfg.

    Args:
        cfg: a file, or the sections that :func:`read_cfg` gives.

    Images ``[B, channels, height, width]`` of ``shape`` go in, RGB in 0..1; the inputs of the heads ([yolo], [region],
    [detection]) come out, or without any the last layer's output, as a list. Where there is no connected or local
    layer, other sides will do.

    Raises:
        ValueError: layers do not fit, or an option has a value that darknet would not take; with file and line.
    """

    layers: Sequence[Layer]

    def __init__(self, cfg: str | Path | Sequence[Section]) -> None:
        super().__init__()
        net, *sections = self.sections = read_cfg(cfg) if isinstance(cfg, str | Path) else list(cfg)
        self.shape: Shape = (net.integer("channels"), net.integer("height"), net.integer("width"))
        self.header = Header()
        layers: list[Layer] = []
        self.sources: list[list[int]] = []  # of each layer, those it reads; -1 is the image
        shapes = [self.shape]
        for i, section in enumerate(sections):
            sources = sources_of(section, i)
            read = [f"[{sections[j].kind}]" for j in sources if j >= 0 and sections[j].kind in HEADS]
            if read:
                raise section.error("to read a layer", f"a head, {read[0]}")
            layer = LAYERS[section.kind](section, [shapes[j + 1] for j in sources])
            layers.append(layer)
            self.sources.append(sources)
            shapes.append(layer.shape)
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        last = [len(sections) - 1]
        self.heads = [i for i, section in enumerate(sections) if section.kind in HEADS] or last
        self.last_use = {j: i for i, sources in enumerate(self.sources) for j in sources}

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs = {-1: images}
        for i, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            outputs[i] = layer(*(outputs[j] for j in sources))
            for j in set(sources):
                if self.last_use[j] == i:
                    del outputs[j]  # memory
        return [outputs[i] for i in self.heads]

    @property
    def lines(self) -> list[str]:
        """Of the cfg, without its comments."""
        return [line for section in self.sections for line in section.lines]

    def fold(self) -> Darknet:
        """For inference, in place: batch norm becomes part of the weights, which then cannot be saved. On a CPU these
        lie as its convolutions read them fastest, channels last."""
        for layer in self.layers:
            layer.fold()
        if all(weight.device.type == "cpu" for weight in self.parameters()):
            self.to(memory_format=torch.channels_last)
        return self.eval()

    def load(self, file: str | Path, layers: int | None = None, start: bool = False) -> None:
        """Fills the network from a .weights file, all or nothing.

        Args:
            file: its header is kept in ``header``.
            layers: read no more than the first so many layers, darknet's cutoff: the start of a network that is to
                learn other classes. Then the file may be of a longer network.
            start: the file may end behind any layer, as darknet53.conv.74 does; those after it stay as they are.

        Raises:
            ValueError: the file has fewer values than the layers, which says where it ends, or more; or it is none.
            OSError: it cannot be read.
        """
        header, values = read_weights(file)
        at = 0
        chosen = list(self.layers)[:layers]
        for i, layer in enumerate(chosen):
            if start and at == len(values) > 0:
                chosen = chosen[:i]
                break
            count = sum(tensor.numel() for tensor in layer.stored(header.transposed))
            if at + count > len(values):
                named = f"layer {i} [{layer.section.kind}] ({layer.section.place})"
                hint = f"; with cutoff={i} it is left as it is" if start else ""
                raise ValueError(f"{file}: expected {count} values for {named}, found {len(values) - at}: "
                                 f"the file has {len(values)}{hint}")  # fmt: skip
            at += count
        if layers is None and at < len(values):
            raise ValueError(f"{file}: expected {at} values for all {len(self.layers)} layers, found {len(values)}")
        at = 0
        with torch.no_grad():
            for layer in chosen:
                for tensor in layer.stored(header.transposed):
                    tensor.copy_(torch.from_numpy(values[at : at + tensor.numel()]).view(tensor.shape))
                    at += tensor.numel()
        self.header = header

    def save(self, file: str | Path) -> None:
        """Writes a .weights file, with ``header``: what :meth:`load` read comes out with the same bytes."""
        stored = [t for layer in self.layers for t in layer.stored(self.header.transposed)]
        write_weights(file, self.header, [tensor.detach().cpu().numpy() for tensor in stored])


def sources_of(section: Section, index: int) -> list[int]:
    """What the layer of this index reads: the layer before, or those that it names, from itself or absolute."""
    option = {"route": "layers", "shortcut": "from"}.get(section.kind)
    if option is None:
        return [index - 1]
    named = section.integers(option)
    if not named or (option == "from" and len(named) > 1):
        raise section.error(f"{option} of {'one layer' if option == 'from' else 'layers'}", named or "none", option)
    absolute = [index + j if j < 0 else j for j in named]
    if not all(0 <= j < index for j in absolute):
        raise section.error(f"{option} among the layers before this one, {index}", named, option)
    return [index - 1, *absolute] if option == "from" else absolute
