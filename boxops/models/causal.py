"""A decoder of a language: each token reads those before it and an image's cells, and says which comes next.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3, with the norms before the layers as in Radford et
al., "Language Models are Unsupervised Multitask Learners", 2019, section 2.3. What a token's successors read of it, its
keys and values, is kept: a token costs one step. Shapes: B images, T tokens, S cells, D channels, V words.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]  # keys and values [B, heads, T or S, D / heads]


class Attention(nn.Module):
    """Attention to keys and values that were made before."""

    def __init__(self, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:  # [B, T, D] -> [B, heads, T, D / heads]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def pair(self, x: Tensor) -> Pair:
        return self.split(self.key(x)), self.split(self.value(x))

    def forward(self, x: Tensor, pair: Pair, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        read = F.scaled_dot_product_attention(self.split(self.query(x)), *pair, mask, dropout, causal)
        out: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return out


class CausalLayer(nn.Module):
    """To each other, to the image, and a network of two layers, each on what is normalised, and added."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(channels, heads, dropout)
        self.cross_attention = Attention(channels, heads, dropout)
        self.feedforward = nn.Sequential(
            nn.Linear(channels, feedforward), nn.GELU(), nn.Dropout(dropout), nn.Linear(feedforward, channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Pair, mask: Tensor | None, cache: Pair | None, at: int) -> Tensor:
        normed = self.norms[0](x)
        pair = self.self_attention.pair(normed)
        if cache is not None:
            end = at + x.shape[1]
            for kept, new in zip(cache, pair, strict=True):
                kept[:, :, at:end] = new
            pair = cache[0][:, :, :end], cache[1][:, :, :end]
        x = x + self.dropout(self.self_attention(normed, pair, causal=cache is None))
        x = x + self.dropout(self.cross_attention(self.norms[1](x), memory, mask))
        out: Tensor = x + self.dropout(self.feedforward(self.norms[2](x)))
        return out


class CausalDecoder(nn.Module):
    """Logits of the next token, of those read so far and an image.

    Args:
        words: V, how many tokens there are.
        length: the most tokens of a sequence.
        layers, channels, heads, feedforward, dropout: of the layers.

    What a token is to the first layer it is to the last one too: one matrix.
    """

    def __init__(
        self, words: int, length: int, layers: int, channels: int, heads: int, feedforward: int, dropout: float
    ) -> None:
        super().__init__()
        self.length, self.heads = length, heads
        self.words = nn.Embedding(words, channels)
        self.places = nn.Parameter(torch.empty(length, channels))
        self.layers = nn.ModuleList(CausalLayer(channels, heads, feedforward, dropout) for _ in range(layers))
        self.norm, self.bias = nn.LayerNorm(channels), nn.Parameter(torch.zeros(words))
        self.dropout = nn.Dropout(dropout)
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.places, std=0.02)

    def memory(self, cells: Tensor) -> list[Pair]:
        """What each layer reads of cells [B, S, D]: the same for every token."""
        return [layer.cross_attention.pair(cells) for layer in self.layers]  # type: ignore[union-attr, operator]

    def cache(self, memory: list[Pair]) -> list[Pair]:
        """Room for the keys and values of a whole sequence, in each layer."""
        shape = (len(memory[0][0]), self.heads, self.length, memory[0][0].shape[-1])
        return [(keys.new_empty(shape), keys.new_empty(shape)) for keys, _ in memory]

    def forward(
        self, tokens: Tensor, memory: list[Pair], padding: Tensor | None, cache: list[Pair] | None = None, at: int = 0
    ) -> Tensor:
        """
        Args:
            tokens: int64 ``[B, T]``.
            memory: see :meth:`memory`.
            padding: bool ``[B, S]``, true where nothing is to be read.
            cache: see :meth:`cache`: ``tokens`` is then the one ``[B, 1]`` at this place, after those that were given
                before with the same cache.

        Returns:
            ``[B, T, V]``.
        """
        mask = None if padding is None else ~padding[:, None, None]  # [B, 1, 1, S]
        x = self.dropout(self.words(tokens) + self.places[at : at + tokens.shape[1]])
        for i, layer in enumerate(self.layers):
            x = layer(x, memory[i], mask, None if cache is None else cache[i], at)
        return F.linear(self.norm(x), self.words.weight, self.bias)
