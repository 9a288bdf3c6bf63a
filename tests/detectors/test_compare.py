"""`boxops detect --compare`: what several detectors see, side by side."""

import re
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import bright
import numpy as np
import pytest
from bright import BOX, checkpoint, found, picture
from PIL import Image
from tiny import torch

from boxops.cli import compare, main
from boxops.cli.models import find_anew
from boxops.draw import captioned, colour, grid
from boxops.models.proposal_cache import packed
from boxops.models.proposals import Proposals, as_pixels


@pytest.fixture
def models(here):
    """Two more detectors above `here`: in b/ `lamp` is label 2, in c/ it is called bulb."""
    for name, classes, label in (("b", ("cat", "lamp"), 2), ("c", ("bulb",), 1)):
        (here.parent / name).mkdir()
        checkpoint(here.parent / name / "last.pt", classes, label)
    return ["../model.pt", "../b/last.pt", "../c/last.pt"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    from boxops.benchmarks import timing

    monkeypatch.setattr(timing, "warm_time", partial(timing.warm_time, seconds=0.005))


def detect(*words):
    return main(["detect", *map(str, words)])


@pytest.mark.parametrize(
    "words",
    [
        "--compare {models} x.png y.png --json found.json",
        "--compare {models} --json found.json x.png y.png",
        "--json found.json --compare {models} -- x.png y.png",
        "x.png y.png --compare {models} --json found.json",
        "x.png --json found.json --compare {models} y.png",
        "x.png --json found.json --compare ../model.pt y.png --compare ../b/last.pt ../c/last.pt",
        "*.png --compare {models} --json found.json",
        "--compare {models} . --json found.json",
        "--compare file://{here}/../model.pt ../b/last.pt ../c/last.pt file://{here}/x.png y.png --json found.json",
    ],
)
def test_checkpoints_and_images_in_any_order(here, models, capsys, words):
    """The JSON has a row for each image and detector, with the checkpoint's own labels."""
    picture("x.png"), picture("y.png", box=(0, 0, 0, 0))
    words = words.format(models=" ".join(models), here=here).split()
    assert detect(*words) == 0
    rows = found()
    assert [Path(row["image"]).name for row in rows] == ["x.png"] * 3 + ["y.png"] * 3
    assert [row["checkpoint"].partition("../")[2] for row in rows[:3]] == ["model.pt", "b/last.pt", "c/last.pt"]
    assert [(row["detections"][0]["class"], row["detections"][0]["label"]) for row in rows[:3]] == [
        ("lamp", 1), ("lamp", 2), ("bulb", 1)]  # fmt: skip
    assert all(row["detections"][0]["box"] == [*BOX] and "mask" in row["detections"][0] for row in rows[:3])
    assert all(row["detections"] == [] and row["model"] == "bright" and 0 < row["seconds"] < 1 for row in rows[3:])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6
    assert re.fullmatch(r".*x\.png: bright \(b\), [0-9.]+ ms: lamp 0.90", said[1])
    assert re.fullmatch(r".*y\.png: bright \(c\), [0-9.]+ ms: nothing found", said[5])


def test_picture_has_one_colour_a_class(here, models):
    picture("x.png")
    for _ in range(2):  # the second time over its own
        assert detect("--compare", *models, "x.png", "--out", "drawn.png") == 0
    with Image.open("drawn.png") as image:
        image.load()
    assert image.width == 3 * 640 + 2 * 6
    top, left = image.height - 480, 16 * BOX[0] + 1
    lamp, lamp_too, bulb = (image.getpixel((left + 646 * i, top + 256)) for i in range(3))  # on the boxes' left sides
    assert lamp == lamp_too == colour(1) and bulb == colour(3)  # lamp, cat, bulb


def test_threshold(here, models):
    picture("x.png")
    assert detect("--compare", *models, "x.png", "--json", "found.json", "--threshold", "0.95") == 0
    assert [row["detections"] for row in found()] == [[], [], []]


def test_folder_of_pictures(here, models):
    picture("a/x.png"), picture("a/y.jpg")
    assert detect("a", "--compare", *models[:2], "--out", "drawn") == 0
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["x.jpg", "y.jpg"]


def test_first_call_does_not_count(here, models, monkeypatch):
    picture("x.png")
    look, slept = bright.Bright.find, []

    def slow_at_first(self, image):
        time.sleep(0.02 if slept else 0.5)
        slept.append(self)
        return look(self, image)

    monkeypatch.setattr(bright.Bright, "find", slow_at_first)
    assert detect("--compare", models[0], "x.png", "--json", "found.json") == 0
    assert 0.02 <= found()[0]["seconds"] < 0.3 and len(slept) > 1


def test_proposals_are_found_anew(tmp_path):
    """Or else the time of an image that was proposed for before would be another one's."""
    proposals = Proposals("edge_boxes", cache=tmp_path / "cache")
    image = Image.new("RGB", (40, 30))
    image.paste("white", BOX)
    proposals.cache.put(proposals.key(as_pixels(image)), packed(np.float32([[1, 2, 30, 20]])))
    assert proposals(image).tolist() == [[1, 2, 30, 20]]
    find_anew(SimpleNamespace(proposals=proposals))
    assert proposals(image).tolist() != [[1, 2, 30, 20]]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--compare ../model.pt", "expected images, got none"),
        ("--compare x.png", "--compare: expected checkpoints, which end in .pt or .pth, got x.png"),
        ("x.png --compare ../model.pt --checkpoint ../model.pt", "--checkpoint: expected it without --compare"),
        ("x.png --compare ../model.pt --model ssd", "--model: expected it without --compare"),
        ("x.png --compare ../model.pt --set size=3", "--set: expected it without --compare"),
        ("clip.mp4 --compare ../model.pt", "--compare: expected images, got the video clip.mp4"),
        ("--compare ../model.pt x.png nothing.png", "nothing.png: expected an image or a folder, got no such file"),
        ("x.png --compare ../model.pt --out x.png", "--out: expected a file that is no input, got x.png"),
        ("x.png --compare ../model.pt copy.pt --out copy.pt", "--out: expected .jpg"),
        ("x.png --compare ../model.pt copy.pt --json copy.pt", "--json: expected a file that is no input, got copy.pt"),
        ("x.png --compare ../model.pt --out foreign.png", "--out: foreign.png exists and is not boxops' own"),
    ],
)
def test_bad_words(here, models, capsys, monkeypatch, words, text):
    picture("x.png"), picture("foreign.png"), Path("clip.mp4").touch()
    checkpoint("copy.pt")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    monkeypatch.setattr("boxops.cli.detect.open_checkpoint", lambda *_: pytest.fail("a model was read"))
    json = [] if "--json" in words else ["--json", "found.json"]
    assert detect(*words.split(), *json) == 2
    err = capsys.readouterr().err
    assert text in err and len(err.splitlines()) == 1, err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.parametrize("bad", ["bad.pt", "missing.pt", "other.pt"])
def test_an_unreadable_checkpoint_is_named(here, models, capsys, bad):
    picture("x.png"), Path("bad.pt").write_bytes(b"no checkpoint")
    torch.save({"epoch": 3}, "other.pt")
    assert detect("x.png", "--compare", *models, bad, "--json", "found.json") == 2
    err = capsys.readouterr().err
    assert bad in err and len(err.splitlines()) == 1, err
    assert not Path("found.json").exists()


def test_one_bad_image_among_many(here, models, capsys, monkeypatch):
    """The detector that failed is named; the JSON has nothing of that image."""
    picture("a.png"), picture("large.png", size=(80, 60)), Path("z.png").write_bytes(b"no image")
    look = bright.Bright.find

    def short_of_memory(self, image):
        if image.shape[-1] == 80 and self.label == 2:
            raise RuntimeError("not enough memory: you tried to allocate 10 bytes")
        return look(self, image)

    monkeypatch.setattr(bright.Bright, "find", short_of_memory)
    assert detect(".", "--compare", *models, "--json", "found.json", "--out", "drawn") == 1
    assert [row["image"] for row in found()] == ["a.png"] * 3
    assert [path.name for path in Path("drawn").iterdir()] == ["a.jpg"]
    out = capsys.readouterr().out
    assert "large.png: left out, ../b/last.pt: not enough memory" in out and "z.png: left out, expected an image" in out


def test_captions_tell_the_checkpoints_apart():
    names = ["rcnn", "ssd", "ssd", "fcos", "fcos"]
    paths = ["runs/r/last.pt", "runs/a/last.pt", "runs/b/last.pt", "runs/c/last.pt", "runs/c/best.pt"]
    assert compare.captions(names, paths) == ["rcnn", "ssd (a)", "ssd (b)", "fcos (c/last.pt)", "fcos (c/best.pt)"]
    assert compare.captions(["ssd"] * 2, ["last.pt"] * 2)[0].startswith("ssd (")


@pytest.mark.parametrize(
    ("panels", "ratio", "columns"),
    [
        (1, 1, 1),
        (2, 4 / 3, 2),
        (2, 4, 1),
        (3, 4 / 3, 3),
        (4, 4 / 3, 2),
        (5, 4 / 3, 3),
        (6, 4 / 3, 3),
        (6, 5, 2),
        (6, 0.2, 6),
    ],
)
def test_panels_are_as_large_as_they_can_be(panels, ratio, columns):
    assert compare.columns_of(panels, ratio) == columns


def test_no_caption_is_cut():
    """On a narrow picture the sheet is as wide as the caption; in a grid columns stay below one another."""
    narrow = Image.new("RGB", (60, 640))
    short, long = (captioned(narrow, [text, "1 object"]) for text in ("a", "faster_rcnn_mobilenet_v2_fpn"))
    assert short.width < 100 < long.width
    right = long.crop((long.width - 7, 0, long.width, long.height - 640)).convert("L")
    assert right.getextrema() == (255, 255)  # the text has ended
    sheet = grid([[short, long], [long, short]], gap=4)
    assert sheet.size == (2 * long.width + 4, 2 * long.height + 4)
    assert sheet.getpixel((long.width + 4, long.height - 1)) == (0, 0, 0)


@pytest.mark.parametrize(("seconds", "text"), [(0.0042, "4.2 ms"), (0.035, "35 ms"), (2.34, "2.3 s"), (47.0, "47.0 s")])
def test_duration(seconds, text):
    assert compare.duration(seconds) == text
