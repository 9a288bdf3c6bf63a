"""The trainer notices runs that have gone wrong: detections that do not depend on the image, losses that rise."""

from types import SimpleNamespace

import pytest
from tiny import torch

from boxops.data import open_dataset, transforms
from boxops.training import Options, Trainer
from boxops.training.collapse import Collapse

SIZES = [(40, 60), (80, 50), (64, 64)]  # height, width


def boxes_of(i, height, width, constant):
    """One box of the image: everywhere the same, in shares of its sides, or one that moves with i."""
    x, y = (0.2, 0.3) if constant else (0.07 * (i % 8), 0.05 * (i % 7))
    return torch.tensor([[x, y, x + 0.4, y + 0.6]]) * torch.tensor([width, height] * 2)


def records(count=20, constant=False):
    made = []
    for i in range(count):
        height, width = SIZES[i % 3]
        boxes = boxes_of(i, height, width, constant).numpy()
        made.append(SimpleNamespace(boxes=boxes, width=width, height=height))
    return SimpleNamespace(records=lambda: made)


class Fake(torch.nn.Module):
    """Detects a weak box elsewhere, and a sure one: always the same, the object, or none at all."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.calls = kind, 0

    def forward(self, images):
        found = []
        for image in images:
            height, width = image.shape[-2:]
            sure = boxes_of(self.calls, height, width, self.kind == "constant")
            weak = torch.tensor([[0.0, 0.0, 1.0 + self.calls % 5, 2.0]])
            boxes, scores = torch.cat([weak, sure]), torch.tensor([0.2, 0.6])
            if self.kind == "nothing" or (self.kind == "seldom" and self.calls % 3):
                boxes, scores = boxes[:0], scores[:0]
            found.append({"boxes": boxes, "scores": scores, "labels": scores.long()})
            self.calls += 1
        return found


def said(kind, data, count=12):
    lines = []
    model = Fake(kind)
    with Collapse(data, lines.append).watch(model):
        for i in range(0, count, 2):
            model([torch.zeros(3, *SIZES[(i + k) % 3]) for k in range(min(2, count - i))])
    assert not model._forward_hooks  # outside nobody looks
    return lines


def test_constant_detections_are_reported():
    (line,) = said("constant", records())
    assert "detections do not depend on the image" in line
    assert "(0.20, 0.30, 0.60, 0.90)" in line
    assert "lower lr" in line
    assert "\n" not in line


def test_no_detections_are_reported():
    (line,) = said("nothing", records())
    assert "no detections in any of 12" in line


@pytest.mark.parametrize(
    ("kind", "data", "count"),
    [
        ("good", records(), 12),
        ("seldom", records(), 20),  # detections in a third of the images
        ("constant", records(constant=True), 12),  # the objects all lie in one place
        ("constant", records(), 7),  # too few images
        ("nothing", records(), 7),
        ("good", records(0), 12),
    ],
)
def test_what_is_not_reported(kind, data, count):
    assert said(kind, data, count) == []


def epochs(*means, steps=10):
    lines = []
    collapse = Collapse(records(), lines.append)
    for epoch, mean in enumerate(means):
        for i in range(steps):
            collapse.add_step({"a": mean / 2, "b": mean * i / (steps - 1)})  # their sum's mean is mean
        collapse.end_epoch(epoch)
    return lines


def test_rising_losses_are_reported():
    (line,) = epochs(6.6, 6.0, 7.8)
    assert "the loss rises, from 6 to 7.8 in epoch 3" in line
    assert len(epochs(6.6, 8.9, 13)) == 2  # each epoch of them
    assert epochs(6.6, 6.0, 6.9, 5.0, 5.5) == []  # noise
    assert epochs(6.6, 60.0, steps=4) == []  # too few steps
    assert epochs(6.6) == []


class Learner(Fake):
    """What the trainer needs, with a loss that grows by a half in every epoch of 10 steps."""

    def __init__(self):
        super().__init__("constant")
        self.config, self.weight, self.steps = {"name": "fake"}, torch.nn.Parameter(torch.zeros(1)), 0

    def forward(self, images, targets=None):
        if not self.training:
            return super().forward(images)
        self.steps += 1
        return {"loss": self.weight.sum() * 0 + 1.5 ** ((self.steps - 1) // 10)}


def test_a_run_says_both_and_goes_on(tmp_path, capsys):
    data = open_dataset("shapes", length=10, size=64, masks=False, keypoints=False, transform=transforms.train("none"))
    options = Options(epochs=2, batch_size=1, workers=0, device="cpu", pictures=0)

    def evaluate(model, epoch):
        model([data[i][0] for i in range(10)])
        return {"AP": 0.0}

    trainer = Trainer(Learner(), data, options, tmp_path, evaluate)
    trainer.run()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert [line.split(":")[1].split(",")[0].strip() for line in told] == [
        "detections do not depend on the image",
        "the loss rises",
        "detections do not depend on the image",
    ]
    assert trainer.step == 20
