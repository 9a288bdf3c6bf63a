"""R-CNN's network part: the warp, what it learns from, what it detects."""

import numpy as np
import pytest
from scenes import torch, torchvision
from tiny_rcnn import Grid, tiny_rcnn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList

from boxops import models
from boxops.models import rcnn
from boxops.models.common import GroundTruth


def model(num_classes=4, **settings):
    torch.manual_seed(0)
    return tiny_rcnn(num_classes, **settings)


def warped(image, box, size=16, context=0):
    """The crop [3, size, size] that the backbone is given."""
    made = model(crop_size=size, context=context).eval()
    crops = []
    made.backbone.register_forward_pre_hook(lambda _, given: crops.append(given[0]))
    with torch.no_grad():
        made.pooled(
            ImageList(image[None], [(image.shape[1], image.shape[2])]), [torch.tensor([box], dtype=torch.float32)]
        )
    return crops[0][0]


@pytest.fixture
def image():
    return torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(0)) + 1


def test_a_crop_of_its_own_size(image):
    torch.testing.assert_close(warped(image, [8, 4, 24, 20]), image[:, 4:20, 8:24])


@pytest.mark.parametrize("scales", [(1, 2), (3, 1), (2, 3)])
def test_shrunk(image, scales):
    """Whole pixels on each axis of its own: their means, as torch's "area" and Pillow's BOX."""
    y, x = scales
    crop = warped(image, [5, 3, 5 + 16 * x, 3 + 16 * y])
    part = image[:, 3 : 3 + 16 * y, 5 : 5 + 16 * x]
    torch.testing.assert_close(crop, F.interpolate(part[None], (16, 16), mode="area")[0])
    pillow = pytest.importorskip("PIL.Image")
    red = pillow.fromarray(part[0].numpy()).resize((16, 16), pillow.Resampling.BOX)
    np.testing.assert_allclose(crop[0], np.asarray(red), rtol=1e-5)


def test_enlarged(image):
    """Bilinear, from the pixels around the box too: as a resize of a larger part of the image."""
    crop = warped(image, [20, 16, 28, 24])
    larger = F.interpolate(image[None, :, 12:28, 16:32], scale_factor=2, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(crop, larger[:, 8:24, 8:24])


@pytest.mark.parametrize("box", [[10.3, 7.1, 22.9, 30.2], [1, 2, 4, 60], [30, 30, 31, 31]])
def test_any_box(image, box):
    """Against samples one by one, of which grid_sample makes the mean."""
    x1, y1, x2, y2 = box
    ys, xs = (
        torch.arange(n := 16 * int(np.ceil(side / 16)), dtype=torch.float64).add(0.5) / n for side in (y2 - y1, x2 - x1)
    )
    grid = torch.stack(
        torch.meshgrid((x1 + xs * (x2 - x1)) / 40 - 1, (y1 + ys * (y2 - y1)) / 32 - 1, indexing="xy"), -1
    )
    samples = F.grid_sample(image[None].double(), grid[None], align_corners=False, padding_mode="border")
    expected = F.adaptive_avg_pool2d(samples, 16)[0]
    torch.testing.assert_close(warped(image, box).double(), expected, rtol=1e-4, atol=1e-4)


def test_context():
    """Appendix A: 16 of 227 pixels on each side are context; by hand for a crop of 16 pixels with 2."""
    wide = rcnn.with_context(torch.tensor([[40.0, 40, 76, 112]]), 16, 2)
    assert wide.tolist() == [[34, 28, 82, 124]]  # 36 and 72 pixels become 12, so that 2 are 6 and 12
    wide = rcnn.with_context(torch.tensor([[0.0, 0, 195, 195]]), 227, 16)
    assert wide.tolist() == [[-16, -16, 211, 211]]


def test_beyond_the_border(image):
    """The mean of the images, which is 0 once they are normalised; no part of it comes from the padding of a batch."""
    crop = warped(image, [0, 0, 12, 12], context=2)  # one pixel for one, 2 of them beyond
    assert (crop[:, 0] == 0).all()
    assert (crop[:, :, 0] == 0).all()
    torch.testing.assert_close(crop[:, 2:, 2:], image[:, :14, :14])
    crop = warped(image, [68, 52, 80, 64], context=2)
    torch.testing.assert_close(crop[:, :14, :14], image[:, 50:64, 66:80])
    assert (crop[:, 15] == 0).all()


def test_chunks_and_images(image):
    """Regions of two images, in whatever chunks."""
    batch = ImageList(torch.stack([image, image.flip(2)]), [(64, 80)] * 2)
    boxes = [Grid()(image), Grid()(image)[:3]]
    made = model().eval()
    with torch.no_grad():
        pooled = made.pooled(batch, boxes)
        assert pooled.shape == (len(boxes[0]) + 3, 8, 4, 4)
        small = model(chunk=7).eval().pooled(batch, boxes)
        torch.testing.assert_close(small, pooled)
        alone = made.pooled(ImageList(image.flip(2)[None], [(64, 80)]), boxes[1:])
        torch.testing.assert_close(alone, pooled[-3:])


def batch_of(*proposals, size=(64, 64)):
    batch = ImageList(torch.rand(len(proposals), 3, 64, 64), [size] * len(proposals))
    batch.proposals = [torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) for boxes in proposals]
    return batch


def truth_of(*images):
    """Of (box, label, crowd) of each image."""
    targets = []
    for objects in images:
        boxes, labels, crowds = ([thing[i] for thing in objects] for i in range(3))
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor(labels, dtype=torch.int64)
        targets.append({"boxes": boxes, "labels": labels, "iscrowd": torch.tensor(crowds)})
    return GroundTruth.of(targets)


OBJECT = [10, 10, 30, 30]


def test_what_is_learnt():
    """IoU of 0.5 or more is the object, all else background, but for what lies in a crowd; section 2.3."""
    half, less, crowded = [10, 10, 30, 50], [10, 10, 30, 51], [40, 40, 60, 60]
    batch = batch_of([half, less, crowded, [50, 0, 60, 10]], [])
    truth = truth_of([(OBJECT, 3, 0), ([38, 38, 64, 64], 1, 1)], [(OBJECT, 2, 0)])
    boxes, labels, total = model(box_positive_fraction=1.0).sample(batch, truth)
    found = sorted((tuple(map(int, box)), int(label)) for box, label in zip(boxes[0], labels, strict=False))
    assert found == [((10, 10, 30, 30), 3), ((10, 10, 30, 50), 3), ((10, 10, 30, 51), 0), ((50, 0, 60, 10), 0)]
    assert boxes[1].tolist() == [OBJECT, [0, 0, 64, 64]] or boxes[1].tolist() == [[0, 0, 64, 64], OBJECT]
    assert sorted(labels[4:].tolist()) == [0, 2]
    assert total == 6


def test_a_quarter_is_positive():
    torch.manual_seed(0)
    near = [[10 + i / 10, 10, 30, 30] for i in range(50)]
    far = [[40, 40, 50 + i / 10, 60] for i in range(60)]
    boxes, labels, total = model().sample(batch_of(near + far), truth_of([(OBJECT, 1, 0)]))
    assert (len(boxes[0]), int((labels == 1).sum()), int(total)) == (32, 8, 32)


def test_loss():
    """The softmax of all windows, by hand."""
    made = model().train()
    batch, truth = (
        batch_of([OBJECT, [40, 40, 60, 60]]),
        [{"boxes": torch.tensor([OBJECT]).float(), "labels": torch.tensor([2])}],
    )
    loss = made.losses(batch, truth)["loss_classifier"]
    boxes, labels, _ = made.sample(batch, GroundTruth.of(truth))
    assert sorted(labels.tolist()) == [0, 2, 2]
    logits = made.classifier(made.head(made.pooled(batch, boxes)))
    expected = -logits.log_softmax(1)[torch.arange(3), labels].mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert made.backbone.body[0].weight.grad.abs().sum() > 0
    assert made.svms.weight.grad is None


@pytest.mark.parametrize("objects", [[], [OBJECT]])
def test_no_proposals(objects):
    """In training the whole image is looked at; in evaluation there is nothing to detect."""
    none = torch.zeros(0, 4)
    target = {"boxes": torch.tensor(objects, dtype=torch.float32).reshape(-1, 4), "proposals": none,
              "labels": torch.ones(len(objects), dtype=torch.int64)}  # fmt: skip
    made = model().train()
    loss = made([torch.rand(3, 60, 80)], [target])["loss_classifier"]
    assert loss > 0
    loss.backward()
    with torch.no_grad():
        found, other = made.eval()([torch.rand(3, 60, 80)] * 2, [{"proposals": none}, {}])
    assert found["boxes"].shape == (0, 4)
    assert len(other["boxes"]) > 0


def fitted(made):
    """SVMs and regressors that do something, on channel 0 of the features."""
    with torch.no_grad():
        made.svms.weight[0, 0], made.svms.bias[:] = 0.7, torch.tensor([0.5, -20, -20])
        made.regressors.bias[:4] = torch.tensor([0.1, 0, 0, 0.2])
    return made


def test_detections():
    """Scores of the SVMs, boxes of the regressors, suppression within a class: against torchvision's calls."""
    made = fitted(model().eval())
    batch = batch_of(Grid()(torch.zeros(3, 64, 64)).tolist())
    with torch.no_grad():
        (found,) = made.detections(batch)
        features = made.head(made.pooled(batch, batch.proposals))
    boxes, scores = batch.proposals[0], torch.sigmoid(features[:, 0] * 0.7 + 0.5)
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    centre = centre + size * torch.tensor([0.1, 0])
    size = size * torch.tensor([0, 0.2]).exp()
    boxes = torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 64)
    keep = torchvision.ops.nms(boxes, scores, 0.3)[:100]
    torch.testing.assert_close(found["boxes"], boxes[keep], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found["scores"], scores[keep])
    assert (found["labels"] == 1).all()
    assert 0 < len(keep) < len(boxes)


def test_steps_forget_the_svms():
    """Those of other features are of no use: until new ones come, the softmax detects."""
    made = fitted(model())
    assert made.fitted
    made.train()([torch.rand(3, 64, 64)], [{"boxes": torch.tensor([OBJECT]).float(), "labels": torch.tensor([2])}])
    assert not made.fitted
    assert not made.regressors.bias.any()
    with torch.no_grad():
        made.classifier.bias[:] = torch.tensor([0, 0, 9, 0])
        found = made.eval()([torch.rand(3, 64, 64)])[0]
    assert (found["labels"] == 2).all()
    assert found["scores"].min() > 0.9


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [("rcnn_alexnet", 227, 256 * 36), ("rcnn_vgg16", 224, 512 * 49), ("rcnn_mobilenet_v2", 64, 96 * 16)],
)
def test_builders(name, size, features):
    """Sizes that fit each other; on the meta device, since VGG16 is large."""
    with torch.device("meta"):
        made = models.create(name, num_classes=3).eval()
        assert made.settings.crop_size == size
        assert made.head.fc6.in_features == features
        pooled = made.pool(made.backbone(torch.zeros(2, 3, size, size))["0"])
        assert made.svms(made.head(pooled)).shape == (2, 2)
        assert made.regressors(pooled.flatten(1)).shape == (2, 8)
    assert made.proposals is not None
    assert models.full_name("rcnn") == "rcnn_mobilenet_v2"
    assert models.MODELS[name].training["eval_every"] == 0
