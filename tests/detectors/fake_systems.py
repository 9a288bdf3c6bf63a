"""Four systems that know nothing but take a known time: `rcnn_fake`, `sppnet_fake`, `fast_rcnn_fake`, and so on."""

import time

from tiny import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from boxops.models.builders import MODELS, detector
from boxops.models.common import IMAGENET, Detector, Stage

SECONDS = {"rcnn": 0.05, "sppnet": 0.03, "fast_rcnn": 0.015, "faster_rcnn": 0.005}  # of a call
SEARCH = 0.02
ITEMS = 5


class Search:
    """Proposals, slowly."""

    def __call__(self, image):
        time.sleep(SEARCH)
        return torch.tensor([[4.0, 4.0, 30.0, 30.0], [10.0, 10.0, 40.0, 40.0]])

    def prepare(self, *data, **options):
        pass


def keep_features(model, data, run):
    """A file of 1000 bytes an item."""
    done = len(list(run.folder.glob("features.*")))
    for i in run.track(range(done, ITEMS), ITEMS, done):
        time.sleep(model.pause)
        (run.folder / f"features.{i}").write_bytes(bytes(1000))


class Fake(Detector):
    pause = 0.0  # an item of its stage

    def __init__(self, system):
        super().__init__(GeneralizedRCNNTransform(64, 64, *IMAGENET))
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.system = system
        self.proposals = None if system == "faster_rcnn" else Search()
        if system in ("rcnn", "sppnet"):
            self.stages = (Stage("features", keep_features),)

    def losses(self, batch, targets):
        return {"loss": self.weight.square().sum()}

    def detections(self, batch):
        time.sleep(SECONDS[self.system])
        boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0]])
        return [{"boxes": boxes, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])} for _ in batch.image_sizes]


def builders():
    """By name, for MODELS."""

    def builder(system):
        def build(num_classes, backbone_weights, proposals: str = "grid", max_proposals: int = 2000):
            return Fake(system)

        def build_faster(num_classes, backbone_weights):
            return Fake(system)

        build = build_faster if system == "faster_rcnn" else build
        build.__name__, build.__doc__ = f"{system}_fake", "For tests."
        made = detector(training={"batch_size": 2, "epochs": 1})(build)
        del MODELS[build.__name__]  # other tests list the models
        return made

    return {f"{system}_fake": builder(system) for system in SECONDS}
