"""The detectors against torchvision's: same weights and images, same losses, gradients and detections."""

import copy

import pytest
import scenes
from scenes import scene, torch, torchvision

import boxops
from boxops import models

pytestmark = pytest.mark.usefixtures("one_thread")

detection = torchvision.models.detection
# Everything is sampled, since the two draw different random numbers.
SMALL = {"min_size": 96, "max_size": 160, "rpn_post_nms_top_n_train": 100, "box_batch_size_per_image": 1024}
ALL = {**SMALL, "rpn_batch_size_per_image": 1 << 14}


@pytest.fixture(scope="module")
def faster_rcnn():
    torch.manual_seed(0)
    theirs = detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5, **ALL)
    scenes.spread(theirs, 10)
    ours = models.faster_rcnn_resnet50_fpn(5, **ALL)
    models.load_weights(ours, theirs.state_dict())
    return ours, theirs


@pytest.fixture(scope="module")
def ssd():
    torch.manual_seed(0)
    theirs = detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=5)
    ours = models.ssd300_vgg16(5)
    models.load_weights(ours, theirs.state_dict())
    return ours, theirs


@pytest.fixture(scope="module")
def small():
    """An SSD for what does not depend on the model."""
    torch.manual_seed(0)
    return models.create("ssd", 5)


@pytest.mark.parametrize("brightness", [0.01, 1, 100])
def test_small_ssds_features_are_of_one_length(small, brightness):
    """However large they come: the heads' steps are then of one size. One image is enough for the norms."""
    with torch.no_grad():
        maps = small.train().backbone(brightness * torch.rand(1, 3, 300, 300))
    assert [features.shape[-1] for features in maps.values()] == [38, 19, 10, 5, 3, 1]
    for features in maps.values():
        lengths = features.norm(dim=1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, 4))


@pytest.mark.slow
def test_faster_rcnn_trains_as_torchvisions(faster_rcnn):
    scenes.assert_same_training(*faster_rcnn, *scene())


@pytest.mark.slow
def test_faster_rcnn_detects_as_torchvisions(faster_rcnn):
    scenes.assert_same_detections(*faster_rcnn, scene()[0])


def test_the_sample_of_the_proposal_loss(faster_rcnn, monkeypatch):
    """Fewer anchors than there are: torchvision's loss on the sample that ours drew."""
    ours, theirs = (copy.deepcopy(model.rpn) for model in faster_rcnn)
    ours.settings = type(ours.settings)(**SMALL)
    drawn, draw = [], boxops.sample_matches

    def sample(*args):
        drawn.append(draw(*args))
        return drawn[-1]

    def same_sample(labels):
        masks = [torch.zeros(2, len(label), dtype=torch.uint8) for label in labels]
        for mask, picked, positives, taken in zip(masks, *drawn[0], strict=True):
            mask[0, picked[:positives]] = 1
            mask[1, picked[positives:taken]] = 1
        return [mask[0] for mask in masks], [mask[1] for mask in masks]

    images, targets = scene()
    batch, targets = faster_rcnn[0].train().transform(images, targets)
    features = {str(i): torch.randn(3, 256, 96 >> i, 128 >> i) for i in range(5)}
    with monkeypatch.context() as patch:
        patch.setattr(boxops, "sample_matches", sample)
        truth = models.common.GroundTruth.of(targets)
        _, _, losses = ours.train()(list(features.values()), batch, truth)
    assert drawn[0][0].shape == (3, 256)
    theirs.fg_bg_sampler = same_sample
    _, expected = theirs.train()(batch, features, targets)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_ssd_trains_as_torchvisions(ssd):
    scenes.assert_same_training(*ssd, *scene())


@pytest.mark.slow
def test_ssd_detects_as_torchvisions(ssd):
    scenes.assert_same_detections(*ssd, scene()[0])


def test_anchors_of_ssd(ssd):
    ours, theirs = ssd
    grids = [38, 19, 10, 5, 3, 1]
    images = detection.image_list.ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    expected = theirs.anchor_generator(images, [torch.zeros(1, 1, grid, grid) for grid in grids])[0]
    anchors = ours.settings.anchors([(grid, grid) for grid in grids], torch.zeros(0))
    torch.testing.assert_close(anchors, expected, rtol=0, atol=1e-3)
    sides = anchors[:, 2] - anchors[:, 0]
    assert sides[: 38 * 38 * 4].max() < sides[-4:].min()  # small ones first


FEW = {"box_batch_size_per_image": 16, "rpn_post_nms_top_n_test": 16}  # RoIs, each of which costs a stage of ResNet
SETTINGS = {
    "faster_rcnn_resnet50_c4": {"min_size": 64, "max_size": 96, **FEW},
    "faster_rcnn_mobilenet_v2_fpn": {"min_size": 96, "max_size": 128},
    "faster_rcnn_timm_fpn": {"min_size": 64, "max_size": 96, "backbone": "resnet10t"},
    "ssd300_mobilenet_v2": {},
    "retinanet_mobilenet_v2_fpn": {"min_size": 96, "max_size": 128},
    "fcos_mobilenet_v2_fpn": {"min_size": 96, "max_size": 128},
    "detr_mobilenet_v2": {"min_size": 96, "max_size": 128},
    "pix2seq_mobilenet_v2": {"size": 64},
}


@pytest.mark.parametrize(("name", "settings"), SETTINGS.items())
def test_every_other_variant_trains_and_detects(name, settings):
    if "timm" in name:
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = models.create(name, 5, **settings)
    losses, gradients = scenes.losses_and_gradients(model, *scene())
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert gradients.keys() == learning
    with torch.inference_mode():
        for image, result in zip(scene()[0], model.eval()(scene()[0]), strict=True):
            assert result["boxes"].shape == (*result["scores"].shape, 4)
            height, width = image.shape[-2:]
            assert (result["boxes"] >= 0).all()
            assert (result["boxes"] <= torch.tensor([width, height] * 2) + 1e-3).all()
            assert (result["scores"].diff() <= 0).all()
            assert (result["labels"] >= 1).all()
            assert (result["labels"] < 5).all()
    again = models.create(**model.config)
    models.load_weights(again, model.state_dict())


def test_batches_without_objects(small):
    images, targets = scene()
    none = [targets[1]] * 3
    for model in (small, models.create("faster_rcnn", 5, min_size=64)):
        losses, gradients = scenes.losses_and_gradients(model, images, none)
        assert all(loss.isfinite() for loss in losses.values())
        assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_crowds_are_no_negatives():
    """A crowd box over everything leaves the proposal loss nothing but the objects to learn from."""
    images, targets = scene()
    model = models.create("faster_rcnn", 5, min_size=64)
    truth = models.common.GroundTruth.of(model.train().transform(images, targets)[1])
    everything = torch.tensor([[-1e4, -1e4, 1e4, 1e4]])
    for target in targets:
        target["iscrowd"] = torch.cat([torch.zeros_like(target["labels"]), torch.ones(1, dtype=torch.int64)])
        target["boxes"] = torch.cat([target["boxes"], everything])
        target["labels"] = torch.cat([target["labels"], torch.ones(1, dtype=torch.int64)])
    crowded = models.common.GroundTruth.of(model.transform(images, targets)[1])
    torch.testing.assert_close(crowded.boxes, truth.boxes)
    assert crowded.offsets.tolist() == truth.offsets.tolist() == [0, 4, 4, 8]
    logits = torch.zeros(3, 5, requires_grad=True)
    anchors = torch.cat([truth.boxes[:1], torch.tensor([[0.0, 0, 1, 1]]).expand(4, 4)])
    model.rpn.losses(logits, torch.zeros(3, 5, 4), anchors, crowded)["loss_objectness"].backward()
    assert (logits.grad != 0).nonzero().tolist() == [
        [0, 0],
        [2, 0],
    ]  # in both images that have objects the first anchor
    logits.grad = None
    model.rpn.losses(logits, torch.zeros(3, 5, 4), anchors, truth)["loss_objectness"].backward()
    assert (logits.grad != 0).sum() > 5


def bad_targets():
    images, targets = scene()
    yield "expected a target for each of 3 images, got None", images, None
    yield "expected a target for each of 3 images, got 2", images, targets[:2]
    flat = {"boxes": torch.zeros(4), "labels": torch.ones(1)}
    yield (
        r"expected boxes \[G, 4\] and labels \[G\] for image 1, got \[4\] and \[1\]",
        images,
        [targets[0], flat, targets[2]],
    )
    empty = {"boxes": torch.tensor([[1.0, 2, 1, 5]]), "labels": torch.tensor([1])}
    yield r"x1 < x2 and y1 < y2 for image 2, got \[1.0, 2.0, 1.0, 5.0\]", images, [*targets[:2], empty]
    odd = {"boxes": torch.tensor([[1.0, 2, float("nan"), 5]]), "labels": torch.tensor([1])}
    yield "x1 < x2 and y1 < y2 for image 0", images, [odd, *targets[1:]]
    first, *others = targets
    for label in (0, -1, 5):
        wrong = {**first, "labels": torch.tensor([1, 2, label, 4])}
        yield rf"labels of 1 to 4 for image 2 \(0 is the background\), got {label}", images, [first, others[0], wrong]
    for key, value, words in (
        ("labels", first["labels"].float(), "integer labels for image 0, got torch.float32"),
        ("labels", first["labels"].numpy(), "labels as a tensor for image 0, got ndarray"),
        ("boxes", first["boxes"].tolist(), "boxes as a tensor for image 0, got list"),
    ):
        yield words, images, [{**first, key: value}, *others]
    yield "expected boxes and labels for image 0, got labels", images, [{"labels": first["labels"]}, *others]
    yield "expected one image or more, got none", [], []
    yield "floating images in 0..1, got torch.uint8 for image 0", [(i * 255).byte() for i in images], targets
    yield r"a list of images \[3, H, W\], got \[1, 96, 128\] for image 0", [images[0][:1], *images[1:]], targets
    yield r"a list of images \[3, H, W\], got \[96, 128\] for image 0", images[0], targets
    yield r"tensors \[3, H, W\] as images, got ndarray for image 0", [image.numpy() for image in images], targets


def test_integers_of_any_size(small):
    """int32 labels and int64 boxes are what they say."""
    images, targets = scene()
    whole = [{"boxes": t["boxes"].round() + torch.tensor([0, 0, 1, 1]), "labels": t["labels"]} for t in targets]
    small.train()
    expected = small(images, whole)
    losses = small(images, [{"boxes": t["boxes"].long(), "labels": t["labels"].int()} for t in whole])
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])


@pytest.mark.parametrize(("words", "images", "targets"), [*bad_targets()])
def test_bad_targets(small, words, images, targets):
    with pytest.raises(ValueError, match=words):
        small.train()(images, targets)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"expected a model among detr, .*localizer, .*ssd, .*, got 'yolo9000'"):
        models.create("yolo9000")
    with pytest.raises(TypeError, match="anchors_sizes"):
        models.create("faster_rcnn", 5, anchors_sizes=[])
    with pytest.raises(ValueError, match=r"expected norm to be one of batch, frozen, frozen_eps0, .*, got 'layer'"):
        models.create("faster_rcnn", 5, norm="layer")


def test_the_files_whose_norms_add_nothing(tmp_path):
    """torchvision's COCO files of R-CNNs, known by the hash in their names."""
    model = models.create("faster_rcnn", 5)
    for name, eps in (("fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 0), ("other.pth", 1e-5)):
        torch.save(model.state_dict(), tmp_path / name)
        loaded = models.create("faster_rcnn", 5, weights=tmp_path / name)
        norms = {module.eps for module in loaded.modules() if hasattr(module, "running_var")}
        assert norms == {eps}
