"""The transformer of DETR: a set of queries reads an image's cells, which have read each other.

Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020, appendix A.3 and figure 10; Vaswani et al.,
"Attention Is All You Need", NeurIPS 2017. Modules have the names of facebookresearch/detr, whose checkpoints load as
they are. Shapes: B images, S cells of the feature map, Q queries, D channels, L layers of the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def padding_mask(sizes: Sequence[tuple[int, int]], image_size: tuple[int, int], grid: tuple[int, int],
                 device: torch.device | None = None) -> Tensor:  # fmt: skip
    """Which cells of the grid lie beyond an image of (height, width) in a padded batch of ``image_size``: [B, *grid].

    A cell is where its first pixel is.
    """
    inside = []
    for axis in range(2):
        first = torch.arange(grid[axis], device=device) * image_size[axis] // grid[axis]
        inside.append(first < torch.tensor([size[axis] for size in sizes], device=device)[:, None])
    return ~(inside[0][:, :, None] & inside[1][:, None, :])


def sine_positions(padding: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Where each cell is, as sines and cosines of its row (the first half) and its column: [B, H, W, channels].

    Rows and columns are counted within the image, which is 2 pi high and wide. Appendix A.4.

    Args:
        padding: bool ``[B, H, W]``, see :func:`padding_mask`.
        channels: a multiple of 4.
    """
    pairs = torch.arange(channels // 4, device=padding.device)
    wavelengths = temperature ** (pairs / (channels // 4))
    halves = []
    for axis in (1, 2):
        count = (~padding).cumsum(dim=axis, dtype=torch.float32)  # from 1
        last = count.narrow(axis, -1, 1)  # the image's height or width in cells
        angles = (2 * math.pi * count / (last + 1e-6))[..., None] / wavelengths
        halves.append(torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2))
    return torch.cat(halves, dim=-1)


class EncoderLayer(nn.Module):
    """Self-attention and a network of two layers, each added to what it read and then normalised."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(channels, feedforward), nn.Linear(feedforward, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:  # [B, S, D]
        at = x + positions
        read, _ = self.self_attn(at, at, x, key_padding_mask=padding, need_weights=False)
        x = self.norm1(x + self.dropout(read))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class DecoderLayer(nn.Module):
    """The queries attend to each other, then to the cells; then the network of two layers."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(channels, feedforward), nn.Linear(feedforward, channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, queries: Tensor, memory: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        at = x + queries  # [B, Q, D]
        read, _ = self.self_attn(at, at, x, need_weights=False)
        x = self.norm1(x + self.dropout(read))
        read, _ = self.multihead_attn(
            x + queries, memory + positions, memory, key_padding_mask=padding, need_weights=False
        )
        x = self.norm2(x + self.dropout(read))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm3(x + self.dropout(self.linear2(hidden)))


class Encoder(nn.Module):
    def __init__(self, layers: int, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, feedforward, dropout) for _ in range(layers))

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """
        Args:
            x: ``[B, S, D]``, the cells.
            positions: ``[B, S, D]``, added to queries and keys, not to values, in every layer.
            padding: bool ``[B, S]``, true where nothing is to be read; None: everything is. Each image has a cell.

        Returns:
            ``[B, S, D]``.
        """
        for layer in self.layers:
            x = layer(x, positions, padding)
        return x


class Decoder(nn.Module):
    def __init__(self, layers: int, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(channels, heads, feedforward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)

    def forward(self, queries: Tensor, memory: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """
        Args:
            queries: ``[Q, D]``, what each query looks for; they are to queries what positions are to cells.
            memory: ``[B, S, D]``, the encoder's.
            positions, padding: as for the encoder.

        Returns:
            ``[L, B, Q, D]``, after every layer: each is supervised.
        """
        queries = queries.expand(len(memory), -1, -1)
        x, outputs = torch.zeros_like(queries), []
        for layer in self.layers:
            x = layer(x, queries, memory, positions, padding)
            outputs.append(self.norm(x))
        return torch.stack(outputs)


class Transformer(nn.Module):
    """Encoder and decoder; forward as of both, with Xavier's initial weights."""

    def __init__(
        self, encoder_layers: int, decoder_layers: int, channels: int, heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = Encoder(encoder_layers, channels, heads, feedforward, dropout)
        self.decoder = Decoder(decoder_layers, channels, heads, feedforward, dropout)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, queries: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.decoder(queries, self.encoder(x, positions, padding), positions, padding)  # type: ignore[no-any-return]
