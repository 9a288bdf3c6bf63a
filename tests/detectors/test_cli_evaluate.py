"""`boxops evaluate` of checkpoints, of models with weights, and of result files."""

import json
import re
from pathlib import Path

import bright
import pytest
from bright import BOX, picture

from boxops.cli import main

ENTRY = {"image_id": 1, "category_id": 7, "score": 0.9, "bbox": [8, 4, 16, 24]}


def folder(*names, label=0):
    """COCO's, with an object of the class names[label] in each of two images."""
    picture("data/images/1.png"), picture("data/images/2.png")
    objects = [
        {"id": i, "image_id": i, "category_id": 7 + label, "bbox": ENTRY["bbox"], "area": 384, "iscrowd": 0}
        for i in (1, 2)
    ]
    categories = [{"id": 7 + k, "name": name} for k, name in enumerate(names)]
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (1, 2)]
    truth = {"images": images, "annotations": objects, "categories": categories}
    Path("data/instances.json").write_text(json.dumps(truth))
    Path("results.json").write_text(json.dumps([ENTRY, {**ENTRY, "image_id": 2}]))


def evaluate(*words):
    return main(["evaluate", *map(str, words), "--json", "ap.json"])


def numbers():
    return json.loads(Path("ap.json").read_text())


COCO = ("--data", "coco", "--root", "data", "--workers", 0)


@pytest.mark.parametrize(
    ("known", "label", "named"),
    [
        (["lamp"], 1, ""),
        (["sun", "lamp", "[red]moon"], 2, "only the model has 'sun', '[red]moon': detections of those do not count"),
        (["sun", "lamp"], 1, "only the model has 'sun'"),
    ],
)
def test_classes_of_a_checkpoint(here, capsys, known, label, named):
    folder("lamp")
    bright.checkpoint("model.pt", known, label)
    assert evaluate("--checkpoint", "model.pt", *COCO, "--batch-size", 2) == 0
    out = capsys.readouterr().out
    assert named in out and ("only" in out) == bool(named)
    assert numbers()["box_AP"] == numbers()["box_AP/lamp"] == float(known[label - 1] == "lamp")


def test_order_of_classes(here):
    """The checkpoint has another order than the file."""
    folder("sun", "lamp", label=1)
    bright.checkpoint("model.pt", ["lamp", "sun"])
    assert evaluate("--checkpoint", "model.pt", *COCO) == 0
    assert numbers()["box_AP"] == 1


def test_model_and_weights(here, capsys):
    folder("lamp")
    bright.checkpoint("model.pt")
    assert evaluate("--model", "bright", "--weights", "model.pt", "--set", "num_classes=2", *COCO) == 0
    assert numbers()["box_AP"] == 1
    folder("cat", "person", label=1)  # 91 classes are COCO's, by their names: label 1 is person
    assert evaluate("--model", "bright", "--weights", "model.pt", *COCO) == 0
    assert numbers()["box_AP"] == 1
    assert "only the model has 'bicycle', 'car', " in capsys.readouterr().out


def test_results(here, capsys):
    folder("lamp", "sun")
    files = ("--results", "results.json", "--annotations", "data/instances.json")
    assert evaluate(*files) == 0
    assert numbers()["box_AP"] == 1 and "box_AP/sun" in numbers()
    assert re.search(r"box:\s+AP +AP50", capsys.readouterr().out)
    assert evaluate(*files, "--metric", "voc2007") == 0
    assert numbers() == {"VOC_AP": 1, "VOC_AP/lamp": 1, "VOC_AP/sun": -1}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--checkpoint other.pt {coco}", "got other names: only the model has 'sun'; only the data has 'lamp'"),
        ("--model bright --weights model.pt --set num_classes=9 {coco}", "a model of 2 classes .*, got one of 9"),
        ("--model bright {coco}", "--model: expected --weights FILE_OR_URL with it"),
        ("--checkpoint model.pt --model bright {coco}", "expected either --checkpoint FILE or --model NAME"),
        ("{coco}", "expected either --checkpoint FILE or --model NAME --weights FILE_OR_URL"),
        ("--checkpoint model.pt", "--data or --root: expected a kind of shapes, .*, got neither"),
        ("--checkpoint model.pt {coco} --annotations x.json", "expected annotations in x.json, got no such file"),
        ("--checkpoint model.pt {coco} --batch-size 0", "--batch-size: expected 1 or more, got 0"),
        ("--checkpoint model.pt {coco} --workers -1", "--workers: expected 0 or more, got -1"),
        ("--results results.json", "--results: expected --annotations FILE with it, got none"),
        ("--results results.json --checkpoint model.pt", "--annotations alone with it, got --checkpoint too"),
        ("--results no.json --annotations data/instances.json", "no.json"),
        ("--results bad.json --annotations data/instances.json", "bad.json, entry 1: expected category_id"),
        ("--results data/instances.json --annotations results.json", "results.json: expected lists of images"),
        ("--results model.pt --annotations data/instances.json", "model.pt: expected json"),
    ],
)
def test_errors(here, capsys, words, text):
    folder("lamp")
    bright.checkpoint("model.pt")
    bright.checkpoint("other.pt", ["sun"])
    Path("bad.json").write_text(json.dumps([{**ENTRY, "category_id": 1}]))
    assert evaluate(*words.format(coco=" ".join(map(str, COCO))).split()) == 2
    err = capsys.readouterr().err
    assert re.search(text, err), err
    assert len(err.splitlines()) == 1 and err.startswith("boxops evaluate: ")
    assert not Path("ap.json").exists()
    assert BOX == (8, 4, 24, 28)  # what ENTRY has as x, y, width, height
