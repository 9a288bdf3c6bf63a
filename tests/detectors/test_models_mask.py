"""Mask and Keypoint R-CNN against torchvision's: same weights and images, same losses, gradients and detections."""

import copy

import pytest
import scenes
from scenes import scene, torch, torchvision

from boxops import models

pytestmark = pytest.mark.usefixtures("one_thread")

detection = torchvision.models.detection
CLASSES, POINTS = 5, 3
# Everything is sampled, since the two draw different random numbers.
SIZES = {"min_size": 96, "max_size": 160, "rpn_post_nms_top_n_train": 100, "box_batch_size_per_image": 1024}
ALL = {**SIZES, "rpn_batch_size_per_image": 1 << 14, "box_detections_per_img": 12}
TINY = {"min_size": 64, "max_size": 96, "box_detections_per_img": 5}


def full_scene():
    """Each object has an ellipse as its mask, and points within and without its box, some of them not labelled."""
    generator = torch.Generator().manual_seed(1)
    images, targets = scene(classes=CLASSES)
    for image, target in zip(images, targets, strict=True):
        boxes, (height, width) = target["boxes"], image.shape[-2:]
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
        x, y = (x - centre[:, :1, None]) / half[:, :1, None], (y - centre[:, 1:, None]) / half[:, 1:, None]
        target["masks"] = (x**2 + y**2 <= 1).to(torch.uint8)
        places = torch.rand(len(boxes), POINTS, 2, generator=generator) * 2.4 - 1.2
        seen = torch.randint(0, 3, (len(boxes), POINTS, 1), generator=generator)
        target["keypoints"] = torch.cat([centre[:, None] + places * half[:, None], seen], dim=2)
    return images, targets


def pair(theirs, name, **options):
    scenes.spread(theirs, 10)
    ours = models.create(name, CLASSES, **options)
    models.load_weights(ours, theirs.state_dict())
    return ours, theirs


@pytest.fixture(scope="module")
def mask_rcnn():
    torch.manual_seed(0)
    theirs = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES, **ALL)
    torch.nn.init.normal_(theirs.roi_heads.mask_predictor.mask_fcn_logits.weight, std=1e-3)  # logits of 1, not 600
    return pair(theirs, "mask_rcnn_resnet50_fpn", **ALL)


@pytest.fixture(scope="module")
def keypoint_rcnn():
    torch.manual_seed(0)
    theirs = detection.keypointrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, num_keypoints=POINTS, **ALL
    )
    return pair(theirs, "keypoint_rcnn_resnet50_fpn", num_keypoints=POINTS, **ALL)


@pytest.fixture(scope="module")
def small():
    """One with both branches, for what does not depend on the backbone."""
    torch.manual_seed(0)
    model = models.create("mask_rcnn", CLASSES, num_keypoints=POINTS, **TINY)
    scenes.spread(model, 10)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn"])
def test_trains_as_torchvisions(name, request):
    scenes.assert_same_training(*request.getfixturevalue(name), *full_scene())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask_rcnn", "keypoint_rcnn"])
def test_detects_as_torchvisions(name, request):
    images, _ = full_scene()
    scenes.assert_same_detections(*request.getfixturevalue(name), images)


def test_trains_and_detects(small):
    images, targets = full_scene()
    losses, gradients = scenes.losses_and_gradients(small, images, targets)
    assert losses.keys() >= {"loss_objectness", "loss_classifier", "loss_mask", "loss_keypoint"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert gradients.keys() == {name for name, _ in small.named_parameters()}
    with torch.inference_mode():
        results = small.eval()(images)
    for image, result in zip(images, results, strict=True):
        count = len(result["boxes"])
        assert count > 0
        assert result["masks"].shape == (count, 1, *image.shape[-2:])
        assert result["masks"].amin() >= 0
        assert 0 < result["masks"].amax() <= 1
        assert result["keypoints"].shape == (count, POINTS, 3)
        assert result["keypoints_scores"].shape == (count, POINTS)
        assert (result["keypoints"][..., 2] == 1).all()
        low, high = result["boxes"][:, None, :2] - 1, result["boxes"][:, None, 2:] + 1
        points = result["keypoints"][..., :2]
        assert ((low <= points) & (points <= high)).all()
    models.load_weights(models.create(**small.config), small.state_dict())


def test_no_objects_and_no_detections(small):
    """No loss of the branches, but a gradient for every parameter, which DistributedDataParallel waits for."""
    images, targets = full_scene()
    losses, gradients = scenes.losses_and_gradients(small, images, [copy.deepcopy(targets[1]) for _ in images])
    assert losses["loss_mask"] == losses["loss_keypoint"] == 0
    assert gradients.keys() == {name for name, _ in small.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    strict = models.create(**small.config, box_score_thresh=1.0)
    with torch.inference_mode():
        for image, result in zip(images, strict.eval()(images), strict=True):
            assert result["masks"].shape == (0, 1, *image.shape[-2:])
            assert result["keypoints"].shape == (0, POINTS, 3)


def test_objects_without_labelled_keypoints(small):
    images, targets = full_scene()
    for target in targets:
        target["keypoints"][..., 2] = 0
    losses, gradients = scenes.losses_and_gradients(small, images, targets)
    assert losses["loss_keypoint"] == 0
    assert losses["loss_mask"] > 0
    assert gradients.keys() == {name for name, _ in small.named_parameters()}


def test_losses_are_divided_by_the_mean_over_processes(small, monkeypatch):
    losses, _ = scenes.losses_and_gradients(small, *full_scene())
    monkeypatch.setattr(models.mask_rcnn, "mean_over_processes", lambda count: 2 * count)  # the others have thrice ours
    halved, _ = scenes.losses_and_gradients(small, *full_scene())
    for name in ("loss_mask", "loss_keypoint"):
        torch.testing.assert_close(halved[name], losses[name] / 2)


def test_crowds_train_no_branch(small):
    """A crowd between the objects, with a mask and points of its own, moves no object to another's mask."""
    images, targets = full_scene()
    crowded = copy.deepcopy(targets)
    for target, image in zip(crowded, images, strict=True):
        height, width = image.shape[-2:]
        crowd = {
            "boxes": torch.tensor([[-900.0, -900, -800, -800]]),  # far off, so that no anchor is left out for it
            "labels": torch.tensor([1]),
            "masks": torch.ones(1, height, width, dtype=torch.uint8),
            "keypoints": torch.ones(1, POINTS, 3),
        }
        target["iscrowd"] = torch.tensor([1] + [0] * len(target["boxes"]))
        for key, values in crowd.items():
            target[key] = torch.cat([values, target[key]])
    losses, _ = scenes.losses_and_gradients(small, images, targets)
    expected, _ = scenes.losses_and_gradients(small, images, crowded)
    torch.testing.assert_close(losses, expected)


def test_names_of_older_files(small):
    state = small.state_dict()
    older = {}
    for key, value in state.items():
        for i in range(2):
            key = key.replace(f"mask_head.{i}.0.", f"mask_head.mask_fcn{i + 1}.")
        older[key] = value + 1 if "mask_fcn" in key else value
    model = copy.deepcopy(small)
    models.load_weights(model, older)
    for i in range(2):
        name = f"roi_heads.mask_head.{i}.0.weight"
        torch.testing.assert_close(model.state_dict()[name], state[name] + 1)


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("masks", None, r"expected masks \[G, H, W\] for image 2, got none"),
        ("keypoints", None, r"expected keypoints \[G, 3, 3\] for image 2, got none"),
        ("keypoints", torch.ones(4, 7, 3), r"expected keypoints \[G, 3, 3\] for image 2, got \[4, 7, 3\]"),
    ],
)
def test_targets_that_do_not_fit(small, key, values, words):
    images, targets = full_scene()
    del targets[2][key]
    if values is not None:
        targets[2][key] = values
    with pytest.raises(ValueError, match=words):
        small.train()(images, targets)
