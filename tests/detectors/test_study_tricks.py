"""`boxops study tricks`: its table against NumPy, what a run of a row is, how it goes on; once with real runs."""

import argparse
import csv
import json
import os
import re
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from commands import Running, needs_fork
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from tiny import torch

from boxops.cli import main
from boxops.cli import train as train_command
from boxops.studies import increments, tricks
from boxops.studies import increments_report as report
from boxops.training.checkpoint import load, save

WORDS = ["study", "tricks", "--data", "shapes", "--device", "cpu", "--workers", "0", "--out", "out"]
RUN = [row for row in tricks.ROWS if row != "sync_bn"]  # by one process


def ap(row, seed):
    """What a fake run gives: rises from row to row by more than from seed to seed, but at the last one."""
    return (
        0.3
        + 0.1 * RUN.index("augmentation" if row == "sync_bn" else row)
        - 0.085 * (row == "mixup")
        + 0.01 * (seed % 3)
    )


class Fake:
    """Runs that take no time; ``stop_at`` says at which one what happens."""

    def __init__(self):
        self.calls, self.stop_at, self.stop = [], None, None

    def __call__(self, args, results, row, seed, out):
        self.calls.append((row, seed))
        if len(self.calls) == self.stop_at:
            return self.stop()
        value = ap(row, seed)
        return {"box_AP50": value, "VOC_AP": value / 2, "machine": "a machine", "steps": 7, "training_seconds": 1.0}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Fake()
    monkeypatch.setattr(tricks, "train", made)
    return made


def study(*words):
    return main([*WORDS, *map(str, words)])


def results():
    return json.loads(Path("out/tricks.json").read_text())


def rows_of_csv():
    with open("out/tricks.csv") as file:
        return list(csv.DictReader(file))


def test_files_and_table(fake, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert study() == 0
    assert fake.calls == [(row, seed) for seed in range(3) for row in RUN]  # whole tables, one seed after another
    said = capsys.readouterr()
    assert "+ synchronised BN: not run, as the row above: the batch norm of a single process" in said.err
    assert "run 18 of 18" in said.err
    lines = said.out.splitlines()
    assert max(map(len, lines[:-1])) <= 80 and "…" not in said.out
    told = {line.split("  ")[0].strip(): line.split() for line in lines}
    assert told["baseline"][-5:] == ["31.0", "30.0..32.0", "-", "15.5", "64.26"]
    assert told["+ augmentation"][-5:] == ["41.0", "40.0..42.0", "+10.0*", "20.5", "80.25"]
    assert told["+ synchronised BN"][-6:] == ["41.0", "40.0..42.0", "as", "above", "20.5", "80.81"]
    assert told["+ mixup"][-5:] == ["72.5", "71.5..73.5", "+1.5", "36.3", "83.68"]  # 70..72 before: no star
    assert "all together: +41.5, ranges apart" in said.out
    found = results()
    assert {row: list(runs) for row, runs in found["runs"].items()} == {row: ["0", "1", "2"] for row in RUN}
    assert (
        found["runs"]["cosine"]["2"]["box_AP50"] == ap("cosine", 2) and found["papers"]["the paper"]["mixup"] == 0.8368
    )
    rows = rows_of_csv()
    assert [row["row"] for row in rows] == list(tricks.ROWS)
    for row in rows:
        key = "augmentation" if row["row"] == "sync_bn" else row["row"]
        values = np.array([ap(key, seed) for seed in range(3)])
        assert float(row["mean"]) == pytest.approx(values.mean())
        assert float(row["std"]) == pytest.approx(values.std(ddof=1))
        assert (float(row["min"]), float(row["max"])) == (values.min(), values.max())
        if row["row"] != "sync_bn":
            assert [float(row[f"box_AP50 {seed}"]) for seed in range(3)] == values.tolist()
            assert [float(row[f"VOC_AP {seed}"]) for seed in range(3)] == (values / 2).tolist()
    assert [row["clear"] for row in rows] == ["", "True", "", "True", "True", "True", "False"]
    assert rows[2]["left_out"] == "True" and rows[2]["gain"] == rows[2]["box_AP50 0"] == ""
    assert rows[1]["the paper"] == "0.8025"
    with Image.open("out/tricks.png") as image:
        assert image.width > 1000 and len(image.convert("L").getcolors()) > 50
    picture = Path("out/tricks.svg").read_text()
    assert picture.startswith("<?xml") and picture.rstrip().endswith("</svg>")
    page = report.markdown(found)
    assert page.count("\n| ") == 8 and "| + mixup | 72.5 | 71.5..73.5 | +1.5 | 36.3 | 83.68 |" in page


# Few and coarse ones, so that ranges touch, overlap and lie apart
values_of_seeds = st.dictionaries(st.sampled_from("0123"), st.integers(0, 6).map(lambda n: n / 8), max_size=3)


@example({"0": 0.5, "1": 0.75}, {"0": 0.25, "1": 0.125})
@example({"0": 0.25, "1": 0.125}, {"0": 0.5, "2": 0.75})
@given(values_of_seeds, values_of_seeds)
def test_gain_and_spread(before, after):
    told = report.spread(after)
    some = np.array(list(after.values()))
    assert told["mean"] == (pytest.approx(some.mean()) if after else None)
    assert told["std"] == (pytest.approx(some.std(ddof=1), abs=1e-12) if len(after) > 1 else None)
    gain, clear = report.compare(before, after)
    common = [seed for seed in before if seed in after]
    assert gain == (pytest.approx(np.mean([after[s] - before[s] for s in common]), abs=1e-12) if common else None)
    if min(len(before), len(after)) < 2:
        assert clear is None
    else:  # whichever two values are taken, one of each, the same row is ahead
        signs = {np.sign(a - b) for a in after.values() for b in before.values()}
        assert clear == (signs in ({1}, {-1}))


def test_each_row_adds_one_thing():
    """To the words of `boxops train`, as its parser reads them."""
    parser, own = argparse.ArgumentParser(), argparse.ArgumentParser()
    train_command.add_arguments(parser)
    tricks.add_arguments(own)
    args = own.parse_args(["--root", "DIR", "--data", "voc", "--augment", "flip,crop", "--epochs", "5", "--lr", "0.01",
                           "--set", "cutoff=15", "--set", "multi_scale=true"])  # fmt: skip
    read = {row: vars(parser.parse_args(tricks.words_of(args, row, {})[1:])) for row in tricks.ROWS}
    for options in read.values():
        options["set"] = dict(options["set"])
        assert options["set"].pop("cutoff") == 15
        assert (options["model"], options["root"], options["epochs"], options["lr"]) == ("yolo_v3", "DIR", 5, 0.01)
    rows = list(read)
    added = [{key: now[key] for key in now if now[key] != read[before].get(key)}
             for before, now in zip(rows, list(read.values())[1:], strict=False)]  # fmt: skip
    assert added == [
        {"augment": "flip,crop"},
        {"sync_bn": True},
        {"set": {"multi_scale": True}},
        {"schedule": "cosine"},
        {"set": {"multi_scale": True, "label_smoothing": 0.1}},
        {"mixup": 1.5},
    ]
    first = read["baseline"]
    assert (first["augment"], first["schedule"], first["set"]) == ("none", "multistep", {"multi_scale": False})
    assert "--sync-bn" not in tricks.words_of(args, "mixup", {"sync_bn": "one process"})


def test_a_stopped_study_goes_on(fake, capsys):
    """By a run that ended by a signal, then by --resume, then for one more seed: the same as without a break."""
    fake.stop_at, fake.stop = 9, lambda: 143
    assert study() == 143
    done = {row: len(runs) for row, runs in results()["runs"].items()}
    assert done == {row: 2 if row in RUN[:2] else 1 for row in RUN}
    assert [row["box_AP50 1"] != "" for row in rows_of_csv()] == [True, True, False, False, False, False, False]
    assert not Path("out/tricks.png").exists()
    capsys.readouterr()
    assert study() == 2
    assert "--out: out has a study: --resume goes on with it" in capsys.readouterr().err
    fake.calls, fake.stop_at = [], None
    assert study("--resume") == 0
    assert fake.calls[0] == (RUN[2], 1) and len(fake.calls) == 10
    assert "8 of 18 runs: done before" in capsys.readouterr().err
    table = Path("out/tricks.csv").read_text()
    assert study("--out", "whole") == 0
    assert Path("whole/tricks.csv").read_text() == table
    fake.calls = []
    assert study("--resume", "--seeds", 4) == 0
    assert fake.calls == [(row, 3) for row in RUN]


@needs_fork
def test_a_killed_study_goes_on(fake, heard, tmp_path):
    fake.stop_at, fake.stop = 9, lambda: os.kill(os.getpid(), signal.SIGKILL)
    with Running(WORDS, tmp_path) as running:
        assert running.end() == -signal.SIGKILL
    assert sum(len(runs) for runs in results()["runs"].values()) == 8
    fake.stop_at = None
    assert study("--resume") == 0
    assert len(fake.calls) == 10


@needs_fork
def test_two_processes(fake, heard, tmp_path, monkeypatch):
    """They do the same runs, that of synchronised BN too, and one of them writes and speaks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": 2}
    with ExitStack() as stack:
        both = []
        for rank in (0, 1):
            for name, value in (names | {"RANK": rank, "LOCAL_RANK": rank}).items():
                monkeypatch.setenv(name, str(value))
            (tmp_path / str(rank)).mkdir()
            both.append(stack.enter_context(Running([*WORDS, "--seeds", "1"], tmp_path / str(rank))))
        assert [one.end() for one in both] == [0, 0], both[0].said() + both[1].said()
    assert list(results()["runs"]) == list(tricks.ROWS) and results()["options"]["processes"] == 2
    assert "wrote out/tricks.csv" in both[0].said() and "run 7 of 7" in both[0].said() and not both[1].said()


def test_resume_with_other_options(fake, capsys):
    assert study("--seeds", 1) == 0
    for words, text in ((["--epochs", 5], "--epochs None, got 5"), (["--augment", "yolo"], "--augment ssd, got yolo")):
        capsys.readouterr()
        assert study("--resume", *words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--resume: expected the options of out/tricks.json, {text}" in line
    assert study("--overwrite", "--epochs", 5, "--seeds", 1) == 0
    assert results()["options"]["epochs"] == 5


def test_weights_are_kept(tmp_path):
    whole = {"boxops": 1, "model": {"name": "x"}, "classes": ["a"], "weights": {"w": torch.ones(2)}, "options": {}}
    save(tmp_path / "last.pt", {**whole, "training": {"optimizer": {"m": torch.ones(1000)}}})
    save(tmp_path / "best.pt", whole)
    for _ in range(2):
        increments.keep_weights(tmp_path)
        kept = load(tmp_path / "last.pt")
        assert kept.keys() == whole.keys() and kept["weights"]["w"].tolist() == [1, 1]
        assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    increments.keep_weights(tmp_path / "none")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--model yolo9000", "--model: expected one of .*yolo_v3.*, got 'yolo9000'"),
        ("--model localizer", "--model: expected a detector whose AP50 is measured, got localizer_mobilenet_v2"),
        ("--seeds 0", "--seeds: expected 1 or more, got 0"),
        ("--epochs 0", "--epochs: expected 1 or more, got 0"),
        ("--resume --overwrite", "--overwrite: begins anew, but --resume goes on"),
        ("--set cut=15", "--set cut: expected an option of yolo_v3"),
        ("--augment none", "--augment: expected an augmentation, which the second row adds, got none"),
        ("--augment warp", "--augment: expected names of .*ssd.*, got 'warp'"),
        ("--data none", "--data: expected one of .*, got 'none'"),
        ("--root nowhere", "expected no root|nowhere"),
    ],
)
def test_bad_words(fake, capsys, words, text):
    if words.startswith("--root"):
        words += " --data auto"
    assert study(*words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("boxops study: ")
    assert re.search(text, line), line
    assert not fake.calls and not Path("out").exists()


def test_no_data_and_no_images(fake, capsys, tmp_path):
    assert main(["study", "tricks"]) == 2
    assert "--root: expected the folder of the data, got none; --quick needs none" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["study", "tricks", "--root", "empty"]) == 2
    assert "empty" in capsys.readouterr().err


def test_files_of_others_stay(fake, capsys):
    Path("out/cosine_1").mkdir(parents=True)
    Path("out/cosine_1/last.pt").write_bytes(b"mine")
    assert study() == 2
    assert "--out: out/cosine_1 has a run" in capsys.readouterr().err
    Path("out/tricks.csv").write_text("mine")
    Path("out/cosine_1/last.pt").unlink()
    assert study() == 2
    assert "--out: out/tricks.csv exists and is not boxops' own" in capsys.readouterr().err
    assert Path("out/tricks.csv").read_text() == "mine" and not fake.calls


def test_rows_that_a_model_has_not(fake, capsys):
    assert study("--model", "detr", "--seeds", 1) == 0
    assert [row for row, _ in fake.calls] == ["baseline", "augmentation", "cosine"]
    assert "detr_mobilenet_v2 has no label_smoothing" in capsys.readouterr().out
    last = rows_of_csv()[-1]
    assert (last["row"], last["mean"], last["gain"]) == ("mixup", str(ap("cosine", 0)), "")


def test_what_failed_at_once_leaves_nothing(fake, capsys):
    """No --overwrite, and no --resume with the wrong option, after a first run that could not begin."""
    fake.stop_at, fake.stop = 1, lambda: 2
    assert study("--lr", "-1") == 2
    assert not any(results()["runs"].values())
    assert study("--lr", "0.1", "--seeds", 1) == 0
    assert results()["options"]["lr"] == 0.1


@pytest.mark.slow
def test_quick_study(tmp_path, monkeypatch, capsys):
    """The real runs, in seconds."""
    monkeypatch.chdir(tmp_path)
    assert (
        main(["study", "tricks", "--quick", "--steps", "1", "--workers", "0", "--device", "cpu", "--out", "out"]) == 0
    )
    found = results()
    assert list(found["runs"]) == RUN
    for row, runs in found["runs"].items():
        run = runs["0"]
        assert (
            0 <= run["box_AP50"] <= 1 and 0 <= run["VOC_AP"] <= 1 and run["steps"] == 1 and run["training_seconds"] > 0
        )
        assert "--seed 0" in run["command"] and ("--mixup" in run["command"]) == (row == "mixup")
        checkpoint = load(Path("out", f"{row}_0", "last.pt"))
        assert "training" not in checkpoint and not Path("out", f"{row}_0", "best.pt").exists()
        assert checkpoint["model"].get("multi_scale") == (row not in ("baseline", "augmentation"))
        assert checkpoint["options"]["schedule"] == ("multistep" if RUN.index(row) < 3 else "cosine")
    capsys.readouterr()
    assert main(["detect", "--checkpoint", "out/mixup_0/last.pt", "out/mixup_0/image.jpg", "--out", "drawn.png"]) == 0
