"""The training loop of all detectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from boxops.training.checkpoint import load, save
from boxops.training.collapse import Collapse
from boxops.training.logs import Logs
from boxops.training.options import Options
from boxops.training.parts import (
    make_average,
    make_loader,
    make_optimizer,
    make_schedule,
    order,
    seed_of,
    start_processes,
)
from boxops.training.signals import Signals

Batch = tuple[list[Tensor], list[dict[str, Any]], list[Any]]
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingError(RuntimeError):
    """A run that cannot go on; the text says what to do."""


class Trainer:
    """A run: ``Trainer(model, data, options, "runs/ssd", evaluate).run()``.

    Args:
        model: in training, ``model(images, targets)`` gives a dict of losses; ``model.config`` goes into checkpoints.
        data: a :class:`boxops.data.DetectionDataset`, with ``classes`` and ``category_ids``.
        options: see :class:`Options`.
        out: the folder of checkpoints and logs.
        evaluate: ``evaluate(model, epoch) -> {name: number}``; the first number decides which epoch is the best.
        resume: go on where ``out/last.pt`` was written. On a CPU the result is what it would have been without a break.

    Each step seeds torch from (seed, process, step), and the data its samples from (seed, epoch, index): a resume
    needs no state of random numbers. Under torchrun there is one Trainer a process.

    Raises:
        ValueError: last.pt is of a run with other images at a step, or the options do not fit the machine.
        TrainingError: the losses were not finite ``bad_steps`` times in a row.
        Interrupted: on SIGINT or SIGTERM, after the run was saved.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        options: Options,
        out: str | Path,
        evaluate: Callable[[nn.Module, int], dict[str, float]] | None = None,
        resume: bool = False,
    ) -> None:
        o = self.options = options
        self.data, self.out, self.evaluate = data, Path(out), evaluate
        self.rank, self.world, self.device = start_processes(o.device)
        self.step = self.epoch = self.done = self.bad = 0  # done: steps in this epoch
        self.best, self.signals = -1.0, Signals()
        steps_per_epoch = len(order(len(data), o, 0, world=self.world)) // o.accumulate
        self.total = min(o.epochs * steps_per_epoch, o.steps or o.epochs * steps_per_epoch)
        model = model.to(self.device, memory_format=torch.channels_last if o.channels_last else torch.preserve_format)
        parallel: dict[str, Any] = {"find_unused_parameters": o.find_unused}
        if self.device.type == "cuda" and self.world > 1:
            parallel["device_ids"] = [self.device]
            if o.sync_bn:
                model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model
        self.run_model = DistributedDataParallel(model, **parallel) if self.world > 1 else model
        self.average = make_average(model, o.ema, lambda: self.step) if o.ema else None
        self.optimizer = make_optimizer(model, o)
        self.schedule = make_schedule(self.optimizer, o, self.total)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=o.amp == "fp16")
        self.out.mkdir(parents=True, exist_ok=True)
        if resume and (self.out / "last.pt").exists():
            self._resume(self.out / "last.pt")
        self.logs = Logs(self.out, self.step, self.done > 0, self.total, o.log_seconds, enabled=self.rank == 0)
        self.collapse = Collapse(data, self.logs.say)

    def run(self) -> None:
        """Trains to the end."""
        self.saved = time.monotonic()
        try:
            with self.signals:
                while self.step < self.total or self.done:
                    self._epoch()
        finally:
            self.logs.close()

    def _epoch(self) -> None:
        o = self.options
        self.data.set_epoch(self.epoch)
        batches = order(len(self.data), o, self.epoch, self.rank, self.world)
        batches = batches[: (self.total - self.step + self.done) * o.accumulate][self.done * o.accumulate :]
        loader = iter(make_loader(self.data, batches, o.workers, self.device))
        self.run_model.train()
        begin = time.monotonic()
        while micro_batches := list(islice(loader, o.accumulate)):
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            losses = self._step(micro_batches)
            self.step, self.done = self.step + 1, self.done + 1
            self.schedule.step()
            now = time.monotonic()
            self.logs.add_step(self.step, self.epoch, rate, losses, now - begin)
            self.collapse.add_step(losses)
            begin = now
            due = o.checkpoint_steps and self.step % o.checkpoint_steps == 0
            if due or self.signals.stop or now - self.saved > o.checkpoint_seconds:
                self.save("last.pt")
            self.signals.check(f"at step {self.step} of {self.total}")
        self.collapse.end_epoch(self.epoch)
        last = self.step >= self.total
        if self.evaluate and (last or (o.eval_every and (self.epoch + 1) % o.eval_every == 0)):
            self.save("last.pt")  # a resume comes back to the evaluation
            self._evaluate(self.evaluate)
        self.epoch, self.done = self.epoch + 1, 0
        self.save("last.pt")

    def _step(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """One update of the weights; the losses, as means over the processes."""
        o = self.options
        means: dict[str, float] = {}
        for i, (images, targets, problems) in enumerate(micro_batches):
            self.logs.add_problems(problems)
            torch.manual_seed(seed_of(o.seed, self.rank, self.step, i))
            images = [image.to(self.device, non_blocking=True) for image in images]
            # No crowds, no iscrowd: looking for them on a GPU would make the host wait.
            seen = [{k: v for k, v in target.items() if k != "iscrowd" or v.any()} for target in targets]
            targets = [{k: _to(v, self.device) for k, v in target.items()} for target in seen]
            wait = self.world > 1 and i + 1 < len(micro_batches)
            with self.run_model.no_sync() if wait else nullcontext():  # type: ignore[operator, union-attr]
                with torch.autocast(self.device.type, AMP.get(o.amp), enabled=o.amp != "none"):
                    losses = self.run_model(images, targets)
                values = self._mean(losses)
                for name, value in values.items():
                    means[name] = means.get(name, 0.0) + value / len(micro_batches)
                if not all(map(_finite, values.values())):
                    return self._skip(means, f"the losses {values}")
                self.scaler.scale(sum(losses.values()) / len(micro_batches)).backward()
        self.scaler.unscale_(self.optimizer)
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(learning, o.clip or float("inf"))
        if not self.scaler.is_enabled() and not _finite(float(norm)):  # a scaler looks itself
            return self._skip(means, f"gradients of norm {float(norm)}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.bad = 0
        return means

    def _mean(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """The losses' means over the processes, which hear of signals on the way, so that all stop at one step."""
        packed = torch.stack(
            [loss.detach().float() for loss in losses.values()] + [torch.zeros((), device=self.device)]
        )
        packed[-1] = self.signals.came
        if self.world > 1:
            distributed.all_reduce(packed)
            packed /= self.world
        *values, stop = packed.tolist()
        self.signals.stop |= stop > 0
        return dict(zip(losses, values, strict=True))

    def _skip(self, means: dict[str, float], what: str) -> dict[str, float]:
        self.optimizer.zero_grad()
        self.bad += 1
        self.logs.say(f"step {self.step + 1} left out: expected finite numbers, got {what}")
        if self.bad >= self.options.bad_steps:
            raise TrainingError(
                f"expected finite losses, got none in {self.bad} steps up to step {self.step + 1}: {what}; "
                "a lower lr, a longer warmup, a lower clip or amp none may help"
            )
        return means

    def _evaluate(self, evaluate: Callable[[nn.Module, int], dict[str, float]]) -> None:
        if self.rank == 0:
            with self.signals.at_once("in the evaluation"), self.logs.aside(), self.collapse.watch(self.trained):
                metrics = evaluate(self.trained.eval(), self.epoch)
            self.logs.add_metrics(self.step, self.epoch, metrics)
            score = next(iter(metrics.values()), 0.0)
            if score > self.best:
                self.best = score
                self.save("best.pt")
        if self.world > 1:
            distributed.barrier()

    @property
    def trained(self) -> nn.Module:
        """The model to use: the average of the weights if there is one."""
        module: nn.Module = self.model if self.average is None else self.average.module
        return module

    def save(self, name: str) -> None:
        """Writes a checkpoint into the run's folder; best.pt has no state to go on from."""
        if self.rank:
            return
        checkpoint = {
            "boxops": 1,
            "model": self.model.config,
            "classes": list(self.data.classes),
            "category_ids": list(self.data.category_ids),
            "weights": self.trained.state_dict(),
        }
        if name == "last.pt":
            state = {name: getattr(self, name) for name in ("step", "epoch", "done", "best", "bad")}
            state |= {name: getattr(self, name).state_dict() for name in ("optimizer", "schedule", "scaler")}
            if self.average is not None:
                state |= {"weights": self.model.state_dict(), "averaged": int(self.average.n_averaged)}
            checkpoint["training"] = {**state, "order": self._order()}
            self.saved = time.monotonic()
        save(self.out / name, checkpoint)

    def _order(self) -> dict[str, Any]:
        """What the order of the images depends on."""
        o = self.options
        images = o.batch_size * self.world * o.accumulate
        return {"seed": o.seed, "images a step": images, "samples": o.samples, "images": len(self.data)}

    def _resume(self, path: Path) -> None:
        checkpoint = load(path)
        state = checkpoint.get("training", {})
        if state.get("order") != self._order() or checkpoint["classes"] != list(self.data.classes):
            raise ValueError(f"{path}: expected a run of {self._order()} and these classes, got {state.get('order')}")
        self.trained.load_state_dict(checkpoint["weights"])
        if self.average is not None:
            self.model.load_state_dict(state["weights"])
            self.average.n_averaged.fill_(state["averaged"])
        for name in ("optimizer", "schedule", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.epoch, self.done, self.best, self.bad = (
            state[name] for name in ("step", "epoch", "done", "best", "bad")
        )


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
