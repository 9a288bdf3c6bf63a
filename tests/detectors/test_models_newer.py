"""torchvision's newer detectors: its weights in ours, same losses, gradients and detections, and the same names."""

import copy
import dataclasses
import math

import pytest
import scenes
from scenes import scene, torch, torchvision
from torchvision_results import noise

from boxops import models

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = 5
# Everything is sampled, since the two draw different random numbers.
RCNN = {"min_size": 64, "max_size": 96, "rpn_batch_size_per_image": 1 << 13, "rpn_post_nms_top_n_train": 30,
        "box_batch_size_per_image": 64, "rpn_post_nms_top_n_test": 30, "box_detections_per_img": 8}  # fmt: skip
NEWER = {
    "faster_rcnn_resnet50_fpn_v2": RCNN,
    "mask_rcnn_resnet50_fpn_v2": RCNN,
    "faster_rcnn_mobilenet_v3_large_fpn": RCNN,
    "faster_rcnn_mobilenet_v3_large_320_fpn": RCNN,
    "ssdlite320_mobilenet_v3_large": {},
}


def objects():
    images, targets = scene(classes=CLASSES, sizes=((64, 96), (64, 64)))
    for image, target in zip(images, targets, strict=True):
        target["masks"] = torch.zeros(len(target["boxes"]), *image.shape[-2:], dtype=torch.uint8)
        target["masks"][:, 16:48, 8:40] = 1
    return images, targets


@pytest.fixture(scope="module", params=NEWER)
def pair(request):
    """torchvision's model with norms that have seen images and outputs that differ from box to box, and ours of it."""
    name, options = request.param, NEWER[request.param]
    torch.manual_seed(0)
    build = torchvision.models.get_model_builder(models.torchvision_name(name))
    theirs = build(weights=None, weights_backbone=None, num_classes=CLASSES, **options)
    with torch.no_grad():
        for i, (part, parameter) in enumerate(theirs.named_parameters()):
            if parameter.ndim > 1:
                outputs = any(word in part for word in ("cls_score", "bbox_pred", "cls_logits", "mask_fcn_logits"))
                factor = 1 if "mask_fcn_logits" in part or "ssd" in name else 6 if outputs else 2
                parameter.copy_(factor * noise(*parameter.shape, seed=i) / math.sqrt(parameter[0].numel()))
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        theirs.train()(*objects())
    ours = models.create(name, CLASSES, **options)
    models.load_weights(ours, theirs.state_dict())
    return ours, theirs


def test_trains_as_torchvisions(pair):
    scenes.assert_same_training(*pair, *objects())


def test_detects_as_torchvisions(pair):
    scenes.assert_same_detections(*pair, objects()[0])


def test_batch_norms_learn_as_torchvisions(pair):
    """Samples are padded to one size: what is no proposal has no part in the statistics, and none in the losses."""
    ours, theirs = (copy.deepcopy(model).train() for model in pair)
    losses, expected = ours(*objects()), theirs(*objects())
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    buffers = dict(theirs.named_buffers())
    for name, values in ours.named_buffers():
        torch.testing.assert_close(values, buffers[name], rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def numbers(theirs):
    """What torchvision's model was built with, by the names of our Settings."""
    parts = [theirs] if hasattr(theirs, "topk_candidates") else [theirs.rpn, theirs.roi_heads]
    names = ("score_thresh", "nms_thresh", "detections_per_img", "topk_candidates")
    found = {}
    for part, prefix in zip(parts, [""] if len(parts) == 1 else ["rpn_", "box_"], strict=True):
        found |= {prefix + name: getattr(part, name) for name in names if hasattr(part, name)}
    for kind in ("pre", "post") if len(parts) > 1 else ():
        limits = getattr(theirs.rpn, f"_{kind}_nms_top_n")
        found |= {f"rpn_{kind}_nms_top_n_{mode.removesuffix('ing')}": most for mode, most in limits.items()}
    return found | {"transform": repr(theirs.transform)}


@pytest.mark.parametrize("name", NEWER)
def test_on_a_pretrained_backbone(name, tmp_path, monkeypatch):
    """The numbers are torchvision's, the same layers learn, with the same norms; the config rebuilds the model."""
    network = "resnet50" if "resnet50" in name else "mobilenet_v3_large"
    state = torchvision.models.get_model(network, weights=None).state_dict()
    torch.save(state, tmp_path / "network.pth")
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *args, **kwargs: state)
    theirs = torchvision.models.get_model(models.torchvision_name(name), weights=None, weights_backbone="DEFAULT")
    ours = models.create(name, backbone_weights=tmp_path / "network.pth")
    settings = dataclasses.asdict(ours.settings if "ssd" in name else ours.rpn.settings)
    for key, value in numbers(theirs).items():
        assert value == (repr(ours.transform) if key == "transform" else settings[key]), key
    learning, expected = ({n: p.requires_grad for n, p in model.named_parameters()} for model in (ours, theirs))
    assert learning == expected
    norms, expected = ([(n, m.eps, getattr(m, "momentum", None)) for n, m in model.named_modules() if hasattr(m, "eps")]
                       for model in (ours, theirs))  # fmt: skip
    assert norms == expected
    models.load_weights(models.create(**ours.config), ours.state_dict())


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("ssd", "ssd300_mobilenet_v2"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "faster_rcnn_mobilenet_v3_large_320_fpn"),
        ("maskrcnn_resnet50_fpn_v2", "mask_rcnn_resnet50_fpn_v2"),
        ("keypointrcnn_resnet50_fpn", "keypoint_rcnn_resnet50_fpn"),
        ("ssdlite320_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large"),
    ],
)
def test_torchvisions_spelling(spelled, name):
    assert models.full_name(spelled) == name
    if "resnet50" not in name:
        assert models.create(spelled, 3).config["name"] == name


def test_every_detector_of_torchvisions_is_here():
    names = torchvision.models.list_models(module=torchvision.models.detection)
    assert not [name for name in names if models.full_name(name) not in models.MODELS]
