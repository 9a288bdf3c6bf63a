"""A tiny SSD, `tiny_ssd` by name; run as a script, this is the boxops command that knows it."""

import sys

import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
from torch import nn  # noqa: E402

from boxops.models.builders import detector  # noqa: E402
from boxops.models.ssd import SSD, Settings  # noqa: E402

SETTINGS = {"size": 64, "steps": (8, 16), "scales": (0.2, 0.4, 0.7), "aspect_ratios": ((2,), (2,))}


class Backbone(nn.Module):
    """Two maps, of 8 x 8 and 4 x 4 cells, without batch norm: the same whatever else is in the batch."""

    out_channels = (16, 16)

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 16, 2, 2), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(16, 16, 1)
        )
        self.coarse = nn.Conv2d(16, 16, 2, 2)

    def forward(self, images):
        fine = self.fine(images)
        return {"0": fine, "1": self.coarse(fine.relu())}


@detector(Settings(**SETTINGS))
def tiny_ssd(num_classes, backbone_weights, settings, dropout=0.1):
    """For tests."""
    backbone = Backbone()
    backbone.fine[4].p = dropout
    return SSD(backbone, num_classes, settings)


if __name__ == "__main__":
    from boxops.cli import main

    torch.set_num_threads(1)
    sys.exit(main())
