"""Sampling: one pass over the matches, and on a device their sort."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import boxops
from boxops import reference

from .case import Arrays, Case, Rival, numpy, whole
from .machine import rival

torch = rival("torch")
detection = rival("torchvision.models.detection._utils")

SIZE, FRACTION, RATIO = 256, 0.5, 3.0


def matches(images: int, anchors: int, share: float = 0.002) -> np.ndarray:
    """A thousandth or so of positives, a tenth between the thresholds, background."""
    rng = np.random.default_rng(0)
    return rng.choice([3, -2, -1], (images, anchors), p=[share, 0.1, 0.9 - share])


def torchvision_sample(match: Any) -> Any:
    """BalancedPositiveNegativeSampler, from matches on, as RegionProposalNetwork calls it."""
    labels = list(torch.where(match >= 0, 1.0, torch.where(match == -1, 0.0, -1.0)))
    positives, negatives = detection.BalancedPositiveNegativeSampler(SIZE, FRACTION)(labels)
    return [torch.where(p)[0] for p in positives], [torch.where(n)[0] for n in negatives]


def counts(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Samples are random: how many there are must agree."""
    positive, sampled = numpy(ours[1]), numpy(ours[2])
    return [[len(some) for some in kind] for kind in theirs], [positive.tolist(), (sampled - positive).tolist()]


def sample(images: int, anchors: int) -> Case:
    return Case(
        "sample_matches",
        "1 anchor" if anchors == 1 else f"{images} x {anchors:,}",
        images * anchors,
        make=lambda: (matches(images, anchors),),
        ours=lambda match: boxops.sample_matches(match, SIZE, FRACTION, seed=1),
        reference=lambda match: reference.sample_matches(match, SIZE, FRACTION, seed=1),
        rivals={"torchvision": Rival(torchvision_sample, answer=counts)} if detection else {},
        check=whole,
        graph=anchors > 1,
    )


def losses(images: int, anchors: int) -> Arrays:
    return np.random.default_rng(1).random((images, anchors), np.float32), matches(images, anchors)


def ssd(loss: Any, match: Any) -> Any:
    """SSD.compute_loss of torchvision: the rank of each loss by a double sort."""
    foreground = match >= 0
    negative_loss = loss.clone()
    negative_loss[foreground] = -float("inf")
    _, order = negative_loss.sort(1, descending=True)
    return order.sort(1)[1] < RATIO * foreground.sum(1, keepdim=True)


def mine(images: int, anchors: int) -> Case:
    return Case(
        "mine_hard_negatives",
        "1 anchor" if anchors == 1 else f"{images} x {anchors:,}",
        images * anchors,
        make=partial(losses, images, anchors),
        ours=lambda loss, match: boxops.mine_hard_negatives(loss, match, RATIO),
        reference=lambda loss, match: reference.mine_hard_negatives(loss, match, RATIO),
        rivals={"torchvision": ssd} if torch else {},
        check=whole,
        graph=anchors > 1,
    )


CASES = [sample(1, 1), sample(2, 2_000), sample(2, 250_000), mine(1, 1), mine(8, 8_732), mine(32, 8_732)]
