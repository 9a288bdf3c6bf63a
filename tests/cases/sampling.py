"""Cases of sampling and of hard negative mining."""

from itertools import product

import numpy as np
from box_sets import SCORES

from cases.case import Case, zeros

MATCHES = {
    "few positives": lambda rng, shape: rng.choice([-1, -2, 0, 7], shape, p=[0.8, 0.1, 0.05, 0.05]),
    "many positives": lambda rng, shape: rng.choice([-1, -2, 0, 7], shape, p=[0.2, 0.1, 0.3, 0.4]),
    "no positives": lambda rng, shape: rng.choice([-1, -2], shape),
    "no negatives": lambda rng, shape: rng.choice([3, -2], shape),
    "ignored only": lambda rng, shape: rng.choice([-2, -3, -(2**63)], shape),
    "extremes": lambda rng, shape: rng.choice([-1, 2**63 - 1, -(2**63)], shape),
    "positives only": lambda rng, shape: np.zeros(shape, np.int64),
    "negatives only": lambda rng, shape: np.full(shape, -1),
}
SHAPES = [(1,), (5,), (0,), (100,), (257,), (4099,), (2, 300), (3, 1), (0, 7), (3, 0), (5, 1030)]


def of_matches(matches, shape, **arguments):
    name = ", ".join([f"{matches} {shape}", *(f"{k}={v}" for k, v in arguments.items())])
    return Case(name, lambda rng, dtype: {"matches": MATCHES[matches](rng, shape), **arguments})


def sample_matches():
    options = [*product((0, 1, 8, 256), (0.5, 0.25, 0.0, 1.0))]
    for i, (shape, matches) in enumerate(product(SHAPES, MATCHES)):
        size, fraction = options[(5 * i) % len(options)]
        yield of_matches(matches, shape, batch_size_per_image=size, positive_fraction=fraction, seed=i)
    for seed in (-1, 2**63 - 1, -(2**63), 2**64 - 1, 2**40 + 3):
        yield of_matches("few positives", (2, 300), batch_size_per_image=64, seed=seed)


def of_losses(loss, matches, shape, **arguments):
    name = ", ".join([f"{loss} loss, {matches} {shape}", *(f"{k}={v}" for k, v in arguments.items())])
    return Case(name, lambda rng, dtype: {"loss": SCORES[loss](rng, shape), "matches": MATCHES[matches](rng, shape),
                                          **arguments})  # fmt: skip


def mine_hard_negatives():
    options = [{}, {"ratio": 0.0}, {"ratio": 1.5}, {"ratio": 1e300}, {"min_negatives": 5},
               {"ratio": 2, "min_negatives": 10**12}]  # fmt: skip
    for i, (shape, matches) in enumerate(product(SHAPES, MATCHES)):
        yield of_losses([*SCORES][i % len(SCORES)], matches, shape, **options[i // 2 % len(options)])
    for loss in SCORES:
        yield of_losses(loss, "few positives", (4, 200))


CASES = {"sample_matches": list(sample_matches()), "mine_hard_negatives": list(mine_hard_negatives())}


def whole(*shape, dtype=np.int64):
    return np.zeros(shape, dtype)


SAMPLE = {"matches": whole(2, 9), "batch_size_per_image": 4, "seed": 0}
MINE = {"loss": np.zeros((2, 9), np.float32), "matches": whole(2, 9)}
WRONG_VALUES = [
    ("sample_matches", {**SAMPLE, "matches": whole()}, "matches of shape [A] or [B, A], got []"),
    ("sample_matches", {**SAMPLE, "matches": whole(1, 2, 3)}, "matches of shape [A] or [B, A], got [1, 2, 3]"),
    ("sample_matches", {**SAMPLE, "matches": whole(9, dtype=np.float32)}, "matches of an integer type, got float32"),
    ("sample_matches", {**SAMPLE, "batch_size_per_image": -1}, "batch_size_per_image >= 0, got -1"),
    ("sample_matches", {**SAMPLE, "positive_fraction": 1.5}, "positive_fraction in 0..1, got 1.5"),
    ("sample_matches", {**SAMPLE, "positive_fraction": np.nan}, "positive_fraction in 0..1, got nan"),
    ("mine_hard_negatives", {**MINE, "loss": whole(2, 9)}, "loss of a floating type, got int64"),
    ("mine_hard_negatives", {**MINE, "loss": np.zeros((2, 8), np.float32)}, "loss of shape [2, 9], got [2, 8]"),
    (
        "mine_hard_negatives",
        {**MINE, "matches": whole(2, 9, dtype=np.float32)},
        "matches of an integer type, got float32",
    ),
    ("mine_hard_negatives", {**MINE, "ratio": -1.0}, "a finite ratio >= 0, got -1"),
    ("mine_hard_negatives", {**MINE, "ratio": np.inf}, "a finite ratio >= 0, got inf"),
    ("mine_hard_negatives", {**MINE, "min_negatives": -3}, "min_negatives >= 0, got -3"),
]
WRONG_TYPES = [
    ("sample_matches", {**SAMPLE, "batch_size_per_image": 2.5}, "batch_size_per_image as an integer, got float"),
    ("sample_matches", {**SAMPLE, "positive_fraction": "half"}, "positive_fraction as a number, got str"),
    ("sample_matches", {**SAMPLE, "seed": "7"}, "seed as None, an integer or a generator, got str"),
    ("mine_hard_negatives", {**MINE, "ratio": None}, "ratio as a number, got NoneType"),
    ("mine_hard_negatives", {**MINE, "min_negatives": 1.0}, "min_negatives as an integer, got float"),
]


_MATCHES = zeros(3, dtype=np.int64)
NUMBERS = {
    "sample_matches": [({"matches": _MATCHES}, {"batch_size_per_image": 2, "positive_fraction": 0.5})],
    "mine_hard_negatives": [({"loss": zeros(3), "matches": _MATCHES}, {"ratio": 3.0, "min_negatives": 1})],
}


def tensors(device):
    import torch

    rng = np.random.default_rng(0)
    matches = torch.from_numpy(MATCHES["few positives"](rng, (2, 60))).to(device)
    return torch.from_numpy(rng.random((2, 60))).to(device), matches


def samples(device):
    import torch

    loss, matches = tensors(device)
    seed = torch.tensor([3], device=device)
    return {
        "sample_matches": [(matches, 9, 0.5, 3, None), (matches[0], 20, 0.25, None, seed)],
        "mine_hard_negatives": [(loss, matches, 3.0, 0), (loss[0].half(), matches[0], 1.0, 4)],
    }


def calls(device):
    import boxops

    loss, matches = tensors(device)
    return {
        "sample_matches": (lambda m: boxops.sample_matches(m, 9, seed=3), (matches,)),
        "mine_hard_negatives": (boxops.mine_hard_negatives, (loss, matches)),
    }
