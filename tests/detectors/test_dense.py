"""RetinaNet and FCOS against torchvision's: same weights and images, same losses, gradients and detections."""

import copy
import itertools
import math
import re

import pytest
import scenes
from scenes import scene, torch, torchvision
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode

import boxops
from boxops import models
from boxops.models import common, dense, fcos, retinanet

pytestmark = pytest.mark.usefixtures("one_thread")

detection = torchvision.models.detection
anchor_utils = detection.anchor_utils
CLASSES = 5
# Not 0.5 or 0.6: boxes at the image's border often have just that IoU, where torchvision's shifted boxes are rounded.
SIZES = {"min_size": 96, "max_size": 160, "nms_thresh": 0.57}


class Pyramid(torch.nn.Module):
    """Levels of stride 8 and 16, of what 8 x 8 pixels show."""

    out_channels = 32

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = torch.nn.Conv2d(3, 32, 8, 8), torch.nn.Conv2d(32, 32, 2, 2)

    def forward(self, images):
        fine = self.fine(images)
        return {"0": fine, "1": self.coarse(fine.relu())}


def surely(model):
    """Random weights score 0.01 everywhere; these tell places and classes apart, above the threshold and below."""
    factor = 3 if any(isinstance(module, torch.nn.GroupNorm) for module in model.modules()) else 10
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("cls_logits.weight", "bbox_reg.weight", "bbox_ctrness.weight")):
                parameter.mul_(factor)
            if name.endswith("cls_logits.bias"):
                parameter.fill_(-1)


def tiny(name, **settings):
    """Ours and torchvision's around a small pyramid."""
    torch.manual_seed(0)
    settings = {**SIZES, **settings}
    if name == "retinanet":
        sizes, ratios = retinanet.octaves(16, 32), (0.5, 1.0, 2.0)
        ours = retinanet.RetinaNet(Pyramid(), CLASSES, retinanet.Settings(anchor_sizes=sizes, **settings))
    else:
        sizes, ratios = ((8,), (16,)), (1.0,)
        ours = fcos.FCOS(Pyramid(), CLASSES, fcos.Settings(anchor_sizes=(8, 16), **settings))
    build = detection.RetinaNet if name == "retinanet" else detection.FCOS
    theirs = build(Pyramid(), CLASSES, anchor_generator=anchor_utils.AnchorGenerator(sizes, (ratios,) * 2), **settings)
    with torch.no_grad():
        for parameter in (*theirs.backbone.parameters(), *theirs.head.parameters()):
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    surely(theirs)
    models.load_weights(ours, theirs.state_dict())
    return ours, theirs


NAMES = ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"]
both = pytest.mark.parametrize("name", ["retinanet", "fcos"])


@pytest.fixture(scope="module", params=NAMES)
def large(request):
    torch.manual_seed(0)
    theirs = getattr(detection, request.param)(weights=None, weights_backbone=None, num_classes=CLASSES, **SIZES)
    surely(theirs)
    ours = models.create(request.param, CLASSES, **SIZES)
    models.load_weights(ours, theirs.state_dict())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    return ours, theirs


@pytest.mark.slow
def test_trains_as_torchvisions(large):
    scenes.assert_same_training(*large, *scene())


@pytest.mark.slow
def test_detects_as_torchvisions(large):
    scenes.assert_same_detections(*large, scene()[0])


@both
@pytest.mark.parametrize("seed", range(4))
def test_many_scenes(name, seed):
    sizes = [((64, 96), (48, 48)), ((96, 40),), ((64, 64), (32, 32), (80, 96), (50, 70)), ((33, 65), (64, 64))][seed]
    images, targets = scene(seed, sizes, most=1 + 5 * seed)
    ours, theirs = tiny(
        name,
        topk_candidates=[1000, 20, 50, 1][seed],
        detections_per_img=[300, 10, 1000, 5][seed],
        score_thresh=[0.05, 0.3, 0.3 if name == "retinanet" else 0.6, 0.2][seed],
    )
    scenes.assert_same_training(ours, theirs, images, targets)
    results, expected = (model.eval()(images) for model in (ours, theirs))
    assert any(len(result["boxes"]) for result in results)
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-4)


@both
def test_at_the_start(name):
    """Section 4.1: every class scores 0.01, so that the many easy negatives do not decide the first steps."""
    model = models.create(name, CLASSES, min_size=96)
    losses, gradients = scenes.losses_and_gradients(model, *scene())
    assert 0 < losses["classification"] < 3
    assert gradients.keys() == {name for name, _ in model.named_parameters()}
    bias = model.head["classification_head"].cls_logits.bias
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))
    assert [len(result["boxes"]) for result in model.eval()(scene()[0])] == [0, 0, 0]


@both
def test_nothing_to_find(name):
    """No objects in training, nothing above the threshold in detection: empty results, a gradient everywhere."""
    ours, theirs = tiny(name, score_thresh=0.9999)
    images, targets = scene()
    none = [copy.deepcopy(targets[1]) for _ in images]
    losses, gradients = scenes.losses_and_gradients(ours, images, none)
    expected, _ = scenes.losses_and_gradients(theirs, images, none)
    for key, loss in losses.items():
        torch.testing.assert_close(loss, torch.as_tensor(expected[key]).float())
        assert (loss == 0) == (key != "classification")
    assert gradients.keys() == {name for name, _ in ours.named_parameters()}
    results, expected = (model.eval()(images) for model in (ours, theirs))
    torch.testing.assert_close(results, expected)
    assert [[*result["boxes"].shape] for result in results] == [[0, 4]] * 3


@both
def test_equal_scores(name):
    """Of ties the lower level, anchor and class comes first."""
    ours, _ = tiny(name, topk_candidates=10**6, detections_per_img=40)
    with torch.no_grad():
        for part in ("classification_head.cls_logits", "regression_head.bbox_ctrness"):
            if part in dict(ours.head.named_modules()):
                ours.head.get_submodule(part).weight.zero_()
        bias = ours.head["classification_head"].cls_logits.bias
        bias.copy_(torch.tensor([-9.0, 1, 1, -9, 1]).repeat(len(bias) // CLASSES))
    batch, _ = ours.eval().transform(scene()[0][:1])
    with torch.inference_mode():
        result = ours.detections(batch)[0]
        _, deltas, *_, anchors, _ = ours.predict(batch)
        decode = boxops.decode_boxes if name == "retinanet" else fcos.boxes_of
        boxes = torchvision.ops.clip_boxes_to_image(decode(deltas[0], anchors), batch.image_sizes[0])
    kept = torchvision.ops.nms(boxes, torch.ones(len(boxes)), 0.57)  # a stable sort; the same for all three classes
    assert result["labels"].tolist() == [1, 2, 4] * 13 + [1]
    torch.testing.assert_close(result["boxes"], boxes[kept].repeat_interleave(3, dim=0)[:40])
    assert len(result["scores"].unique()) == 1


@both
def test_two_classes_of_one_box(name):
    """Each class has its own score, and suppresses only itself."""
    ours, _ = tiny(name)
    result = ours.eval()(scene()[0][:1])[0]
    _, counts = result["boxes"].unique(dim=0, return_counts=True)
    assert counts.max() >= 2


def test_candidates():
    """The best pairs of each level, against sorting all of them."""
    torch.manual_seed(0)
    levels, classes = [60, 7, 1, 0], 3
    for most in (1, 5, 30, 1000):
        scores = torch.rand(2, sum(levels), classes)
        at, labels, values = dense.candidates(scores, levels, most)
        torch.testing.assert_close(values, scores.flatten(1).gather(1, at * classes + labels))
        for image, pairs in zip(scores, at * classes + labels, strict=True):
            first, expected = 0, []
            for level in image.split(levels):
                best = level.flatten().argsort(descending=True)[:most]
                expected += sorted((best + first).tolist())
                first += level.numel()
            assert pairs.tolist() == expected


@both
def test_crowds_are_no_background(name):
    """In a crowd nothing is learnt but the objects that lie in it, and crowds are no objects."""
    ours, _ = tiny(name)
    images, targets = scene()
    truth = common.GroundTruth.of(ours.train().transform(images, copy.deepcopy(targets))[1])
    for target in targets:
        target["iscrowd"] = torch.tensor([1] + [0] * len(target["boxes"]))
        target["boxes"] = torch.cat([torch.tensor([[-1e4, -1e4, 1e4, 1e4]]), target["boxes"]])
        target["labels"] = torch.cat([torch.tensor([1]), target["labels"]])
    seen, losses = [], []
    focal = dense.focal_loss

    def spy(logits, matches, truth, *numbers):
        seen.append(matches)
        return focal(logits, matches, truth, *numbers)

    with pytest.MonkeyPatch.context() as patch:
        for module in (fcos, retinanet):
            patch.setattr(module, "focal_loss", spy)
        without = [{key: v[t["iscrowd"] == 0] for key, v in t.items() if key != "iscrowd"} for t in targets]
        for some in (targets, without):
            losses.append(scenes.losses_and_gradients(ours, images, some)[0])
    crowded, plain = seen
    assert truth.offsets.tolist() == [0, 4, 4, 8]
    assert torch.equal(crowded.clamp(min=-1), plain.clamp(min=-1))
    assert (plain >= 0).any()
    assert (crowded != -1).all()
    assert (crowded[1] == -2).all()
    torch.testing.assert_close(losses[0]["bbox_regression"], losses[1]["bbox_regression"])
    assert losses[0]["classification"] < losses[1]["classification"]


@both
def test_never_waits(name):
    """Fake tensors have no values: what a GPU's host would have to wait for raises."""
    ours, _ = tiny(name, detections_per_img=7)
    batch, targets = ours.transform(*scene())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        batch.tensors = mode.from_tensor(batch.tensors)
        losses = ours.losses(batch, [{key: mode.from_tensor(some) for key, some in t.items()} for t in targets])
        found, counts = ours.padded(batch)
    assert all(isinstance(loss, FakeTensor) for loss in losses.values())
    assert [[*some.shape] for some in (*found.values(), counts)] == [[3, 7, 4], [3, 7], [3, 7], [3]]
    with pytest.raises(DataDependentOutputException), FakeTensorMode() as mode:
        mode.from_tensor(torch.ones(3)).tolist()


@both
def test_half_precision(name):
    ours, _ = tiny(name)
    images, targets = scene()
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = scenes.losses_and_gradients(ours, images, targets)
        result = ours.eval()(images)[0]
    expected, _ = scenes.losses_and_gradients(ours, images, targets)
    for key, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[key], rtol=0.1, atol=0.02)
    assert result["boxes"].dtype == result["scores"].dtype == torch.float32


def test_labels_out_of_range():
    ours, _ = tiny("retinanet")
    images, targets = scene()
    targets[0]["labels"][:] = CLASSES
    with pytest.raises(RuntimeError, match="out of bounds"):
        ours.train()(images, targets)


def test_names_of_older_retinanets():
    """Before torchvision 0.13 activations had numbers of their own; torchvision's rule gives the same weights."""
    ours, theirs = tiny("retinanet")
    older = {}
    for key, value in theirs.state_dict().items():
        for i in range(4):
            key = key.replace(f"_head.conv.{i}.0.", f"_head.conv.{2 * i}.")
        older[key] = value + 1
    assert "head.regression_head.conv.6.bias" in older
    theirs.load_state_dict(older)
    models.load_weights(ours, older)
    torch.testing.assert_close(ours.state_dict(), dict(theirs.state_dict()), rtol=0, atol=0)
    fpn = re_named(models.retinanet.RetinaNet, "backbone.fpn.inner_blocks.2.bias")
    assert fpn == "backbone.fpn.inner_blocks.2.0.bias"


def re_named(model, key):
    for pattern, replacement in model.legacy_names:
        key = re.sub(pattern, replacement, key)
    return key


def test_the_file_whose_norms_add_nothing(tmp_path):
    model = models.create("retinanet", CLASSES)
    file = tmp_path / "retinanet_resnet50_fpn_coco-eeacb38b.pth"
    torch.save(model.state_dict(), file)
    loaded = models.create("retinanet", CLASSES, weights=file)
    assert {module.eps for module in loaded.modules() if hasattr(module, "running_var")} == {0}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"box_loss": "l2"}, "expected box_loss to be l1 or giou, got 'l2'"),
        ({"anchor_sizes": ((8, 16), (32,))}, "expected anchor_sizes with as many sizes on every level"),
    ],
)
def test_numbers_out_of_range(settings, words):
    with pytest.raises(ValueError, match=words):
        retinanet.RetinaNet(Pyramid(), CLASSES, retinanet.Settings(**settings))


def test_anchors_of_retinanet():
    """Section 4: from 32 to 813 pixels, three an octave."""
    sizes = retinanet.Settings().anchor_sizes
    assert [*sizes] == [*detection.retinanet._default_anchorgen().sizes]
    flat = [size for level in sizes for size in level]
    assert all(math.isclose(large / small, 2 ** (1 / 3), rel_tol=0.02) for small, large in itertools.pairwise(flat))
