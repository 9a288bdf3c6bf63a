"""Fake kernels for sampling; nothing to differentiate."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import entry, loop_over_batch


@torch.library.register_fake("boxops::sample_matches")
def _(matches, size, positive_fraction, seed, device_seed):
    lead = matches.shape[:-1]
    counts = [matches.new_empty(lead, dtype=torch.int64) for _ in range(2)]
    return matches.new_empty((*lead, size), dtype=torch.int64), *counts


@torch.library.register_fake("boxops::mine_hard_negatives")
def _(loss, matches, ratio, min_negatives):
    return loss.new_empty(loss.shape, dtype=torch.bool)


loop_over_batch("sample_matches", "mine_hard_negatives")


_sample_matches = entry("sample_matches")


def sample_matches(matches, size, positive_fraction, seed, device_seed):
    """Draws a seed from torch's generator, or the one given, on the device of the matches, so that nothing waits."""
    if seed is None or isinstance(seed, torch.Generator):
        if seed is not None and seed.device.type != matches.device.type:
            raise ValueError(f"sample_matches: expected a generator on {matches.device.type}, got {seed.device.type}")
        drawn = torch.randint(2**63 - 1, (1,), generator=seed, device=matches.device)
        return _sample_matches(matches, size, positive_fraction, None, drawn)
    return _sample_matches(matches, size, positive_fraction, seed, device_seed)
