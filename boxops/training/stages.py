"""What a model learns otherwise than by steps: see :class:`boxops.models.common.Stage`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from boxops.training.logs import Logs
from boxops.training.signals import Signals

T = TypeVar("T")


@dataclass
class StageRun:
    """What a stage works with.

    Attributes:
        folder: where it may keep files, all of one state of the weights: a resume after a kill finds them again.
        device, seed: of the run; a stage that draws numbers draws them from the seed alone.
        logs: ``logs.say(text)`` is a line for the person.
    """

    folder: Path
    device: torch.device
    seed: int
    logs: Logs
    signals: Signals
    name: str

    def track(self, items: Iterable[T], total: int, done: int = 0) -> Iterator[T]:
        """The items, with progress; a signal stops the run before the next one, when what was made of this one is kept.

        ``done`` of ``total`` came before the items.
        """
        self.logs.begin_stage(self.name, total, done)
        for item in items:
            self.signals.stop |= self.signals.came
            self.signals.check(f"in the stage {self.name}, after {done} of {total}")
            yield item
            done += 1
            self.logs.add_stage(self.name, done, total)


def fit(stage: Callable[..., None], model: object, data: object, run: StageRun) -> None:
    """Runs a stage; files of another state of the weights go."""
    for other in run.folder.parent.glob("*"):
        if other != run.folder:
            shutil.rmtree(other, ignore_errors=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    stage(model, data, run)
    run.logs.say(f"{run.name}: {time.monotonic() - start:.1f} s")
