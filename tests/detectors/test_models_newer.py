"""torchvision's newer detectors: its weights in ours, same losses, gradients and detections, and the same names."""

import math

import pytest
import scenes
from scenes import scene, torch, torchvision
from torchvision_results import noise

from boxops import models

CLASSES = 5
# Everything is sampled, since the two draw different random numbers.
RCNN = {"min_size": 64, "max_size": 96, "box_batch_size_per_image": 256, "rpn_batch_size_per_image": 1 << 13,
        "rpn_post_nms_top_n_train": 60, "box_detections_per_img": 12}  # fmt: skip
NEWER = {
    "faster_rcnn_resnet50_fpn_v2": RCNN,
    "mask_rcnn_resnet50_fpn_v2": RCNN,
    "faster_rcnn_mobilenet_v3_large_fpn": RCNN,
    "faster_rcnn_mobilenet_v3_large_320_fpn": RCNN,
    "ssdlite320_mobilenet_v3_large": {},
}


def objects():
    images, targets = scene(classes=CLASSES, sizes=((64, 96), (64, 64), (80, 64)))
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
