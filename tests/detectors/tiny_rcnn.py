"""A tiny R-CNN, `tiny_rcnn` by name, with a grid of boxes as its proposals; run as a script, this is the boxops
command that knows it."""

import sys

from tiny import torch
from torch import nn

from boxops.models.backbones import OneLevel
from boxops.models.builders import detector
from boxops.models.rcnn import RCNN, Settings
from boxops.models.roi_heads import TwoMLPHead


class Grid:
    """Proposals for tests: boxes of two sizes all over the image; no OpenCV."""

    def __call__(self, image):
        width, height = image.size if hasattr(image, "size") and not callable(image.size) else image.shape[:0:-1]
        boxes = [
            [x, y, min(x + side, width), min(y + side, height)]
            for side in (16, 28)
            for y in range(0, height - side // 2, 12)
            for x in range(0, width - side // 2, 12)
        ]
        return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)

    def prepare(self, *data, **options):
        pass


NUMBERS = {"min_size": 64, "max_size": 64, "crop_size": 16, "context": 2, "svm_batch": 50, "chunk": 40}


@detector(Settings(**NUMBERS), training={"batch_size": 2, "lr": 0.01, "eval_every": 0})
def tiny_rcnn(num_classes, backbone_weights, settings):
    """For tests."""
    body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
    head = TwoMLPHead(8 * 16, 12)
    return RCNN(OneLevel(body, 8), head, num_classes, settings, proposals=Grid())


if __name__ == "__main__":
    from boxops.cli import main

    torch.set_num_threads(1)
    sys.exit(main())
