"""A detector that knows its answers, `bright` by name in tests with the fixture `here`: in each image it finds the
bright rectangle, with its mask."""

import json
from pathlib import Path

from PIL import Image
from tiny import torch

from boxops.cli import main
from boxops.models.builders import MODELS, detector
from boxops.models.common import Detector
from boxops.training.checkpoint import save

BOX = (8, 4, 24, 28)


class Bright(Detector):
    def __init__(self):
        super().__init__(None)
        self.label = torch.nn.Parameter(torch.ones(1))  # what it calls the object

    def forward(self, images, targets=None):
        return [self.find(image) for image in images]

    def find(self, image):
        mask = image.mean(0) > 0.5
        ys, xs = (mask.any(dim).nonzero() for dim in (1, 0))
        if not len(xs):
            none = torch.zeros(0)
            return {"boxes": torch.zeros(0, 4), "labels": none.long(), "scores": none,
                    "masks": torch.zeros(0, 1, *mask.shape)}  # fmt: skip
        box = torch.stack([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dim=1).float()
        return {"boxes": box, "labels": self.label.detach().long(), "scores": torch.tensor([0.9]),
                "masks": mask[None, None].float()}  # fmt: skip


@detector()
def bright(num_classes, backbone_weights):
    """For tests."""
    return Bright()


del MODELS["bright"]  # other tests list the models; the fixture `here` puts it back


def checkpoint(path, classes=("lamp",), label=1, **changes):
    model = bright(len(classes) + 1)
    torch.nn.init.constant_(model.label, label)
    weights = model.state_dict()
    save(Path(path), {"boxops": 1, "model": model.config, "classes": classes, "weights": weights, **changes})
    return str(path)


def picture(path, box=BOX, size=(40, 30)):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    image.paste("white", box)
    image.save(path)


def detect(*words):
    return main(["detect", "--checkpoint", "../model.pt", *map(str, words)])


def found(path="found.json"):
    return json.loads(Path(path).read_text())
