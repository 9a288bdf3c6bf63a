"""SPP-net on a tiny network: its pyramid against NumPy and R-CNN's features, its scales, and what learns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import scene, torch
from tiny_rcnn import Grid
from torch import nn
from torchvision.models.detection.image_list import ImageList

import boxops
from boxops import models
from boxops.models.backbones import OneLevel
from boxops.models.common import GroundTruth
from boxops.models.rcnn import RCNN
from boxops.models.rcnn import Settings as OfRCNN
from boxops.models.roi_heads import TwoMLPHead
from boxops.models.sppnet import Settings, SPPNet, pyramid

BINS = (6, 3, 2, 1)


def backbone(norm=False):
    layers = [nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 5, 4, 4)] + [nn.BatchNorm2d(5)] * norm
    return OneLevel(nn.Sequential(*layers), 5)


def sppnet(norm=False, **numbers):
    torch.manual_seed(0)
    chosen = Settings(**{"scales": (64, 96, 128), "max_size": 256, "region_size": 40, **numbers})
    head = TwoMLPHead(5 * sum(n * n for n in chosen.bins), 12)
    return SPPNet(backbone(norm), head, 5, chosen, proposals=Grid())


def slow(features, box, bins, stride):
    """Appendix A, cell by cell: the box's cells, then the largest value of every bin and channel."""
    height, width = features.shape[1:]
    half_up = lambda value: int(np.floor(value + 0.5)) if value >= 0 else -int(np.floor(-value + 0.5))  # noqa: E731
    x1, y1, x2, y2 = [half_up(side / stride) for side in box[:2]] + [half_up(side / stride - 1) for side in box[2:]]
    w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    rows = []
    for n in bins:
        pooled = np.zeros((len(features), n, n))
        for i in range(n):
            for j in range(n):
                top, bottom = (int(np.clip(y1 + side, 0, height)) for side in (i * h // n, -(-(i + 1) * h // n)))
                left, right = (int(np.clip(x1 + side, 0, width)) for side in (j * w // n, -(-(j + 1) * w // n)))
                cells = features[:, top:bottom, left:right]
                if cells.size:
                    pooled[:, i, j] = cells.max(axis=(1, 2))
        rows.append(pooled.ravel())
    return np.concatenate(rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([(6, 3, 2, 1), (1,), (4, 2)]))
def test_the_pyramid_is_numpys(seed, bins):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, 9, 13, generator=generator)
    corners = torch.rand(2, 6, 2, 2, generator=generator).sort(dim=2).values * torch.tensor([13.0, 9.0]) * 16
    boxes = [some.flatten(1) for some in corners]
    found = pyramid(features, boxes, bins, 1 / 16)
    expected = [slow(features[b].numpy(), box, bins, 16) for b in range(2) for box in boxes[b].numpy()]
    assert found.shape == (12, 3 * sum(n * n for n in bins))
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=0, atol=0)


def test_the_whole_image_is_pooled_as_a_whole():
    """torch's adaptive pooling of the map has the bins of appendix A."""
    features = torch.randn(1, 4, 13, 13)
    whole = torch.tensor([[0.0, 0, 13 * 16, 13 * 16]])
    expected = [nn.functional.adaptive_max_pool2d(features, n).flatten(1) for n in BINS]
    assert torch.equal(pyramid(features, [whole], BINS, 1 / 16), torch.cat(expected, dim=1))


class Pyramid(nn.Module):
    def forward(self, features):
        return torch.cat([nn.functional.adaptive_max_pool2d(features, n).flatten(1) for n in BINS], dim=1)


@torch.no_grad()
def test_of_the_whole_image_it_has_the_features_of_rcnn():
    """There R-CNN's crop is the image itself, so that both see the same pixels: the same convolutions, and the pyramid
    of the whole map is that of the pooled crop."""
    spp = sppnet(scales=(96,)).eval()
    numbers = OfRCNN(min_size=96, max_size=96, crop_size=96, context=0)
    rcnn = RCNN(spp.backbone, spp.head, 5, numbers, proposals=Grid(), pool=Pyramid()).eval()
    batch = ImageList(torch.rand(1, 3, 96, 96), [(96, 96)])
    whole = [torch.tensor([[0.0, 0, 96, 96]])]
    torch.testing.assert_close(spp.pooled(batch, whole), rcnn.pooled(batch, whole))
    part = [torch.tensor([[16.0, 16, 64, 80]])]  # crops are stretched, regions are not
    assert not torch.allclose(spp.pooled(batch, part), rcnn.pooled(batch, part), atol=1e-2)


@torch.no_grad()
def test_each_region_at_its_scale():
    """Its area is nearest to 40 x 40 there; of images at that scale the features are those of a net of one scale."""
    model = sppnet().eval()
    sides = torch.tensor([20.0, 40, 46, 70, 120])  # at 128; at 64 half, at 96 three quarters
    boxes = torch.stack([sides * 0, sides * 0, sides, sides], dim=1)
    scales = model.nearest_scale(boxes)
    areas = [[(side * scale / 128) ** 2 for scale in (64, 96, 128)] for side in sides.tolist()]
    assert scales.tolist() == [min(range(3), key=lambda i: abs(each[i] - 1600)) for each in areas] == [2, 2, 1, 0, 0]
    images, _ = scene(sizes=((128, 128), (128, 160)))
    batch, _ = model.transform(images)
    pooled = model.pooled(batch, [boxes, boxes[:3]])
    assert pooled.shape == (8, 250)
    for i, scale in enumerate((64, 96, 128)):
        single = sppnet(scales=(scale,)).eval()
        single.load_state_dict(model.state_dict())
        small, _ = single.transform(images)
        size = scale / 128
        alone = single.pooled(small, [boxes * size, boxes[:3] * size])
        at = torch.cat([scales, scales[:3]]) == i
        # an image made small from the original or from the largest scale: here both are the same
        torch.testing.assert_close(pooled[at], alone[at], rtol=1e-4, atol=1e-4)


def test_the_image_is_computed_once_a_scale(monkeypatch):
    """However many regions there are, and only at the scales of some."""
    model, seen = sppnet().eval(), []
    forward = model.backbone.forward
    monkeypatch.setattr(
        model.backbone, "forward", lambda images: (seen.append(tuple(images.shape)), forward(images))[1]
    )
    corners = torch.tensor([[20, 20], [30, 35], [90, 90]]).repeat(100, 1)
    batch = ImageList(torch.rand(1, 3, 128, 192), [(128, 192)])
    with torch.no_grad():
        model.pooled(batch, [torch.cat([corners * 0, corners], dim=1).float()])
        assert seen == [(1, 3, 64, 96), (1, 3, 128, 192)]


def test_only_the_linear_layers_learn():
    model = sppnet(norm=True).train()
    images, targets = scene()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    losses = model(images, targets)
    losses["loss_classifier"].backward()
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning == {"head", "classifier"}


def test_negatives_overlap_objects():
    """IoU in [0.1, 0.5): section 4.1."""
    model = sppnet().train()
    images, targets = scene()
    batch, resized = model.transform(images, targets)
    model.add_proposals(batch, images, targets)
    boxes, labels, total = model.sample(batch, GroundTruth.of(resized))
    each = labels.split([len(some) for some in boxes])
    assert total == sum(map(len, boxes))
    for some, label, target in zip(boxes, each, resized, strict=True):
        if len(target["boxes"]):
            ious = boxops.box_iou(some, target["boxes"]).amax(dim=1)
            assert ((ious >= 0.5) == (label > 0)).all()
            assert (ious >= 0.1).all()
            assert (label == 0).any()


def test_no_proposals():
    model = sppnet()
    images, targets = scene()
    none = torch.zeros(0, 4)
    loss = model.train()(images, [{**target, "proposals": none} for target in targets])["loss_classifier"]
    assert loss.isfinite()
    model.proposals = lambda image: none
    with torch.no_grad():
        assert [len(found["boxes"]) for found in model.eval()(images)] == [0, 0, 0]


@pytest.mark.parametrize("name", ["sppnet_alexnet", "sppnet_vgg16", "sppnet_mobilenet_v2"])
def test_builders(name):
    with torch.device("meta"):
        model = models.create(name, 4)
    assert model.head.in_features == 50 * model.backbone.out_channels
    assert model.transform.min_size == (max(model.settings.scales),)


@pytest.mark.parametrize(("name", "numbers"), [("scales", ()), ("scales", (320, 0)), ("bins", ()), ("bins", (2, -1))])
def test_bad_options(name, numbers):
    with pytest.raises(ValueError, match=f"{name}: expected numbers of 1 or more, got"):
        models.create("sppnet", 3, **{name: numbers})
