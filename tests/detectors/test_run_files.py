"""What a run leaves in its folder: a former run that is overwritten, other runs, a full disk."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
from commands import LONG, QUICK, Running, needs_fork
from test_training import trainer
from tiny import torch

from boxops.cli import main
from boxops.training import RunFolder, Trainer, TrainingError, checkpoint
from boxops.training.checkpoint import load
from boxops.training.logs import Table


def snapshot(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """A run of one step with everything that runs write, and a file of the person's own."""
    out = tmp_path_factory.mktemp("old") / "run"
    assert main([*QUICK, "--steps", "1", "--out", str(out)]) == 0
    (out / "best.pt").write_bytes((out / "last.pt").read_bytes())
    (out / "samples").mkdir()
    for name in ("samples/epoch_001.jpg", "samples/epoch_002.jpg", "image.jpg", "metrics.csv", "notes.txt"):
        (out / name).write_text(name)
    return out


@pytest.fixture
def old(a_run, tmp_path):
    return Path(shutil.copytree(a_run, tmp_path / "run"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--data voc", "voc: expected options of annotations, images, classes, one_based, only, one_object, got size"),
        ("--data coco", "--root: expected the folder of the data for --data coco, got none"),
        ("--data-option size=3", "shapes: expected size"),
        ("--weights nothing.pth", "nothing.pth"),
        ("--fine-tune", "--fine-tune: expected --weights with it, got none"),
        ("--lr -1", "--lr: expected a number of 0 or more, got -1"),
        ("--batch-size 0", "--batch-size: expected 1 or more, got 0"),
        ("--batch-size -1", "--batch-size: expected a number of 0 or more, got -1"),
        ("--set sise=3", "--set sise: expected an option of tiny_ssd, one of dropout, size, steps, "),
        ("--set iou_thresh=high", "--set iou_thresh: expected float, got 'high'"),
        ("--set scales=(1,'x')", "--set scales: expected Sequence[float], got (1, 'x')"),
        ("--size 8", "--size: expected 16 or more, so that every map of tiny_ssd has a cell, got 8"),
        ("--size 0", "--size: expected 1 or more, got 0"),
        ("--size 32 --set size=64", "--size: expected one size, got 32 and --set size=64"),
        ("--device gpu", "--device: expected auto, cpu, cuda or cuda:1, got 'gpu'"),
        ("--amp fp16", "--amp: expected a GPU for fp16, got cpu; bf16 works on both"),
        ("--jitter --augment none", "--jitter: expected --augment rcnn with it, got none"),
        ("--jitter --augment ssd", "--jitter: expected --augment rcnn with it, got ssd"),
        ("--vertical-flip --augment none", "--vertical-flip: expected --augment rcnn, ssd or yolo with it, got none"),
        ("--resume", "--overwrite: begins anew, but --resume goes on: expected one of them, got both"),
    ],
)
def test_a_mistake_costs_nothing(old, capsys, words, told):
    """All that is wrong is told before the old run is touched, in one line that begins with the option."""
    before = snapshot(old)
    capsys.readouterr()
    root = ["--root", "nowhere"] if "voc" in words else []
    assert main([*QUICK, "--out", str(old), "--overwrite", *words.split(), *root]) == 2
    (err,) = capsys.readouterr().err.splitlines()[-1:]
    assert err.startswith("boxops train: ")
    assert told in err
    assert snapshot(old) == before


def test_a_new_run_that_never_saves_gives_the_old_one_back(old, monkeypatch, capsys):
    before = snapshot(old)

    def broken(self, batches):
        assert not (old / "last.pt").exists()
        assert (old / ".overwritten/last.pt").exists()
        raise OSError("broken")

    monkeypatch.setattr(Trainer, "_step", broken)
    assert main([*QUICK, "--out", str(old), "--overwrite"]) == 2
    assert "the run that was to be overwritten is back" in capsys.readouterr().err
    assert snapshot(old) == before


def test_a_new_run_that_saves_leaves_nothing_of_the_old_one(old):
    assert main([*QUICK, "--out", str(old), "--overwrite", "--steps", "2"]) == 0
    assert load(old / "last.pt")["training"]["step"] == 2
    assert len((old / "log.csv").read_text().splitlines()) == 3
    names = {name for name in snapshot(old) if "tfevents" not in name}
    assert names == {"last.pt", "log.csv", "notes.txt"}  # no best.pt, which is of the old one
    assert len([*old.glob("events.out.tfevents.*")]) <= 1


@needs_fork
def test_a_new_run_killed_before_it_saves(old, tmp_path, capsys):
    before = snapshot(old)
    never = ["--data-option", "length=100000"]  # at the end of an epoch
    with Running([*LONG, *never, "--out", str(old), "--overwrite"], tmp_path) as run:
        run.wait_for((old / ".overwritten").exists)
        run.wait_for_rows(old / "log.csv", 1)
        assert not (old / "last.pt").exists()
        os.kill(run.pid, signal.SIGKILL)
        run.end()
    assert main([*QUICK, "--out", str(old)]) == 2  # whatever comes next finds the old one
    err = capsys.readouterr().err
    assert "the run that was to be overwritten is back" in err
    assert "has a run: --resume goes on" in err
    assert snapshot(old) == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moves", range(24))
def test_killed_between_any_two_moves(old, monkeypatch, moves):
    """Setting aside, and giving back: after whatever rename the process ends, the old run is whole."""
    before, left, rename = snapshot(old), [moves], Path.rename

    def counted(self, target):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return rename(self, target)

    def end(folder):  # as the process's end would: of the lock, not of the files
        folder.aside = folder.moving = old / "nothing"
        folder.close()

    monkeypatch.setattr(Path, "rename", counted)
    folder = RunFolder(old, overwrite=True)
    try:
        folder.open()
        folder.begin()
        (old / "log.csv").write_text("new")
        (old / "samples").mkdir()
        (old / "samples/epoch_001.jpg").write_text("new")
        folder.close()
    except Killed:
        end(folder)
    monkeypatch.setattr(Path, "rename", rename)
    folder = RunFolder(old)
    folder.open()
    folder.close()
    assert snapshot(old) == before


def test_killed_after_the_first_checkpoint(old):
    """The new run holds, and what is left of the old one goes."""
    folder = RunFolder(old, overwrite=True)
    folder.open()
    folder.begin()
    (old / "last.pt").write_text("new")
    again = RunFolder(old)
    again.open()
    again.close()
    assert snapshot(old) == {"last.pt": b"new", "notes.txt": b"notes.txt"}


@needs_fork
def test_two_runs_in_one_folder(tmp_path, capsys):
    out = tmp_path / "run"
    with Running([*LONG, "--out", str(out)], tmp_path) as run:
        run.wait_for_rows(out / "log.csv", 1)
        for words in ([], ["--overwrite"], ["--resume"]):
            assert main([*QUICK, *words, "--out", str(out)]) == 2
            assert f"{out} is in use by process {run.pid} (boxops train tiny_ssd" in capsys.readouterr().err
        with pytest.raises(ValueError, match=f"in use by process {run.pid} "):
            trainer(out)
        os.kill(run.pid, signal.SIGTERM)
        assert run.end() == 143
    assert main([*QUICK, "--resume", "--epochs", "1", "--out", str(out)]) == 0


def test_folders_that_are_none(tmp_path, capsys):
    (tmp_path / "file").write_text("text")
    for out, words in (("file", "a file"), ("file/run", "Not a directory")):
        assert main([*QUICK, "--out", str(tmp_path / out)]) == 2
        assert f"--out: expected a folder to write to, got {tmp_path / out}: {words}\n" in capsys.readouterr().err
    assert main([*QUICK, "--lr", "-1", "--out", str(tmp_path / "new")]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["file"]  # a mistake leaves no empty folder


def full(monkeypatch, when):
    """The disk is full at such steps."""
    save = torch.save

    def limited(content, file):
        if when(content.get("training", {}).get("step")):
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, file)

    monkeypatch.setattr(checkpoint.torch, "save", limited)


def test_a_disk_that_is_full_for_a_while(tmp_path, monkeypatch, capsys):
    full(monkeypatch, lambda step: step in (2, 3))
    run = trainer(tmp_path, checkpoint_steps=1)
    run.run()
    err = capsys.readouterr().err
    assert "last.pt: not written at step 2, No space left on device; the run goes on and tries again; " in err
    assert f"{tmp_path / 'last.pt'} is of step 1" in err
    assert load(tmp_path / "last.pt")["training"]["step"] == 6
    assert not [*tmp_path.glob("*.tmp")]


def test_a_disk_that_stays_full(tmp_path, monkeypatch, capsys):
    full(monkeypatch, lambda step: step is not None and step > 3)
    assert main([*QUICK, "--epochs", "2", "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "all 6 steps are done, but not all is saved" in err
    assert err.rstrip().endswith(f"{tmp_path}/run/last.pt is of step 3")
    assert load(tmp_path / "run/last.pt")["training"]["step"] == 3
    assert {file.name for file in (tmp_path / "run").glob("*.*")} >= {"last.pt", "log.csv"}
    full(monkeypatch, lambda step: True)
    with pytest.raises(TrainingError, match="nothing is saved yet"):
        trainer(tmp_path / "other").run()


def test_files_that_cannot_grow(tmp_path, small_files, capsys):
    """Checkpoints and logs alike: the run reaches its end and says what is missing."""
    small_files(300)
    run = trainer(tmp_path)
    with pytest.raises(
        TrainingError, match=r"last\.pt: File too large; not saved \(File too large\), nothing is saved"
    ):
        run.run()
    small_files(-1)
    err = capsys.readouterr().err
    assert run.step == 6
    assert err.count("log.csv: lines are missing from step") == 1
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert 2 <= len(rows) <= 5
    assert {len(row.split(",")) for row in rows} == {7}  # whole ones
    assert not {"last.pt", "last.pt.tmp"} & {file.name for file in tmp_path.iterdir()}


def test_a_row_is_written_whole_or_not(tmp_path, small_files):
    table = Table(tmp_path / "log.csv", 0)
    table.add({"step": 1, "loss": 0.5})
    size = (tmp_path / "log.csv").stat().st_size
    for room in range(6):  # "2,0.25" needs 7
        small_files(size + room)
        with pytest.raises(OSError, match=r"File too large|No space left"):
            table.add({"step": 2, "loss": 0.25})
        assert (tmp_path / "log.csv").read_text() == "step,loss\n1,0.5\n"
    small_files(-1)
    table.add({"step": 2, "loss": 0.25})
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n"
