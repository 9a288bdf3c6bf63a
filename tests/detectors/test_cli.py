"""The commands as a person types them; tiny.py is the boxops command with a tiny model."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import DATA, QUICK, Running, needs_fork
from PIL import Image
from tiny import torch

from boxops.cli import main
from boxops.training.checkpoint import load

TINY = str(Path(__file__).with_name("tiny.py"))


def losses(out):
    with open(out / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [*range(1, len(rows) + 1)]
    return [float(row["loss"]) for row in rows]


def weights(out):
    return load(out / "last.pt")["weights"]


def test_help_imports_no_torch(tmp_path):
    code = "import sys, boxops.cli as c\ntry: c.main(['train', '--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("--backbone-lr", "--resume", "trainval/test", "learning rate (by model)"):
        assert word in " ".join(done.stdout.split()), done.stdout


def test_train_then_detect_then_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["train", "tiny_ssd", *DATA, "--epochs", "2", "--workers", "0", "--warmup", "0", "--pictures", "1"]) == 0
    )
    out = capsys.readouterr()
    assert "12 generated images" in out.err
    assert "boxops detect --checkpoint runs/tiny_ssd/last.pt runs/tiny_ssd/image.jpg --out detections.jpg" in out.out
    assert {"last.pt", "image.jpg", "log.csv", "samples"} <= {p.name for p in Path("runs/tiny_ssd").iterdir()}
    assert [p.name for p in sorted(Path("runs/tiny_ssd/samples").iterdir())] == ["epoch_001.jpg", "epoch_002.jpg"]
    detect = ["detect", "--checkpoint", "runs/tiny_ssd/last.pt", "--threshold", "0"]
    assert main([*detect, "runs/tiny_ssd/image.jpg", "--out", "found.jpg", "--json", "found.json"]) == 0
    assert Image.open("found.jpg").size == (640, 640)
    (found,) = json.loads(Path("found.json").read_text())
    assert found["image"] == "runs/tiny_ssd/image.jpg"
    assert {"class", "label", "score", "box"} == found["detections"][0].keys()
    Path("folder").mkdir()
    for name in "ab":
        Image.open("found.jpg").save(f"folder/{name}.png")
    Path("folder/bad.png").write_bytes(b"no")
    assert main([*detect, "folder", "--out", "drawn"]) == 1
    assert {p.name for p in Path("drawn").iterdir()} == {"a.jpg", "b.jpg"}
    assert "bad.png: left out, expected an image" in capsys.readouterr().out
    assert main(["evaluate", "--checkpoint", "runs/tiny_ssd/best.pt", *DATA, "--json", "ap.json"]) == 0
    assert re.search(r"box:\s+AP +AP50 +AP75", capsys.readouterr().out)
    with open("runs/tiny_ssd/metrics.csv") as file:
        rows = [row for row in csv.DictReader(file)]
    best = max(rows, key=lambda row: float(row["box_AP"]))
    found = json.loads(Path("ap.json").read_text())
    assert found["box_AP50/circle"] == float(best["box_AP50/circle"])
    assert main(["evaluate", "--checkpoint", "runs/tiny_ssd/best.pt", *DATA, "--metric", "voc"]) == 0
    assert re.search(r"VOC:\s+AP", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("train unet --data shapes", "expected a model of detr, .*localizer, .*tiny_ssd.*, got 'unet'"),
        ("train tiny_ssd --data cifar", "expected one of shapes, coco, voc, yolo, csv, got 'cifar'"),
        ("train tiny_ssd --data coco", "--root: expected the folder of the data for --data coco, got none"),
        ("train tiny_ssd --data voc --root nowhere", "voc: expected .*trainval.txt"),
        ("train tiny_ssd --data shapes --set steps2=1", "steps2"),
        ("train tiny_ssd --data shapes --lr -1", "lr: expected a number of 0 or more, got -1"),
        ("train tiny_ssd --data shapes --device cuda:9", "device: expected cpu"),
        ("train tiny_ssd --data shapes --weights text.jpg", "text.jpg: expected a checkpoint"),
        ("train tiny_ssd --data shapes --out run", "run has a run: --resume goes on"),
        ("train mask_rcnn --data csv --root rows.csv --train-split x", "expected data with masks"),
        ("detect text.jpg --checkpoint nothing.pt --out x.jpg", "nothing.pt"),
        ("detect text.jpg --checkpoint text.jpg --out x.jpg", "text.jpg: expected a checkpoint"),
        ("detect nothing.jpg --checkpoint x.pt --out x.jpg", "nothing.jpg: expected an image or a folder"),
        ("detect text.jpg --checkpoint x.pt", "expected --out PICTURE, --json FILE or both"),
        ("detect text.jpg text.jpg --checkpoint x.pt --out x.jpg", "expected a folder for 2 images"),
        ("detect text.jpg --model tiny_ssd --out x.jpg", "expected --weights"),
        ("evaluate --checkpoint text.jpg --data shapes", "text.jpg: expected a checkpoint"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="one of the errors is that there is no GPU")
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, line, text):
    monkeypatch.chdir(tmp_path)
    Path("text.jpg").write_text("text")
    Image.new("RGB", (64, 64)).save("a.png")
    Path("rows.csv").write_text("image,category,xmin,ymin,xmax,ymax\na.png,cat,1,1,9,9\n")
    Path("run").mkdir()
    Path("run/last.pt").touch()
    assert main(line.split()) == 2
    err = capsys.readouterr().err
    assert re.search(text, err), err
    assert len([row for row in err.splitlines() if row.startswith("boxops ")]) == 1
    assert "Traceback" not in err


@needs_fork
@pytest.mark.slow
def test_kill_at_any_moment_then_resume(tmp_path):
    command = [*QUICK, "--epochs", "6", "--ema", "0.9", "--checkpoint-steps", "1"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with Running([*command, "--out", str(whole)], tmp_path) as run:
        assert run.end() == 0, run.said()
    draw = random.Random(0)
    for target in (1, 5, 9, 13):  # steps; a save follows each, so that many kills meet one
        with Running([*command, "--out", str(broken), "--resume"], tmp_path) as run:
            run.wait_for_rows(broken / "log.csv", target)
            time.sleep(draw.uniform(0, 0.01))
            os.kill(run.pid, signal.SIGKILL)
            assert run.end() == -signal.SIGKILL
    with Running([*command, "--out", str(broken), "--resume"], tmp_path) as run:
        assert run.end() == 0, run.said()
    assert len(losses(whole)) == 18
    assert losses(broken) == losses(whole)
    first, second = weights(whole), weights(broken)
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_fork
@pytest.mark.slow
def test_two_processes_are_one_with_their_batch(tmp_path):
    options = [*QUICK, "--epochs", "3", "--set", "dropout=0", "--accumulate", "1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    alone, two = tmp_path / "alone", tmp_path / "two"
    with Running([*options, "--out", str(alone)], tmp_path) as run:
        assert run.end() == 0, run.said()
    done = subprocess.run([*torchrun, TINY, *options, "--batch-size", "2", "--out", two],
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(losses(alone)) == 9
    assert losses(two) == pytest.approx(losses(alone), rel=1e-5)
    assert losses(alone)[-1] < losses(alone)[0]
    first, second = weights(alone), weights(two)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-6)
