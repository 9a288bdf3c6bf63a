"""Detectors learn: a shortened run on real images, from the command line, as the documentation's full ones."""

import csv
import subprocess
import sys

import pytest

pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
FLOOR = 0.7  # AP50 on the test images after 100 steps: 0.85 was seen; 15 epochs reach 0.9


def boxops(folder, *arguments):
    """The command line, away from the sources, which may not be what is installed."""
    command = [sys.executable, "-m", "boxops", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_ssd_learns_blood_cells(data, tmp_path):
    out = tmp_path / "ssd"
    backbone = data / "backbones" / "mobilenet_v2-b0353104.pth"
    bccd = ["--data", "voc", "--root", data / "bccd"]
    recipe = ["--epochs", 2, "--samples", 200, "--eval-every", 0, "--workers", 1]  # the rest by default
    boxops(tmp_path, "train", "ssd", *bccd, "--backbone-weights", backbone, *recipe, "--out", out)
    with open(out / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2 * 50
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    with open(out / "metrics.csv") as file:
        (metrics,) = csv.DictReader(file)
    assert float(metrics["box_AP50"]) > FLOOR
    assert (out / "samples" / "epoch_002.jpg").stat().st_size > 10_000

    told = boxops(
        tmp_path, "detect", "--checkpoint", out / "last.pt", out / "image.jpg", "--out", tmp_path / "found.jpg"
    )
    assert "RBC 0." in told
    assert (tmp_path / "found.jpg").stat().st_size > 10_000
