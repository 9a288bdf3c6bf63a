"""`boxops study classification`: its loss, its images, its accuracy; the table is that of `boxops study tricks`."""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import torch
from torch import nn

from boxops.cli import main
from boxops.studies import classification as study
from boxops.studies import classifier
from boxops.training.checkpoint import load

COLOURS = {"blue": (30, 40, 220), "green": (30, 200, 40), "red": (220, 30, 40)}


def pictures(folder, counts, size=(40, 24)):
    """Noisy images of one colour a class, no two the same."""
    random = np.random.default_rng(len(str(folder)))
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = random.integers(-20, 20, (size[1], size[0], 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{i}.png")
    return folder


def arguments(root, **other):
    given = {"data": "folder", "root": str(root), "split": None, "on_bad": "raise", "size": 32, "per_class": None}
    return argparse.Namespace(**given | other)


class Linear(nn.Module):
    """A network that is easily computed: the means of the colours, times a matrix."""

    def __init__(self, classes=3):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(classes, 3))

    def forward(self, images):
        return images.mean((2, 3)) @ self.matrix.T


@pytest.mark.parametrize(("eps", "alpha"), [(0.0, 0.0), (0.1, 0.0), (0.0, 2.0), (0.1, 2.0)])
def test_loss(eps, alpha):
    """That of the lecture's formulas: labels 1 - eps and eps / (n - 1); lambda y_i + (1 - lambda) y_j of the images
    lambda x_i + (1 - lambda) x_j."""
    torch.manual_seed(1)
    network = Linear(4)
    model = classifier.Classifier(network, 4, {}, eps, alpha).train()
    images, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 3, 1, 1, 2])
    targets = [{"labels": label} for label in labels]
    torch.manual_seed(7)
    loss = model(list(images), targets)["classification"]
    wanted = torch.full((5, 4), eps / 3).scatter(1, labels[:, None], 1 - eps)
    if alpha:
        torch.manual_seed(7)
        share = torch._sample_dirichlet(torch.tensor([[alpha, alpha]]))[0, 0]
        shares = [share, 1 - share]  # whichever of the two is the first one's
    else:
        shares = [torch.ones(())]
    losses = []
    for share in shares:
        x = share * images + (1 - share) * images.roll(1, 0)
        y = share * wanted + (1 - share) * wanted.roll(1, 0)
        losses.append(-(network(x).log_softmax(1) * y).sum(1).mean().item())
    assert min(abs(loss.item() - some) for some in losses) < 1e-5
    model.eval()
    torch.testing.assert_close(model(list(images), targets), network(images))
    torch.testing.assert_close(model(list(images)), network(images))


def test_folders(tmp_path):
    """Split as the folders say, else by a fixed rule; each image has the class of its folder."""
    root = pictures(tmp_path / "all", {"blue": 4, "green": 3, "red": 5})
    learn, held_out = classifier.open_data(arguments(root, split="0.5"), 0)
    assert learn.classes == ["blue", "green", "red"] and (len(learn), len(held_out)) == (6, 6)
    for part in (learn, held_out):
        for image, target in (part[i] for i in range(len(part))):
            assert image.shape == (3, 32, 32)
            colour = image.mean((1, 2))  # normalised; blue is the last channel
            assert int(target["labels"]) == 2 - int(colour.argmax())
    twice = [learn[0][0], learn[0][0]]
    assert torch.equal(*twice)
    learn.set_epoch(1)
    assert not torch.equal(twice[0], learn[0][0])
    shown = held_out[0][0]
    held_out.set_epoch(1)
    assert torch.equal(shown, held_out[0][0])
    parts = tmp_path / "parts"
    pictures(parts / "train", {"blue": 2, "red": 3})
    pictures(parts / "valid", {"blue": 1, "red": 1})
    assert [len(part) for part in classifier.open_data(arguments(parts), 0)] == [5, 2]
    assert [len(part) for part in classifier.open_data(arguments(parts, split="0.6"), 0)] == [3, 2]


def test_at_most_of_each_class(tmp_path):
    root = tmp_path / "parts"
    pictures(root / "train", {"blue": 7, "red": 2})
    pictures(root / "test", {"blue": 2, "red": 2})
    learn, held_out = classifier.open_data(arguments(root, per_class=3), 0)
    labels = [int(learn[i][1]["labels"]) for i in range(len(learn))]
    assert labels == [0, 0, 0, 1, 1] and len(held_out) == 4
    assert [learn.data.image_path(i).name for i in learn.chosen[:3]] == ["blue_0.png", "blue_3.png", "blue_6.png"]


def test_accuracy(tmp_path):
    """Against counting: of 4 blue images 3 are right, of 2 red ones 1."""
    root = pictures(tmp_path / "all", {"blue": 4, "red": 2})
    held_out = classifier.Pictures(classifier.Folder(root), 16, False)

    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.answers = nn.Parameter(torch.zeros(1)), iter([0, 1, 0, 0, 1, 0])

        def forward(self, images):
            return nn.functional.one_hot(torch.tensor([next(self.answers) for _ in images]), 2).float()

    told = classifier.accuracy(held_out, 4, 0, Told(), 0)
    assert told == {"accuracy": pytest.approx(4 / 6), "class_accuracy": pytest.approx((3 / 4 + 1 / 2) / 2)}


def test_weights_but_for_the_last_layer(tmp_path):
    torch.manual_seed(0)
    whole = classifier.backbones.classifier("squeezenet1_1", None)
    assert not [name for name, part in whole.named_modules() if isinstance(part, nn.Linear)]
    whole = classifier.backbones.classifier("mobilenet_v2", None)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    args = arguments("x", model="mobilenet_v2", weights=str(tmp_path / "weights.pth"))
    model = classifier.build(args, 3, 0.1, 0.0, seed=5)
    given, taken = whole.state_dict(), model.backbone.state_dict()
    other = [name for name in given if given[name].shape != taken[name].shape or not given[name].equal(taken[name])]
    assert other == ["classifier.1.weight", "classifier.1.bias"] and taken[other[0]].shape == (3, 1280)
    again = classifier.build(args, 3, 0.1, 0.0, seed=5).backbone.state_dict()
    assert all(taken[name].equal(again[name]) for name in taken)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--model resnet9000", "--model: expected a classifier of torchvision, alexnet, "),
        (
            "--model googlenet --size 96",
            "--model: expected a classifier with one output in training, got googlenet",
        ),
        ("--model vit_b_16", "--size: expected one that vit_b_16 takes, got 32"),
        ("--seeds 0", "--seeds: expected 1 or more, got 0"),
        ("--per-class 0", "--per-class: expected 1 or more, got 0"),
        ("--size 0", "--size: expected 1 or more, got 0"),
        ("--split half", "--split: expected a share to learn from, between 0 and 1, got half"),
        ("--weights none.pth", "none.pth"),
        ("--root empty", "--root: "),
        ("--images all", "--images: expected it with annotated images, got folders of images by class in all"),
        ("--root nowhere", "nowhere"),
        ("--root notes --data folder", "--root: expected folders of images by class, got notes"),
    ],
)
def test_bad_words(tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "all", {"blue": 2, "red": 2})
    for folder in ("empty", "notes/blue"):
        Path(folder).mkdir(parents=True)
    Path("notes/blue/a.md").write_text("no image")
    given = ["--root", "all"] * ("--root" not in words) + ["--size", "32"] * ("--size" not in words)
    assert main(["study", "classification", *given, *words.split(), "--workers", "0", "--out", "out"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("boxops study: ") and text in line
    assert not Path("out/classification.csv").exists()


def test_study(tmp_path, monkeypatch, capsys):
    """Real runs, on images whose colour tells the class; stopped on the way, it goes on and gives the same table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    pictures(tmp_path / "all" / "train", {"blue": 4, "green": 4, "red": 4})
    pictures(tmp_path / "all" / "val", {"blue": 2, "green": 2, "red": 2})
    monkeypatch.setattr(classifier.backbones, "classifier", lambda name, norm, num_classes: Linear(num_classes))
    words = ["study", "classification", "--root", "all", "--size", "16", "--batch-size", "4", "--epochs", "4", "--lr",
             "0.5", "--seeds", "2", "--device", "cpu", "--workers", "0"]  # fmt: skip
    assert main([*words, "--out", "whole"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[:-1])) <= 80 and "…" not in said
    found = json.loads(Path("whole/classification.json").read_text())
    for row, runs in found["runs"].items():
        assert list(runs) == ["0", "1"] and all(run["steps"] == 12 for run in runs.values())
        checkpoint = load(Path("whole", f"{row}_0", "last.pt"))
        model, options = checkpoint["model"], checkpoint["options"]
        place = list(study.ROWS).index(row)
        assert options["schedule"] == ("cosine" if place else "multistep")
        assert (model["smoothing"], model["alpha"]) == (0.1 * (place > 1), 0.2 * (place > 2))
    assert found["runs"]["baseline"]["0"]["accuracy"] == 1
    with open("whole/classification.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == list(study.ROWS) and rows[3]["ResNet-50-D"] == "0.7915"
    assert float(rows[0]["accuracy 1"]) == found["runs"]["baseline"]["1"]["accuracy"]

    def stop(*_, seen=[]):  # noqa: B006
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return classifier_accuracy(*_)

    classifier_accuracy = classifier.accuracy
    monkeypatch.setattr(classifier, "accuracy", stop)
    assert main([*words, "--out", "stopped"]) == 130
    assert {row: list(runs) for row, runs in json.loads(Path("stopped/classification.json").read_text())["runs"].items()
            if runs} == {"baseline": ["0"], "cosine": ["0"]}  # fmt: skip
    log = Path("stopped/label_smoothing_0/log.csv").read_text()  # all steps are done
    assert main([*words, "--out", "stopped", "--resume"]) == 0
    assert Path("stopped/label_smoothing_0/log.csv").read_text() == log
    assert Path("stopped/classification.csv").read_text() == Path("whole/classification.csv").read_text()


@pytest.mark.slow
def test_quick_study(tmp_path, monkeypatch):
    """MobileNetV2 on generated shapes."""
    monkeypatch.chdir(tmp_path)
    assert main(["study", "classification", "--quick", "--workers", "0", "--device", "cpu", "--out", "out"]) == 0
    found = json.loads(Path("out/classification.json").read_text())
    assert list(found["runs"]) == list(study.ROWS)
    assert all(0 <= run["0"]["class_accuracy"] <= 1 for run in found["runs"].values())
