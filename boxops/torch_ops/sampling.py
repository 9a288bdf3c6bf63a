"""Fake kernels for sampling; nothing to differentiate."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import loop_over_batch


@torch.library.register_fake("boxops::sample_matches")
def _(matches, size, positive_fraction, seed):
    lead = matches.shape[:-1]
    counts = [matches.new_empty(lead, dtype=torch.int64) for _ in range(2)]
    return matches.new_empty((*lead, size), dtype=torch.int64), *counts


@torch.library.register_fake("boxops::mine_hard_negatives")
def _(loss, matches, ratio, min_negatives):
    return loss.new_empty(loss.shape, dtype=torch.bool)


loop_over_batch("sample_matches", "mine_hard_negatives")


def seed_tensor(op: str, matches: torch.Tensor, seed: object) -> torch.Tensor:
    """The seed as a tensor on the device of the matches, so that nothing waits."""
    generator = seed if isinstance(seed, torch.Generator) else None
    if seed is None or generator is not None:
        if generator is not None and generator.device.type != matches.device.type:
            raise ValueError(f"{op}: expected a generator on {matches.device.type}, got {generator.device.type}")
        return torch.randint(2**63 - 1, (1,), generator=generator, device=matches.device)
    return torch.full((1,), seed, dtype=torch.int64, device=matches.device)  # type: ignore[call-overload]
