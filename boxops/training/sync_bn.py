"""Batch norms that see the images of all processes: torch's on GPUs, the same arithmetic on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class AllSum(torch.autograd.Function):
    """The sum over all processes. Each process's loss depends on what every process gave, so that gradients are summed
    over all processes too."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return AllSum.apply(gradient.contiguous())  # type: ignore[no-untyped-call, no-any-return]


class SyncBatchNorm(_BatchNorm):
    """For CPUs, which torch's refuses, as DistributedDataParallel refuses its class there. Mean and variance are of all
    processes' values of each channel, however many each of them has; the running variance is the unbiased one, as in
    all batch norms of torch."""

    def _check_input_dim(self, _: Tensor) -> None:
        """Rows or images."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        values = x.to(torch.promote_types(x.dtype, torch.float32))  # as bfloat16 would count to 256
        count = values.new_full((1,), x.numel() / x.shape[1])
        sums = AllSum.apply(torch.cat([values.sum(axes), count]))  # type: ignore[no-untyped-call]
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean.view(shape)
        variance = AllSum.apply(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(x.dtype)


def convert(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with synchronised batch norms, whose parameters and statistics have the names they had."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return]
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SyncBatchNorm
    return model
