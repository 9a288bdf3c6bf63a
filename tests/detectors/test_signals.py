"""Signals to a run and to all of its processes: what is saved, what is said, the exit status."""

import os
import signal

import pytest
from commands import LONG, QUICK, Running, needs_fork
from tiny import torch

from boxops.cli import main, train
from boxops.training import Trainer, checkpoint, signals, trainer
from boxops.training.checkpoint import load
from boxops.training.signals import Interrupted, Signals

pytestmark = pytest.mark.usefixtures("heard")


@needs_fork
@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_to_the_group_saves(tmp_path, number, status):
    """As of a terminal, `timeout` or a scheduler; `timeout` sends it to the main process a second time."""
    number, out = getattr(signal, number), tmp_path / "run"
    with Running([*LONG, "--workers", "2", "--out", str(out)], tmp_path) as run:
        run.wait_for_rows(out / "log.csv", 2)
        os.killpg(run.pid, number)
        os.kill(run.pid, number)
        assert run.end() == status
        said = run.said()
    steps = load(out / "last.pt")["training"]["step"]
    assert f"stopped by {number.name} at step {steps} of 300000; saved in {out}/last.pt; go on with: boxops" in said
    assert said.rstrip().endswith(f"--out {out} --resume")
    assert len((out / "log.csv").read_text().splitlines()) == steps + 1
    assert "Traceback" not in said
    assert not (out / ".lock").exists()


@needs_fork
@pytest.mark.slow  # workers look every 5 seconds
def test_workers_end_with_a_killed_run(tmp_path):
    out = tmp_path / "run"
    with Running([*LONG, "--workers", "2", "--out", str(out)], tmp_path) as run:
        run.wait_for_rows(out / "log.csv", 2)
        os.kill(run.pid, signal.SIGKILL)
        assert run.end() == -9
    assert main([*QUICK, "--steps", "1", "--out", str(out)]) == 0  # its lock went with it


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_before_the_first_step(tmp_path, monkeypatch, capsys, number, status):
    def opening(*args, **options):
        os.kill(os.getpid(), getattr(signal, number))
        raise AssertionError("the signal ends this")

    monkeypatch.setattr(train, "open_splits", opening)
    before = [signal.getsignal(one) for one in signals.STOPPING]
    assert main([*QUICK, "--out", str(tmp_path / "run")]) == status
    assert capsys.readouterr().err == f"boxops train: stopped by {number} before the first step\n"
    assert not (tmp_path / "run").exists()
    assert [signal.getsignal(one) for one in signals.STOPPING] == before


def again_and_again(*_):
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("steps", "told"), [(0, "nothing is saved yet"), (4, "last.pt is of step 4; go on with: ")])
def test_a_second_interrupt_tells_what_is_saved(tmp_path, monkeypatch, capsys, steps, told):
    monkeypatch.setattr(signals, "PATIENCE", -1)
    step = Trainer._step

    def impatient(self, batches):
        if self.step == steps + 1:
            again_and_again()
            raise AssertionError("the second one ends this")
        return step(self, batches)

    monkeypatch.setattr(Trainer, "_step", impatient)
    often = ["--checkpoint-steps", "2"] if steps else []
    assert main([*QUICK, *often, "--out", str(tmp_path / "run")]) == 130
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("boxops train: stopped at once by a second signal; ")
    assert told in err
    assert "saved in" not in err
    assert ("--resume" in err) == (steps > 0)


def test_signals_wait_for_the_end_of_a_save(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(signals, "PATIENCE", -1)
    save = torch.save

    def interrupted(content, file):
        again_and_again()
        save(content, file)

    monkeypatch.setattr(checkpoint.torch, "save", interrupted)
    assert main([*QUICK, "--checkpoint-steps", "2", "--out", str(tmp_path / "run")]) == 130
    assert "second signal; saved in" in capsys.readouterr().err
    assert load(tmp_path / "run/last.pt")["training"]["step"] == 2
    assert not [*(tmp_path / "run").glob("*.tmp")]


def test_a_worker_that_reads_images_badly_is_no_signal():
    """What reads files catches every Exception; an interruption is none."""
    assert not issubclass(Interrupted, Exception)
    assert trainer.Signals is Signals


def test_what_is_ignored_stays_ignored():
    """nohup"""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as heard:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not heard.came
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_came_before_is_not_lost():
    with Signals() as heard:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM in the evaluation") as error, heard.at_once("in the evaluation"):
            raise AssertionError("not reached")
    assert error.value.number == signal.SIGTERM
