"""What a run tells: a bar or lines of progress, TensorBoard, log.csv of each step, stages.csv of each item of a stage,
metrics.csv of each evaluation; ``seconds`` in them are since the run began, without the breaks before a resume."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from boxops.training.checkpoint import append, atomic


class Table:
    """A CSV file that goes on after a resume: rows that the resumed run will write again are gone."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.seconds = path, 0.0
        self.columns: list[str] = []
        rows = list(csv.reader(path.read_text().splitlines())) if path.exists() else []
        if not rows:
            return
        self.columns = rows[0]
        done = [row for row in rows[1:] if len(row) == len(rows[0]) and int(row[0]) <= step]
        self.seconds = float(done[-1][self.columns.index("seconds")]) if done else 0.0
        if done != rows[1:] or not done:
            with atomic(path, "w") as file:
                csv.writer(file, lineterminator="\n").writerows([rows[0], *done] if done else [])
        self.columns = self.columns if done else []

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a whole row, or none where there is no room (OSError)."""
        text, columns = io.StringIO(), self.columns or list(row)
        rows = csv.writer(text, lineterminator="\n")
        rows.writerows([columns] * (not self.columns) + [[row.get(column, "") for column in columns]])
        append(self.path, text.getvalue().encode())
        self.columns = columns


class Logs:
    """The logs of a run from a step on, maybe amid an epoch; of several processes only the first one speaks."""

    def __init__(self, out: Path, step: int, amid: bool, total: int, every: float, enabled: bool) -> None:
        self.enabled, self.step0, self.step, self.total, self.every = enabled, step, step, total, every
        self.problems: dict[str, None] = {}
        self.lost: set[str] = set()  # logs that could not be written
        if not enabled:
            return
        self.steps, self.metrics = Table(out / "log.csv", step), Table(out / "metrics.csv", step - amid)
        self.stages = Table(out / "stages.csv", step - amid)
        self.start = time.monotonic() - max(self.steps.seconds, self.metrics.seconds, self.stages.seconds)
        self.training, self.last_line = 0.0, time.monotonic()
        self.board: Any = None
        self.progress: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(out), purge_step=step + 1)
        except ImportError:
            self.say("no TensorBoard logs: pip install tensorboard")
        except OSError as error:
            self.say(f"no TensorBoard logs: {error.strerror or error}")
        if sys.stderr.isatty():
            self._bar()

    def _bar(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
            from rich.table import Column
        except ImportError:
            return
        text = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True))
        bar = BarColumn(bar_width=None, table_column=Column(ratio=1))  # takes what the numbers leave
        columns = TextColumn("{task.description}"), bar, MofNCompleteColumn(table_column=Column(no_wrap=True)), text
        self.progress = Progress(*columns, console=Console(stderr=True), expand=True)
        self.task = self.progress.add_task("starting", total=self.total, completed=self.step, text="")
        self.progress.start()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """In its context the bar is gone: there is another one."""
        bar = getattr(self, "progress", None)
        if bar is not None:
            bar.update(self.task, visible=False)
            bar.stop()
        try:
            yield
        finally:
            if bar is not None:
                bar.update(self.task, visible=True)
                bar.start()

    def close(self) -> None:
        if self.enabled and self.progress is not None:
            with suppress(OSError):
                self.progress.stop()
        if self.enabled and self.board is not None:
            with suppress(OSError):
                self.board.close()

    def say(self, text: str) -> None:
        """A line for the person, above the bar; a terminal that was closed hears none."""
        with suppress(OSError):
            if self.enabled and getattr(self, "progress", None) is not None:
                self.progress.console.print(text, markup=False, highlight=False)
            elif self.enabled:
                print(text, file=sys.stderr, flush=True)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """A log that cannot be written is said once, and the run goes on."""
        try:
            yield
        except OSError as error:
            if name not in self.lost:
                self.lost.add(name)
                self.say(f"{name}: lines are missing from step {self.step} on, {error.strerror or error}")

    def _add_scalars(self, values: Mapping[str, float], step: int) -> None:
        if self.board is None:
            return
        try:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
        except OSError as error:  # its thread has ended
            self.board = None
            self.say(f"TensorBoard: no more logs from step {step} on, {error.strerror or error}")

    def add_step(self, step: int, epoch: int, lr: float, losses: Mapping[str, float], seconds: float) -> None:
        """Once after each step; seconds: what it took."""
        if not self.enabled:
            return
        self.step, loss = step, sum(losses.values())
        self.training += seconds
        with self._writing("log.csv"):
            self.steps.add({"step": step, "epoch": epoch, "lr": lr, "loss": loss, **losses, "seconds": self._seconds()})
        self._add_scalars({f"train/{name}": value for name, value in {"loss": loss, **losses, "lr": lr}.items()}, step)
        rate = (step - self.step0) / max(self.training, 1e-9)
        left = _duration((self.total - step) / rate)
        each = " ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in losses.items())
        if self.progress is not None:
            parts = f" ({each})" if self.progress.console.width >= 80 + len(each) else ""
            text = f"loss {loss:.3f}{parts} {rate:.2f} it/s {left} left"
            self.progress.update(self.task, completed=step, description=f"epoch {epoch + 1}", text=text)
        elif step in (self.step0 + 1, self.total) or time.monotonic() - self.last_line >= self.every:
            self.last_line = time.monotonic()
            text = f"epoch {epoch + 1} loss {loss:.3f} ({each}) lr {lr:.2g} {rate:.2f} it/s, {left} left"
            self.say(f"step {step}/{self.total} {text}")

    def begin_stage(self, name: str, total: int, done: int) -> None:
        if self.enabled and self.progress is not None:
            self.progress.reset(self.task, total=total, completed=done, description=name, text="")

    def add_stage(self, name: str, done: int, total: int) -> None:
        """After each item of a stage."""
        if self.enabled:
            row = {"step": self.step, "stage": name, "done": done, "of": total, "seconds": self._seconds()}
            with self._writing("stages.csv"):
                self.stages.add(row)
        if self.enabled and self.progress is not None:
            self.progress.update(self.task, completed=done)
        elif self.enabled and (done == total or time.monotonic() - self.last_line >= self.every):
            self.last_line = time.monotonic()
            self.say(f"{name} {done}/{total}")

    def add_metrics(self, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        if not self.enabled:
            return
        with self._writing("metrics.csv"):
            self.metrics.add({"step": step, "epoch": epoch, **metrics, "seconds": self._seconds()})
        main = [f"{name} {value:.3f}" for name, value in metrics.items() if "/" not in name and value >= 0]
        self.say(f"epoch {epoch + 1} on held-out images: {', '.join(main[:6])}")
        self._add_scalars({f"metrics/{name}": value for name, value in metrics.items()}, step)

    def _seconds(self) -> float:
        return round(time.monotonic() - self.start, 2)

    def add_problems(self, problems: Iterable[Any], most: int = 10) -> None:
        """Reports each problem of the data once, and only counts those beyond the first."""
        for problem in map(str, problems):
            if problem in self.problems:
                continue
            self.problems[problem] = None
            if len(self.problems) <= most:
                self.say(f"left out: {problem}")
            elif len(self.problems) == most + 1:
                self.say("left out: more, which are only counted")


def training_seconds(out: Path) -> float:
    """How long the run of a folder took for its steps and stages, with the evaluations between them."""
    last = [0.0]
    for name in ("log.csv", "stages.csv"):
        if (out / name).exists():
            with open(out / name, newline="") as file:
                last += [float(row["seconds"]) for row in csv.DictReader(file)][-1:]
    return max(last)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    days, minutes = divmod(minutes, 24 * 60)
    return f"{days} d " * (days > 0) + f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
