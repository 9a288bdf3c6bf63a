"""Fast R-CNN on a tiny network: its sample, its losses and pooling against torchvision's, and its SVD."""

import numpy as np
import pytest
from scenes import scene, torch, torchvision
from torch import nn

from boxops import models
from boxops.models import fast_rcnn, faster_rcnn
from boxops.models.backbones import OneLevel
from boxops.models.builders import MODELS, detector
from boxops.models.common import scaled
from boxops.models.roi_heads import LowRank, TwoMLPHead, pool
from boxops.training import load_model
from boxops.training.checkpoint import save

heads = torchvision.models.detection.roi_heads
NUMBERS = {"min_size": 64, "max_size": 128, "box_score_thresh": 0.0, "box_detections_per_img": 50}


class Given:
    """Proposals: ``boxes``, of one image after another."""

    boxes = ()

    def __call__(self, image):
        first, *self.boxes = self.boxes
        return first


def backbone():
    return OneLevel(nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 8, 4, 4)), 8)


def tiny_fast_rcnn(num_classes, backbone_weights, settings, svd=None, hidden=16):
    """For tests."""
    head = TwoMLPHead(8 * 4, hidden, svd)
    return fast_rcnn.FastRCNN(backbone(), num_classes, settings, proposals=Given(), box_head=head, pool_size=2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """`tiny_fast_rcnn` by name."""
    monkeypatch.setitem(MODELS, "tiny_fast_rcnn", None)  # is taken out afterwards
    detector(fast_rcnn.Settings(**NUMBERS))(tiny_fast_rcnn)
    torch.manual_seed(0)


def some_proposals(images, count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    boxes = []
    for image in images:
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values * 0.9
        corners[:, 1] += 0.1
        boxes.append((corners * torch.tensor([image.shape[-1], image.shape[-2]])).flatten(1))
    return boxes


def with_proposals(targets, boxes):
    return [{**target, "proposals": some} for target, some in zip(targets, boxes, strict=True)]


def near(boxes, count=20):
    """Boxes around these, of all IoUs."""
    shifts = torch.linspace(0, 1, count)[:, None, None]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return (boxes + shifts * sides).flatten(0, 1)


def caught(model, monkeypatch):
    """Collects what the head is taught: (logits, deltas, sample, boxes, matches, truth)."""
    seen, losses = [], model.roi_heads.losses
    monkeypatch.setattr(model.roi_heads, "losses", lambda *given: (seen.append(given), losses(*given))[1])
    return seen


@pytest.mark.parametrize("beta", [1 / 9, 1.0])
def test_losses_are_torchvisions(monkeypatch, beta):
    """On the same samples. torchvision divides the boxes' loss, too, by the number of all samples; so do we."""
    model = models.create("tiny_fast_rcnn", 5, box_beta=beta).train()
    images, targets = scene()
    targets = with_proposals(targets, [near(target["boxes"]) for target in targets])
    seen = caught(model, monkeypatch)
    losses = model(images, targets)
    assert losses.keys() == {"loss_classifier", "loss_box_reg"}
    logits, deltas, sample, boxes, matches, truth = seen[0]
    assert sample.positive.sum() > 10
    assert (sample.real & ~sample.positive).sum() > 10
    labels, wanted = [], []
    for b, image in enumerate(truth.images):
        real, mine = sample.real[b], matches[b]
        mine = mine.where(sample.positive[b], len(image["labels"]))
        own = torch.cat([image["boxes"], image["boxes"].new_zeros(1, 4)])[mine]
        labels.append(torch.cat([image["labels"], torch.zeros(1).long()])[mine][real])
        coder = torchvision.models.detection._utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
        wanted.append(coder.encode_single(own, boxes[b])[real])
    smooth = torch.nn.functional.smooth_l1_loss
    monkeypatch.setattr(heads.F, "smooth_l1_loss", lambda *args, **given: smooth(*args, **(given | {"beta": beta})))
    expected = heads.fastrcnn_loss(logits[sample.real], deltas[sample.real].flatten(1), labels, wanted)
    assert expected[1] > 0
    torch.testing.assert_close(losses["loss_classifier"], expected[0])
    torch.testing.assert_close(losses["loss_box_reg"], expected[1])


def test_the_sample(monkeypatch):
    """64 of an image, a quarter positive at IoU >= 0.5, the others of IoU in [0.1, 0.5). Section 2.3."""
    model = models.create("tiny_fast_rcnn", 5).train()
    images, targets = scene(most=3)
    targets = with_proposals(targets, [near(target["boxes"], 60) for target in targets])
    seen = caught(model, monkeypatch)
    model(images, targets)
    _, _, sample, boxes, _, truth = seen[0]
    for b, image in enumerate(truth.images):
        if not len(image["boxes"]):
            assert not sample.real[b].any()  # without objects all IoUs are 0
            continue
        ious = torchvision.ops.box_iou(boxes[b], image["boxes"]).amax(dim=1)
        positive, real = sample.positive[b], sample.real[b]
        assert real.sum() == 64
        assert positive.sum() == 16
        assert (ious[positive] >= 0.5).all()
        assert ((ious >= 0.1) & (ious < 0.5))[real & ~positive].all()
    low = models.create("tiny_fast_rcnn", 5, box_bg_iou_low=0.0).train()
    seen = caught(low, monkeypatch)
    targets[1]["proposals"] = some_proposals(images)[1]
    low(images, targets)
    assert seen[0][2].real[1].sum() == 40


def test_pools_as_torchvision(monkeypatch):
    model = models.create("tiny_fast_rcnn", 5).eval()
    images, _ = scene()
    boxes = some_proposals(images)
    model.proposals.boxes = list(boxes)
    seen, forward = [], model.roi_heads.box_head.forward
    monkeypatch.setattr(model.roi_heads.box_head, "forward", lambda pooled: (seen.append(pooled), forward(pooled))[1])
    with torch.no_grad():
        model(images)
        batch, _ = model.transform(images)
        features = model.backbone(batch.tensors)["0"]
    originals = [(image.shape[-2], image.shape[-1]) for image in images]
    boxes = [scaled(*each) for each in zip(boxes, batch.image_sizes, originals, strict=True)]
    torch.testing.assert_close(seen[0], torchvision.ops.roi_pool(features, boxes, 2, 1 / 16))


@torch.no_grad()
def test_is_the_second_stage_of_faster_rcnn():
    """Given what the network of a Faster R-CNN proposes, it finds what that finds."""
    settings = faster_rcnn.Settings(**NUMBERS, anchor_sizes=((16, 32),))
    faster = faster_rcnn.FasterRCNN(backbone(), 5, settings, box_head=TwoMLPHead(32, 16), pool_size=2).eval()
    fast = models.create("tiny_fast_rcnn", 5, box_pool="align").eval()
    own = {name: value for name, value in faster.state_dict().items() if not name.startswith("rpn.")}
    fast.load_state_dict(own)
    images, _ = scene()
    batch, _ = faster.transform(images)
    features, _ = faster.features(batch)
    boxes, counts, _ = faster.rpn(features, batch, None)
    originals = [(image.shape[-2], image.shape[-1]) for image in images]
    own = zip(boxes, counts, originals, batch.image_sizes, strict=True)
    fast.proposals.boxes = [scaled(some[:count], size, now) for some, count, size, now in own]
    for found, expected in zip(fast(images), faster(images), strict=True):
        assert len(expected["boxes"]) == 50
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objects", [True, False])
def test_no_proposals(objects):
    """Nothing is found, in an image or in all; objects alone are learnt, and nothing gives a loss of 0."""
    model, (images, targets) = models.create("tiny_fast_rcnn", 5), scene()
    none = [torch.zeros(0, 4)] * len(images)
    if not objects:
        targets = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long()}] * len(images)
    losses = model.train()(images, with_proposals(targets, none))
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert (losses["loss_classifier"] > 0) == objects
    model.eval().proposals.boxes = none
    assert [len(found["boxes"]) for found in model(images)] == [0, 0, 0]
    model.proposals.boxes = [none[0], *some_proposals(images)[1:]]
    assert [len(found["boxes"]) > 0 for found in model(images)] == [False, True, True]


def test_no_positives():
    model, (images, targets) = models.create("tiny_fast_rcnn", 5, box_bg_iou_low=0.0).train(), scene()
    targets = [{"boxes": target["boxes"][:0], "labels": target["labels"][:0]} for target in targets]
    losses = model(images, with_proposals(targets, some_proposals(images)))
    sum(losses.values()).backward()
    assert losses["loss_classifier"] > 0
    assert losses["loss_box_reg"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def outputs(model, images):
    torch.manual_seed(1)
    features = torch.randn(50, 8, 2, 2)
    with torch.no_grad():
        return model.roi_heads.box_predictor(model.roi_heads.box_head(features))[0]


def test_svd(tmp_path):
    """Full ranks change nothing, lower ones the less the higher they are; the file is small, and is read again."""
    model, (images, _) = models.create("tiny_fast_rcnn", 5, hidden=24), scene()
    before, state, errors = outputs(model, images), model.state_dict(), []
    for ranks in ((24, 24), (16, 16), (8, 8), (2, 2)):
        small = models.create("tiny_fast_rcnn", 5, hidden=24)
        small.load_state_dict(state)
        models.truncate_svd(small, ranks)
        errors.append(float((outputs(small, images) - before).norm() / before.norm()))
    assert errors[0] < 1e-4
    assert errors[0] < errors[1] < errors[2] < errors[3]
    checkpoint = {"boxops": 1, "model": small.config, "classes": list("abcd"), "weights": small.state_dict()}
    save(tmp_path / "small.pt", checkpoint)
    loaded, _ = load_model(tmp_path / "small.pt")
    assert loaded.config["svd"] == [2, 2]
    assert [*loaded.roi_heads.box_head.fc6.state_dict()] == ["0.weight", "1.weight", "1.bias"]
    assert torch.equal(outputs(loaded, images), outputs(small, images))
    with pytest.raises(ValueError, match="expected a detector with the linear layers fc6 and fc7"):
        models.truncate_svd(small, (2, 2))


def test_svd_is_the_nearest():
    """Of all matrices of rank t: Eckart and Young; NumPy's, in float64."""
    layer = nn.Linear(12, 7)
    low = LowRank.of(layer, 3)
    product = (low[1].weight @ low[0].weight).detach().double().numpy()
    values = np.linalg.svd(layer.weight.detach().double().numpy(), compute_uv=False)
    distance = np.linalg.norm(layer.weight.detach().double().numpy() - product)
    np.testing.assert_allclose(distance, np.linalg.norm(values[3:]), rtol=1e-5)
    assert np.linalg.matrix_rank(product, tol=1e-5) == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"svd": (0, 4)}, "svd: expected ranks of 1 to 16 for 32 x 16, got 0"),
        ({"svd": (4, 17)}, "svd: expected ranks of 1 to 16 for 16 x 16, got 17"),
        ({"svd": (4,)}, "svd: expected two ranks, of fc6 and fc7, got"),
        ({"box_pool": "mean"}, "box_pool: expected max or align, got 'mean'"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=text):
        models.create("tiny_fast_rcnn", 5, **options)


def test_svd_needs_a_builder_that_knows_it():
    model = models.create("faster_rcnn_mobilenet_v2", 3, hidden=4)
    with pytest.raises(ValueError, match="whose builder has the option svd, got faster_rcnn_mobilenet_v2"):
        models.truncate_svd(model, (2, 2))


def test_one_level_has_max_pooling():
    features = [torch.zeros(1, 8, 64 // stride, 64 // stride) for stride in (8, 16)]
    batch = models.common.ImageList(torch.zeros(1, 3, 64, 64), [(64, 64)])
    with pytest.raises(ValueError, match="box_pool: expected align for 2 levels of features, got max"):
        pool(features, torch.zeros(1, 5, 4), batch, 7, "max")


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "mobilenet_v2"])
def test_builders(name):
    """Both are of one backbone and head; the networks' own linear layers are the head's where they fit."""
    with torch.device("meta"):
        fast, faster = models.create(f"fast_rcnn_{name}"), models.create(f"faster_rcnn_{name}")
        small = models.create(f"fast_rcnn_{name}", svd=(64, 32))
    own, others = ({k: v.shape for k, v in model.state_dict().items()} for model in (fast, faster))
    assert own == {k: v for k, v in others.items() if not k.startswith("rpn.")}
    assert small.roi_heads.box_head.fc6[0].out_features == 64
    assert (fast.roi_heads.settings.box_pool, faster.roi_heads.settings.box_pool) == ("max", "align")


def test_export_needs_own_proposals():
    with pytest.raises(ValueError, match="expected a detector that makes its own proposals, got FastRCNN"):
        models.Padded(models.create("tiny_fast_rcnn", 5))
