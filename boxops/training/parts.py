"""The parts of a training run that are functions: the order of images, the optimizer, its schedule, processes."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from boxops.data import collate
from boxops.data.loader import Loader
from boxops.training.options import Options

PRETRAINED = ("backbone.body.", "backbone.features.")


def order(length: int, options: Options, epoch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """The batches of one process in an epoch, a function of (seed, epoch): each process has a slice of what one alone
    with batches world times as large would have. The last step is filled up with images that come again."""
    images = options.batch_size * world * options.accumulate
    count = math.ceil((options.samples or length) / images) * images
    generator = torch.Generator().manual_seed(seed_of(options.seed, epoch))
    rounds = [torch.randperm(length, generator=generator) for _ in range(math.ceil(count / length))]
    batches: list[list[int]] = torch.cat(rounds)[:count].view(-1, world, options.batch_size)[:, rank].tolist()
    return batches


def seed_of(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def make_loader(data: Any, batches: Sequence[list[int]], workers: int, device: torch.device) -> Any:
    return Loader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )


def make_optimizer(model: nn.Module, o: Options) -> Optimizer:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(PRETRAINED), parameter.ndim > 1), []).append(parameter)
    if not groups:
        raise ValueError("expected a model with parameters that learn, got none")
    settings = [
        {"params": params, "lr": o.lr * (o.backbone_lr if slow else 1), "weight_decay": o.weight_decay * decays}
        for (slow, decays), params in groups.items()
    ]
    if o.optimizer == "adamw":
        return torch.optim.AdamW(settings, lr=o.lr)
    return torch.optim.SGD(settings, lr=o.lr, momentum=0.9, nesterov=True)


def make_schedule(optimizer: Optimizer, o: Options, total: int, done: int = 0) -> LambdaLR:
    """The learning rate by steps: a linear warm-up, then a half cosine to 0, or a tenth from 2/3 and 8/9 on.

    The optimizer's rates are the full ones. It depends on the step alone: a resume needs only how many are done.
    """
    warmup = min(total // 10, 1000) if o.warmup is None else min(o.warmup, total // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        share = (step - warmup) / max(total - warmup, 1)
        if o.schedule == "cosine":
            return (1 + math.cos(math.pi * min(share, 1))) / 2
        if o.schedule == "multistep":
            return 0.1 ** ((share >= 2 / 3) + (share >= 8 / 9))
        return 1.0

    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimizer, factor, last_epoch=done - 1)


def make_average(model: nn.Module, decay: float, steps: Callable[[], int]) -> AveragedModel:
    """A moving average of weights and statistics, which forgets sooner in the first steps."""

    def update(averaged: list[Tensor], current: list[Tensor], _: int) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + steps()) / (10 + steps())))(averaged, current, _)  # type: ignore[arg-type]

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]
    average.requires_grad_(False)
    return average


def find_device(device: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: there is no such device, or not here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type == "meta":
        raise ValueError(f"device: expected auto, cpu, cuda or cuda:1, got {device!r}")
    here = torch.accelerator.current_accelerator(check_available=True)
    if chosen.type not in ("cpu", here and here.type):
        raise ValueError(f"device: expected cpu{f' or {here.type}' if here else ''}, all that torch sees, got {device}")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: expected one of {torch.cuda.device_count()} GPUs, the first cuda:0, got {device}")
    return chosen


def check_amp(amp: str, device: torch.device) -> None:
    """float16 on a CPU is what torch computes ten times slower than float32, where it does at all."""
    if amp == "fp16" and device.type == "cpu":
        raise ValueError("amp: expected a GPU for fp16, got cpu; bf16 works on both")


def keep_memory() -> None:
    """Blocks of 32 MB and more, such as a step's features, go back to the system when they are freed, and the next step
    waits for every page of them again: a half of its time. glibc's malloc keeps them from here on."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another malloc
        return
    mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def start_processes(device: str) -> tuple[int, int, torch.device]:
    """Rank, number of processes and device of this one, as torchrun's environment says."""
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    chosen = find_device(device)
    if chosen.type == "cpu":
        keep_memory()
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local if world > 1 else chosen.index or 0)
        torch.cuda.set_device(chosen)
    if world > 1 and not distributed.is_initialized():
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(hours=4))  # the others wait while one evaluates
    return (distributed.get_rank(), world, chosen) if world > 1 else (0, 1, chosen)
