"""Choosing the anchors that enter a loss: a balanced random sample, or the hardest negatives."""

from __future__ import annotations

import operator
from typing import Any, NoReturn, TypeVar

import numpy as np

from boxops.ops.backend import as_number, backend, is_integer
from boxops.ops.deprecated import by_new_names, renamed

Array = TypeVar("Array")


def _seed(op: str, seed: Any) -> Any:
    """An integer that int64 holds. None stays, and so does a generator of a framework, which knows what to draw."""
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**63))
    if is_integer(number := as_number(op, "seed", seed)):
        return (operator.index(number) + 2**63) % 2**64 - 2**63  # any integer: its 64 lowest bits
    if seed is None or hasattr(seed, "initial_seed"):
        return seed
    raise TypeError(f"{op}: expected seed as None, an integer or a generator, got {type(seed).__name__}")


@renamed(size="batch_size_per_image")
def sample_matches(
    matches: Array,
    batch_size_per_image: int,
    positive_fraction: float = 0.5,
    *,
    seed: Any = None,
    **former: NoReturn,
) -> tuple[Array, Array, Array]:
    """A balanced random sample of positives and negatives, of a fixed size, without waiting for the device.

    Counts as torchvision's ``BalancedPositiveNegativeSampler``, S standing for ``batch_size_per_image``: at most
    ``int(S * positive_fraction)`` positives, and negatives for the rest of S; within each kind, uniform without
    replacement.

    Args:
        matches: integers ``[A]`` or ``[B, A]``: >= 0 for positives, -1 for negatives; other values are never taken.
        batch_size_per_image: S, number of anchors to sample from each image, at most, >= 0.
        positive_fraction: in 0..1.
        seed: an integer, a ``torch.Generator`` of the tensors' device or a ``np.random.Generator``. None draws one: for
            tensors from torch's generator of their device, so that ``torch.manual_seed`` holds. One seed chooses the
            same on every device; image and anchor enter the random numbers, so images are independent of each other.

    Returns:
        indices: int64 ``[S]`` or ``[B, S]``: the positives, ascending, then the negatives, ascending, then -1.
        num_positive: int64 ``[]`` or ``[B]``, the number of positives.
        num_sampled: int64 ``[]`` or ``[B]``, how many indices are not padding.

    Raises:
        ValueError: shape or dtype of matches, a negative ``batch_size_per_image``, or a fraction outside 0..1.
        TypeError: ``batch_size_per_image`` or seed is of the wrong kind.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.3; random numbers: Salmon et al., Parallel random
    numbers: as easy as 1, 2, 3, SC 2011 (Philox4x32-10).
    """
    if former:
        return by_new_names(sample_matches, locals())
    op = "sample_matches"
    ops = backend(op, matches)
    return ops.sample_matches(matches, batch_size_per_image, positive_fraction, _seed(op, seed), None)


def mine_hard_negatives(loss: Array, matches: Array, ratio: float = 3.0, *, min_negatives: int = 0) -> Array:
    """Hard negative mining: the negatives of largest loss of each image, ``ratio`` for each positive.

    Args:
        loss: ``[A]`` or ``[B, A]``, floating, the loss of each anchor as background.
        matches: integers, same shape: >= 0 for positives, -1 for negatives; other values are never taken.
        ratio: >= 0, negatives per positive; ``int(ratio * positives)`` are taken, if there are so many.
        min_negatives: take at least this number of negatives, if there are so many; >= 0.

    Returns:
        bool ``[A]`` or ``[B, A]``, true for the negatives taken: of equal losses the lower index first, NaN last.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or ``ratio`` is negative, infinite or
            NaN, or ``min_negatives`` is negative.
        TypeError: arrays are not of one kind, or another argument is not a number.

    Source: Liu et al., SSD: Single Shot MultiBox Detector, ECCV 2016, section 2.2.
    """
    return backend("mine_hard_negatives", loss, matches).mine_hard_negatives(loss, matches, ratio, min_negatives)
