"""Detectors learn: a shortened run on real images, from the command line, as the documentation's full ones."""

import csv

import pytest

from boxops.cli import main

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))

pytestmark = pytest.mark.usefixtures("one_thread")
FLOOR = 0.7  # AP50 on the test images after 100 steps: 0.85 was seen; 15 epochs reach 0.9


def boxops(*words):
    assert main(list(map(str, words))) == 0


@pytest.mark.slow
def test_ssd_learns_blood_cells(data, tmp_path, capsys):
    out = tmp_path / "ssd"
    backbone = data / "backbones" / "mobilenet_v2-b0353104.pth"
    bccd = ["--data", "voc", "--root", data / "bccd"]
    recipe = ["--epochs", 2, "--samples", 200, "--eval-every", 0, "--workers", 1]  # the rest by default
    boxops("train", "ssd", *bccd, "--backbone-weights", backbone, *recipe, "--out", out)
    with open(out / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2 * 50
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    with open(out / "metrics.csv") as file:
        (metrics,) = csv.DictReader(file)
    assert float(metrics["box_AP50"]) > FLOOR
    assert (out / "samples" / "epoch_002.jpg").stat().st_size > 10_000

    capsys.readouterr()
    boxops("detect", "--checkpoint", out / "last.pt", out / "image.jpg", "--out", tmp_path / "found.jpg")
    assert "RBC 0." in capsys.readouterr().out
    assert (tmp_path / "found.jpg").stat().st_size > 10_000
