"""The training loop of all detectors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from boxops.training import resuming, sync_bn
from boxops.training.checkpoint import load, save
from boxops.training.collapse import Collapse
from boxops.training.folder import RunFolder
from boxops.training.logs import Logs
from boxops.training.options import Options
from boxops.training.parts import (
    check_amp,
    make_average,
    make_loader,
    make_optimizer,
    make_schedule,
    order,
    seed_of,
    start_processes,
)
from boxops.training.signals import Signals
from boxops.training.stages import StageRun, fit

Batch = tuple[list[Tensor], list[dict[str, Any]], list[Any]]
STATE = ("step", "epoch", "done", "staged", "best", "bad")
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingError(RuntimeError):
    """A run that cannot go on; the text says what to do."""


class Trainer:
    """A run: ``Trainer(model, data, options, "runs/ssd", evaluate).run()``.

    Args:
        model: in training, ``model(images, targets)`` gives a dict of losses; ``model.config`` goes into checkpoints.
            Its ``stages``, if it has any, are fitted when all steps are done, on the first process alone.
        data: a :class:`boxops.data.DetectionDataset`, with ``classes`` and ``category_ids``.
        options: see :class:`Options`.
        out: the folder of checkpoints and logs, or a :class:`RunFolder` that says more. From here to the end of ``run``
            no other process can train there.
        evaluate: ``evaluate(model, epoch) -> {name: number}``; the first number decides which epoch is the best.
        resume: go on where ``out/last.pt`` was written. On a CPU the result is what it would have been without a break.
            ``resuming.py`` says which options may be others than the run's; those take effect.
        settings: plain values that are kept in the checkpoints: what else a resume should know.

    Each step seeds torch from (seed, process, step), Python from (seed, step), of which all processes draw alike what
    a batch has in common (its size), and the data its samples from (seed, epoch, index): a resume needs no state of
    random numbers. Under torchrun there is one Trainer a process.

    A checkpoint that cannot be written is said, and the run goes on to the next one; ``kept`` tells what last.pt holds.

    Raises:
        ValueError: last.pt is of a run that cannot go on so (says what differs), another process trains there, or the
            options do not fit the machine.
        TrainingError: the losses were not finite ``bad_steps`` times in a row, or the last checkpoint was not written.
        Interrupted: on SIGINT, SIGTERM or SIGHUP, after the step, when the run was saved.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        options: Options,
        out: str | Path | RunFolder,
        evaluate: Callable[[nn.Module, int], dict[str, float]] | None = None,
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        o = self.options = options
        self.folder = out if isinstance(out, RunFolder) else RunFolder(out)
        self.data, self.out, self.evaluate, self.settings = data, self.folder.path, evaluate, dict(settings or {})
        self.rank, self.world, self.device = start_processes(o.device)
        check_amp(o.amp, self.device)
        for stage in getattr(model, "stages", ()):
            if stage.check is not None:
                stage.check(model, data)
        self.step = self.epoch = self.done = self.bad = 0  # done: steps in this epoch
        self.staged = 0  # stages that are done, and the evaluation after them
        self.best, self.signals = -1.0, Signals()
        self.saved_step: int | None = None  # which last.pt holds
        self.unsaved: dict[str, str] = {}  # checkpoints that could not be written, and why
        steps_per_epoch = len(order(len(data), o, 0, world=self.world)) // o.accumulate
        self.total = min(o.epochs * steps_per_epoch, o.steps or o.epochs * steps_per_epoch)
        model = model.to(self.device, memory_format=torch.channels_last if o.channels_last else torch.preserve_format)
        parallel: dict[str, Any] = {"find_unused_parameters": o.find_unused}
        if self.device.type == "cuda" and self.world > 1:
            parallel["device_ids"] = [self.device]
        if o.sync_bn and self.world > 1:
            model = sync_bn.convert(model, self.device)
        self.model = model
        self.run_model = DistributedDataParallel(model, **parallel) if self.world > 1 else model
        self.average = make_average(model, o.ema, lambda: self.step) if o.ema else None
        self.optimizer = make_optimizer(model, o)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=o.amp == "fp16")
        self.folder.first = self.rank == 0
        self.folder.open()
        if self.world > 1:
            distributed.barrier()  # the first process may have put a run back
        if resume and (self.out / "last.pt").exists():
            changes = self._resume(self.out / "last.pt")
        else:
            changes = []
            self.folder.begin()
        self._agree()
        self.schedule = make_schedule(self.optimizer, o, self.total, self.step)
        self.logs = Logs(self.out, self.step, self.done > 0, self.total, o.log_seconds, enabled=self.rank == 0)
        self.collapse = Collapse(data, self.logs.say)
        for change in changes:
            self.logs.say(change)
        if o.sync_bn and self.world == 1:
            self.logs.say("sync_bn: nothing to do: there is one process, whose batch norms see the whole batch")

    def _agree(self) -> None:
        """All processes begin at one step: a folder that only some of them see would train them apart."""
        if self.world == 1:
            return
        steps: list[int] = [0] * self.world
        distributed.all_gather_object(steps, self.step)
        if len({*steps}) > 1:
            raise ValueError(f"{self.out}: expected all processes to go on from one step, got {steps}: "
                             "do they see the same folder?")  # fmt: skip

    @property
    def _stepped(self) -> bool:
        return self.step >= self.total and not self.done

    @property
    def finished(self) -> bool:
        stages = len(self._stages)
        return self._stepped and (self.staged > stages or not stages)

    @property
    def _stages(self) -> Sequence[Any]:
        return getattr(self.model, "stages", ())

    @property
    def kept(self) -> str:
        """What is on the disk of this run."""
        last = self.out / "last.pt"
        if self.saved_step is None:
            held = "nothing is saved yet"
        else:
            held = f"saved in {last}" if self.saved_step == self.step else f"{last} is of step {self.saved_step}"
        return f"not saved ({self.unsaved['last.pt']}), {held}" if "last.pt" in self.unsaved else held

    def run(self) -> None:
        """Trains to the end."""
        self.saved = time.monotonic()
        try:
            with self.signals:
                while not self._stepped:
                    self._epoch()
                while not self.finished:
                    self._after_steps()
        finally:
            self.logs.close()
            self.folder.close()
        if self.unsaved:
            what = "; ".join(f"{self.out / name}: {reason}" for name, reason in self.unsaved.items())
            raise TrainingError(f"all {self.total} steps are done, but not all is saved: {what}; {self.kept}")

    def _epoch(self) -> None:
        o, self.staged = self.options, 0
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
        last = self.step >= self.total and not self._stages
        if self.evaluate and (last or (o.eval_every and (self.epoch + 1) % o.eval_every == 0)):
            self.save("last.pt")  # a resume comes back to the evaluation
            self._evaluate(self.evaluate, self.epoch)
        self.epoch, self.done = self.epoch + 1, 0
        self.save("last.pt")

    def _after_steps(self) -> None:
        """The next of the model's stages, or the evaluation when all are done."""
        if self.staged == len(self._stages):
            if self.evaluate:
                self._evaluate(self.evaluate, self.epoch - 1)
        else:
            stage = self._stages[self.staged]
            folder = self.out / "stages" / f"step_{self.step}"
            run = StageRun(
                folder, self.device, seed_of(self.options.seed, self.staged), self.logs, self.signals, stage.name
            )
            torch.manual_seed(run.seed)
            self._alone(lambda: fit(stage.fit, self.trained.eval(), self.data, run), f"in the stage {stage.name}")
        self.staged += 1
        self.save("last.pt")

    def _alone(self, work: Callable[[], None], place: str) -> None:
        """Something that the first process does while the others wait."""
        if self.rank == 0:
            work()
        if self.world > 1:
            try:
                distributed.barrier()
            except RuntimeError:  # the first process left, by the signal that came here too
                self.signals.stop |= self.signals.came
                self.signals.check(place)
                raise

    def _step(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """One update of the weights; the losses, as means over the processes."""
        o = self.options
        means: dict[str, float] = {}
        for i, (images, targets, problems) in enumerate(micro_batches):
            self.logs.add_problems(problems)
            torch.manual_seed(seed_of(o.seed, self.rank, self.step, i))
            random.seed(seed_of(o.seed, self.step, i))
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

    def _evaluate(self, evaluate: Callable[[nn.Module, int], dict[str, float]], epoch: int) -> None:
        def measure() -> None:
            with self.signals.at_once("in the evaluation"), self.logs.aside(), self.collapse.watch(self.trained):
                metrics = evaluate(self.trained.eval(), epoch)
            self.logs.add_metrics(self.step, epoch, metrics)
            score = next(iter(metrics.values()), 0.0)
            if score > self.best:
                self.best = score
                self.save("best.pt")

        self._alone(measure, "in the evaluation")

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
            "options": asdict(self.options),
            "settings": self.settings,
            "weights": self.trained.state_dict(),
        }
        if name == "last.pt":
            state = {name: getattr(self, name) for name in STATE}
            state |= {name: getattr(self, name).state_dict() for name in ("optimizer", "scaler")}
            if self.average is not None:
                state |= {"weights": self.model.state_dict(), "averaged": int(self.average.n_averaged)}
            checkpoint["training"] = {**state, "order": self._order()}
            self.saved = time.monotonic()
        with self.signals.held():
            try:
                save(self.out / name, checkpoint)
            except OSError as error:
                self.unsaved[name] = error.strerror or str(error)
                self.logs.say(f"{self.out / name}: not written at step {self.step}, {self.unsaved[name]}; "
                              f"the run goes on and tries again; {self.kept}")  # fmt: skip
                return
            self.unsaved.pop(name, None)
            if name == "last.pt":
                self.saved_step = self.step
                self.folder.saved()

    def _order(self) -> dict[str, Any]:
        """What the order of the images depends on."""
        o = self.options
        images = o.batch_size * self.world * o.accumulate
        return {"seed": o.seed, "images a step": images, "samples": o.samples, "images": len(self.data)}

    def _resume(self, path: Path) -> list[str]:
        """Goes on from a checkpoint; what is another option now than it was."""
        checkpoint = load(path)
        changes = resuming.check(
            path, checkpoint, self.model.config, self.data, self.options, self._order(), self.world
        )
        state = checkpoint["training"]
        self.trained.load_state_dict(checkpoint["weights"])
        self.model.load_state_dict(state.get("weights", checkpoint["weights"]))
        if self.average is not None:
            self.average.n_averaged.fill_(state.get("averaged", 0))
        own = [{**group} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, given in zip(self.optimizer.param_groups, own, strict=True):  # its state, these options
            group.update({key: given[key] for key in given if key != "params"})
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        for name in STATE:
            setattr(self, name, state.get(name, 0))  # runs of the first version have no stages
        self.saved_step = self.step
        return changes


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
