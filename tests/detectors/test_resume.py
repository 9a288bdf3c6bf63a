"""A resume with other settings: what takes effect, what is refused by name, what is taken over."""

import csv
import re

import pytest
from commands import QUICK
from test_training import same, shapes, trainer
from tiny import tiny_ssd, torch

from boxops.cli import main
from boxops.training.checkpoint import load


def rates(out):
    with open(out / "log.csv") as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.005},
        {"epochs": 4},
        {"schedule": "multistep", "warmup": 0},
        {"backbone_lr": 0.5, "weight_decay": 0.1, "clip": 1.0},
        {"amp": "bf16", "workers": 1, "eval_every": 2, "checkpoint_steps": 1, "bad_steps": 2},
    ],
    ids=str,
)
def test_what_takes_effect(tmp_path, options, capsys):
    """From the next step on the run is as if it had begun with these options."""
    trainer(tmp_path / "run").run()
    whole = {"epochs": 3, **options}
    resumed = trainer(tmp_path / "run", resume=True, **whole)
    told = capsys.readouterr().err
    for name in {*whole} - {"workers"}:
        assert f"{name}: {whole[name]} from now on; the run had " in told
    assert resumed.options.lr == whole.get("lr", 0.01)
    resumed.run()
    trainer(tmp_path / "new", **whole).run()
    assert rates(tmp_path / "run")[6:] == rates(tmp_path / "new")[6:]
    decay = [group["weight_decay"] for group in resumed.optimizer.param_groups]
    assert decay == pytest.approx([whole.get("weight_decay", 5e-4), 0], abs=0)


def test_nothing_changes_by_itself(tmp_path, capsys):
    trainer(tmp_path, lr=0.003).run()
    resumed = trainer(tmp_path, resume=True, lr=0.003)
    assert "from now on" not in capsys.readouterr().err
    assert resumed.finished


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.9), (0.9, 0.0), (0.9, 0.5)])
def test_the_average_may_come_and_go(tmp_path, first, second):
    trainer(tmp_path, ema=first).run()
    state = load(tmp_path / "last.pt")
    resumed = trainer(tmp_path, resume=True, ema=second, epochs=3)
    assert same(resumed.model.state_dict(), state["training"].get("weights", state["weights"]))
    resumed.run()
    assert load(tmp_path / "last.pt")["training"]["step"] == 9


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"optimizer": "adamw"}, "optimizer: the run in .* has sgd, got adamw; a resume goes on with the run's own"),
        ({"seed": 1}, "seed: the run in .* has 0, got 1"),
        ({"samples": 8}, "samples: the run in .* has None, got 8"),
        ({"batch_size": 8}, "batch_size: the run in .* has 4 images a step, got 8 x 1 .accumulate. x 1 processes"),
        ({"accumulate": 2}, "batch_size: the run in .* has 4 images a step, got 4 x 2 .accumulate. x 1 processes"),
        ({"data": lambda: shapes(11)}, "data: the run in .* has 10 images, got 11"),
        ({"model": lambda: tiny_ssd(4, dropout=0.0)}, "dropout: the run in .* has the default, got 0.0"),
        ({"model": lambda: tiny_ssd(4, size=32, steps=None)}, "size: the run in .* has the default, got 32"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_refused(tmp_path, options, told):
    trainer(tmp_path).run()
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, resume=True, **{k: v() if callable(v) else v for k, v in options.items()})
    assert (tmp_path / "last.pt").read_bytes() == before


def test_other_classes_are_named(tmp_path):
    trainer(tmp_path).run()
    data = shapes()
    for classes, told in (
        (["circle", "square", "star"], "has triangle, got star"),
        (["circle", "square"], "has triangle, got not triangle"),
        (["square", "circle", "triangle"], "has circle, square, triangle, got square, circle, triangle"),
    ):
        data.classes = classes
        with pytest.raises(ValueError, match=f"classes: the run in .* {told}"):
            trainer(tmp_path, resume=True, data=data)


def test_best_is_nothing_to_go_on_from(tmp_path, capsys):
    assert main([*QUICK, "--steps", "1", "--out", str(tmp_path)]) == 0
    state = load(tmp_path / "last.pt")
    del state["training"]
    torch.save(state, tmp_path / "last.pt")
    assert main([*QUICK, "--resume", "--out", str(tmp_path)]) == 2
    assert "last.pt: expected last.pt of a run, got a checkpoint without its state" in capsys.readouterr().err
    (tmp_path / "last.pt").rename(tmp_path / "best.pt")
    assert main([*QUICK, "--resume", "--out", str(tmp_path)]) == 2
    assert "--resume: expected" in capsys.readouterr().err
    assert main([*QUICK, "--out", str(tmp_path)]) == 2


SHORT = ["train", "tiny_ssd", "--data", "shapes", "--eval-split", "none"]
SHAPES = [word for pair in ("size=64", "max_objects=2", "length=12") for word in ("--data-option", pair)]


def test_the_command(tmp_path, capsys):
    """What is not given is the run's own; what cannot change is refused with the name of its flag."""
    out = ["--out", str(tmp_path / "run")]
    first = [*SHORT, *SHAPES, *out, "--workers", "0", "--batch-size", "4", "--lr", "0.02", "--epochs", "2",
             "--set", "dropout=0.2", "--size", "32", "--jitter", "--log-seconds", "0"]  # fmt: skip
    assert main([*first, "--resume"]) == 0
    err = capsys.readouterr().err
    assert f"--resume: {tmp_path}/run has no run yet, so one begins" in err
    again = [*SHORT, *SHAPES, *out, "--resume"]
    for words, told in (
        ("--batch-size 3", "--batch-size: the run in"),
        ("--optimizer adamw", "--optimizer: the run in"),
        ("--seed 3", "--seed: the run in"),
        ("--set dropout=0.1", "--set dropout: the run in .* has 0.2, got 0.1"),
        ("--set nms_thresh=0.1", "--set nms_thresh: the run in .* has the default, got 0.1"),
        ("--size 64", "--size: the run in .* has 32, got 64"),
        ("--augment none", "--augment: the run in .* has rcnn, got none"),
        ("--vertical-flip", "--vertical-flip: the run in .* has False, got True"),
        ("--data-option length=13", "--data: the run in .* has 12 images, got 13"),
    ):
        assert main([*again, *words.split()]) == 2
        assert re.search(f"^boxops train: {told}", capsys.readouterr().err.splitlines()[-1])
    assert main([*again]) == 0
    assert "the run is done, 6 of 6 steps; more --epochs or --steps go on" in capsys.readouterr().err
    assert main([*again, "--epochs", "3", "--lr", "0.01", "--backbone-weights", "not read"]) == 0
    err = capsys.readouterr().err
    assert "--backbone-weights: not read, since the run goes on from" in err
    assert "lr: 0.01 from now on; the run had 0.02" in err
    state = load(tmp_path / "run/last.pt")
    assert state["training"]["step"] == 9
    assert state["options"]["lr"] == 0.01
    assert state["options"]["batch_size"] == 4
    assert state["model"]["dropout"] == 0.2
    assert state["settings"] == {
        "data": "shapes",
        "augment": "rcnn",
        "vertical_flip": False,
        "jitter": True,
        "mixup": 0.0,
    }
    other = ["train", "ssd", *SHORT[2:], *SHAPES, *out, "--resume"]
    assert main(other) == 2
    assert "model: the run in" in capsys.readouterr().err
