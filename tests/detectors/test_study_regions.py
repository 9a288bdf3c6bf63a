"""`boxops study regions`: on systems that take a known time, and once on the real ones."""

import csv
import json
import os
import re
import signal
from pathlib import Path

import fake_systems
import pytest
from commands import Running, needs_fork
from fake_systems import SEARCH, SECONDS, Fake
from PIL import Image
from tiny import torch

from boxops.cli import main
from boxops.models import MODELS
from boxops.studies import regions
from boxops.studies import regions_report as report
from boxops.training.logs import training_seconds

OPTIONS = {"size": 48, "length": 4, "max_objects": 2}
WORDS = ["study", "regions", "--backbone", "fake", "--workers", "0", "--device", "cpu", "--test-images", "2", "--steps",
         "2", *(word for item in OPTIONS.items() for word in ("--data-option", "{}={}".format(*item)))]  # fmt: skip
SYSTEMS = list(SECONDS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name, build in fake_systems.builders().items():
        monkeypatch.setitem(MODELS, name, build)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(*words):
    return main([*WORDS, "--out", "out", *map(str, words)])


def results():
    return json.loads(Path("out/regions.json").read_text())


def test_table_files_and_runs(here, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert study("--max-proposals", 7) == 0
    said = capsys.readouterr()
    lines = [line.rstrip() for line in said.out.splitlines() if not line.startswith(("done;", "wrote"))]
    assert max(map(len, lines)) <= 80
    for name in report.NAMES.values():
        assert sum(line.startswith(f" {name} ") for line in lines) == 1
    assert "84 h" in said.out and "25.5 h" in said.out and "0.32 s" in said.out and "…" not in said.out
    told = results()
    for system in SYSTEMS:
        found = told["systems"][system]
        search = SEARCH if system != "faster_rcnn" else 0
        assert SECONDS[system] + search <= found["test_seconds"]["with"] < SECONDS[system] + search + 0.5
        given = found["test_seconds"]["without"]
        assert given is None if system == "faster_rcnn" else SECONDS[system] <= given < SECONDS[system] + 0.015
        features = 5000 if system in ("rcnn", "sppnet") else 0
        checkpoints = sum(file.stat().st_size for file in Path("out", system).glob("*.pt"))
        assert found["disk"] == {"features": features, "checkpoints": checkpoints}
        assert found["machine"]["packages"]["torch"] == torch.__version__
        assert found["training_seconds"] == training_seconds(Path("out", system)) > 0
        with open(f"out/{system}/metrics.csv") as file:
            assert found["AP50"] == float(list(csv.DictReader(file))[-1]["box_AP50"])
        assert ("max_proposals=7" in found["command"]) == (system != "faster_rcnn")
    with open("out/regions.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["system"] for row in rows] == SYSTEMS
    assert float(rows[0]["with_seconds"]) == told["systems"]["rcnn"]["test_seconds"]["with"]
    assert float(rows[2]["training_papers"]) == 8.75 * 3600 and rows[3]["without_seconds"] == ""
    with Image.open("out/regions.png") as image:
        assert image.width > 1000
    picture = Path("out/regions.svg").read_text()
    assert picture.startswith("<?xml") and picture.rstrip().endswith("</svg>")
    assert "84 h" in report.markdown(told) and report.markdown(told).count("\n| ") == 5


def test_order_is_measured(here, monkeypatch):
    """It is that of the times, whatever it was in the papers."""
    monkeypatch.setattr(fake_systems, "SECONDS", dict(zip(SYSTEMS, [0.005, 0.03, 0.05, 0.1], strict=True)))
    assert study() == 0
    times = [found["test_seconds"]["with"] for found in results()["systems"].values()]
    assert times == sorted(times)


@needs_fork
def test_a_killed_study_goes_on(here, heard, capsys, monkeypatch):
    """Killed amid the stage of the second system: the first is not done again, and no time is lost."""
    monkeypatch.setattr(Fake, "pause", 0.3)
    items = Path("out/sppnet/stages.csv")
    with Running([*WORDS, "--out", "out"], here) as running:
        running.wait_for_rows(items, 2)
        os.kill(running.pid, signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
    assert list(results()["systems"]) == ["rcnn"]
    before, lasted = (
        {p: p.stat().st_mtime_ns for p in Path("out/rcnn").rglob("*")},
        training_seconds(Path("out/sppnet")),
    )
    first = results()["systems"]["rcnn"]
    assert lasted > 0.6 and 0 < len(list(Path("out/sppnet/stages").rglob("features.*"))) < 5
    assert study() == 2
    assert "--out: out has a study: --resume goes on with it" in capsys.readouterr().err
    assert study("--resume") == 0
    assert "R-CNN: done before" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in Path("out/rcnn").rglob("*")} == before
    told = results()["systems"]
    assert told["rcnn"] == first and list(told) == SYSTEMS
    left = 5 - sum(1 for line in items.read_text().splitlines()[1:] if float(line.split(",")[-1]) <= lasted)
    assert told["sppnet"]["training_seconds"] >= lasted + 0.3 * left
    assert study("--resume") == 0  # all is done
    assert results()["systems"] == told


@needs_fork
def test_a_stop_says_how_to_go_on(here, heard, monkeypatch):
    monkeypatch.setattr(Fake, "pause", 0.3)
    with Running([*WORDS, "--out", "out"], here) as running:
        running.wait_for_rows(Path("out/rcnn/stages.csv"), 1)
        os.kill(running.pid, signal.SIGTERM)
        assert running.end() == 128 + signal.SIGTERM
    assert "go on with: boxops study regions" in running.said() and "Traceback" not in running.said()
    assert results()["systems"] == {}


def test_resume_with_other_options(here, capsys):
    assert study() == 0
    for words, text in (
        (["--seed", "1"], "--seed 0, got 1"),
        (["--steps", "faster_rcnn=3"], "--steps [[None, 2]], got [[None, 2], ['faster_rcnn', 3]]"),
        (["--test-images", "3"], "--test-images 2, got 3"),
    ):
        capsys.readouterr()
        assert study("--resume", *words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--resume: expected the options of out/regions.json, {text}" in line


def test_overwriting(here, monkeypatch):
    """A new study over an old one: its runs begin anew, also those that a stop came before."""
    assert study() == 0
    began = {system: Path("out", system, "last.pt").stat().st_mtime_ns for system in SYSTEMS}
    with monkeypatch.context() as patch:
        patch.setitem(MODELS, "fast_rcnn_fake", lambda *_, **__: pytest.fail("unreached"))
        patch.setattr(report, "write", None)
        patch.setattr("boxops.studies.regions.measure", _stop_at("fast_rcnn", began))
        assert study("--overwrite", "--seed", 1) == 130
    assert list(results()["systems"]) == ["rcnn"]
    assert study("--resume", "--seed", 1) == 0
    for system in SYSTEMS:
        last = Path("out", system, "last.pt")
        assert last.stat().st_mtime_ns > began[system]
        assert torch.load(last)["options"]["seed"] == 1


def _stop_at(system, began):
    def stop(args, out, measure=regions.measure):
        if out.name == "sppnet":
            raise KeyboardInterrupt
        return measure(args, out)

    return stop


@pytest.mark.parametrize("name", ["regions.csv", "regions.json", "regions.png"])
def test_foreign_files_stay(here, capsys, name):
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    assert study() == 2
    err = capsys.readouterr().err
    assert f"--out: out/{name} exists and is not boxops' own" in err and len(err.splitlines()) == 1
    assert [path.name for path in Path("out").iterdir()] == [name] and Path("out", name).read_text() == "mine"


def test_other_runs_stay(here, capsys):
    Path("out/sppnet").mkdir(parents=True)
    Path("out/sppnet/last.pt").write_bytes(b"mine")
    assert study() == 2
    assert "--out: out/sppnet has a run" in capsys.readouterr().err
    assert Path("out/sppnet/last.pt").read_bytes() == b"mine" and len(list(Path("out").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--backbone resnet50", "--backbone: expected one of .*fake.*, got 'resnet50'"),
        ("--test-images 0", "--test-images: expected 1 or more, got 0"),
        ("--max-proposals 0", "--max-proposals: expected 1 or more, got 0"),
        ("--resume --overwrite", "--overwrite: begins anew, but --resume goes on"),
        ("--data voc", "--root: expected the folder of the data for --data voc, got none"),
        ("--root nowhere", "nowhere"),
    ],
)
def test_bad_words(here, capsys, words, text):
    assert study(*words.split()) == 2
    err = capsys.readouterr().err
    assert re.search(text, err), err
    assert not Path("out/regions.json").exists() or not results()["systems"]


def test_bad_steps(capsys):
    for word in ("0", "few", "ssd=3", "rcnn=-1"):
        with pytest.raises(SystemExit):
            main(["study", "regions", "--steps", word])
        assert "expected N or SYSTEM=N with a system of rcnn, sppnet" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.0042, "4.2 ms"), (0.32, "0.32 s"), (47, "47 s"), (100, "1.67 min"), (8.75 * 3600, "8.75 h")],
)
def test_span(seconds, text):
    assert report.span(seconds) == text


@pytest.mark.slow
def test_quick_study(tmp_path, monkeypatch, one_thread):
    """The real systems. That their times fall in order is for the study: on a busy machine no test can tell."""
    monkeypatch.chdir(tmp_path)
    assert main(["study", "regions", "--quick", "--workers", "0", "--out", "out"]) == 0
    found = results()["systems"]
    assert all(found[system]["test_seconds"]["with"] > 0 for system in SYSTEMS)
    assert all(found[system]["test_seconds"]["without"] > 0 for system in SYSTEMS[:3])
    assert all(found[system]["proposals"] > 50 for system in SYSTEMS[:3])
    assert found["rcnn"]["disk"]["features"] > 1e5 < found["sppnet"]["disk"]["features"]
    assert found["fast_rcnn"]["disk"]["features"] == found["faster_rcnn"]["disk"]["features"] == 0
    assert all(some["training_seconds"] > 0 and 0 <= some["AP50"] <= 1 for some in found.values())
    assert {path.name for path in Path("out").iterdir()} == {*SYSTEMS, *regions.FILES}
    checkpoints = [f"out/{system}/last.pt" for system in SYSTEMS]
    assert main(["detect", "--compare", *checkpoints, "out/rcnn/image.jpg", "--out", "drawn.png"]) == 0
