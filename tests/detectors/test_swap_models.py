"""torchvision's detectors under patch_torchvision: the same losses, gradients and detections, on boxops' kernels."""

import copy

import pytest
from scenes import losses_and_gradients, scene, spread, torch, torchvision
from swap_calls import counting

import boxops
from boxops import swap

detection = torchvision.models.detection
CLASSES = 5
RCNN = {
    "min_size": 96,
    "max_size": 160,
    "box_batch_size_per_image": 64,
    "box_detections_per_img": 20,
    "rpn_post_nms_top_n_train": 200,
}
FEW = {"box_batch_size_per_image": 24, "box_detections_per_img": 8}  # the keypoint head is slow


def pyramid():
    return detection.backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5)


def small_ssd():
    class Backbone(torch.nn.Module):
        out_channels = (8, 8)

        def __init__(self):
            super().__init__()
            self.fine, self.coarse = torch.nn.Conv2d(3, 8, 8, 8), torch.nn.Conv2d(8, 8, 2, 2)

        def forward(self, x):
            fine = self.fine(x).relu()
            return {"0": fine, "1": self.coarse(fine)}

    anchors = detection.anchor_utils.DefaultBoxGenerator([[2], [2, 3]])
    return detection.ssd.SSD(Backbone(), anchors, (96, 96), CLASSES, topk_candidates=20)


def retina(kind, **options):
    network = torchvision.models.resnet18(weights=None)
    levels = torchvision.ops.feature_pyramid_network.LastLevelP6P7(256, 256)
    backbone = detection.backbone_utils._resnet_fpn_extractor(network, 5, [2, 3, 4], levels)
    return kind(backbone, CLASSES, min_size=96, max_size=160, topk_candidates=50, **options)


def ssdlite():
    """With statistics of its own activations: without, all its scores are equal."""
    made = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    norms = [module for module in made.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    images, targets = scene(classes=CLASSES)
    with torch.no_grad():
        made(images, targets)
    return made


def keypoint_rcnn():
    return detection.KeypointRCNN(pyramid(), 2, num_keypoints=3, **(RCNN | FEW))


MODELS = {
    "faster_rcnn": lambda: detection.FasterRCNN(pyramid(), CLASSES, **RCNN),
    "mask_rcnn": lambda: detection.MaskRCNN(pyramid(), CLASSES, **RCNN),
    "keypoint_rcnn": keypoint_rcnn,
    "ssd": small_ssd,
    "ssdlite": ssdlite,
    "retinanet": lambda: retina(detection.RetinaNet, score_thresh=1e-3),
    "fcos": lambda: retina(detection.FCOS),
}


SLOW = {"keypoint_rcnn": pytest.mark.slow}


PARAMS = [pytest.param(name, marks=SLOW.get(name, ())) for name in MODELS]


@pytest.fixture(scope="module", params=PARAMS)
def model(request):
    torch.manual_seed(0)
    made = MODELS[request.param]()
    if request.param != "ssdlite":
        spread(made, 10)
    return made


def targets_of(model):
    classes = 2 if isinstance(model, detection.KeypointRCNN) else CLASSES
    images, targets = scene(classes=classes)
    for image, target in zip(images, targets, strict=True):
        count = len(target["boxes"])
        height, width = image.shape[-2:]
        x, y = torch.arange(width), torch.arange(height)[:, None]
        x1, y1, x2, y2 = target["boxes"][:, :, None, None].unbind(1)
        target["masks"] = ((x > x1) & (x < x2) & (y > y1) & (y < y2)).to(torch.uint8)
        middle = (target["boxes"][:, None, :2] + target["boxes"][:, None, 2:]) / 2
        target["keypoints"] = torch.cat([middle.expand(-1, 3, -1), torch.ones(count, 3, 1)], dim=2)
    return images, targets


@torch.no_grad()
def test_same_detections(model):
    images, _ = targets_of(model)
    expected = model.eval()(images)
    with boxops.patch_torchvision():
        results = model(images)
    assert len(torch.cat([result["scores"] for result in expected]).unique()) > 20
    for result, other in zip(results, expected, strict=True):
        assert result.keys() == other.keys()
        for key, values in result.items():
            tolerance = 1e-3 if "masks" in key or "keypoints" in key else 1e-4
            torch.testing.assert_close(values, other[key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "autocast"])
def test_detections_keep_gradients_and_dtypes(model, dtype):
    """In eval mode, and under autocast: as many detections, of torchvision's dtypes, with its gradient."""
    images, _ = targets_of(model)
    images = images[:1]

    def run():
        leaf = images[0].clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return model.eval()([leaf])[0], leaf

    (expected, leaf), kinds = run(), {}
    with boxops.patch_torchvision():
        result, own = run()
        with torch.no_grad():
            plain, _ = run()
    assert expected["scores"].requires_grad and len(expected["scores"]) > 2
    for key, values in expected.items():
        kinds[key] = values.dtype, values.shape, values.requires_grad
        assert (result[key].dtype, result[key].shape, result[key].requires_grad) == kinds[key], key
        assert (plain[key].dtype, plain[key].shape, plain[key].requires_grad) == (*kinds[key][:2], False), key
    if dtype == torch.float32:
        for some in (expected, result):
            (some["scores"].sum() + some["boxes"].sum() / 100).backward()
        assert leaf.grad.abs().max() > 0
        assert (own.grad - leaf.grad).norm() <= 0.02 * leaf.grad.norm()  # a ReLU flips


@pytest.mark.parametrize("model", [some for some in PARAMS if some.values != ("ssdlite",)], indirect=True)
def test_same_training(model):
    """In float64: in float32 an input that differs by 1e-6 moves torchvision's own gradients by 3 %: a ReLU flips."""
    images, targets = targets_of(model)
    model, images = copy.deepcopy(model).double(), [image.double() for image in images]
    targets = [target | {"boxes": target["boxes"].double()} for target in targets]
    expected, gradients = losses_and_gradients(model, images, targets)
    expected = {name: loss.item() for name, loss in expected.items()}
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    with swap.patch_torchvision():
        losses, ours = losses_and_gradients(model, images, targets)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-6)
    assert min(expected.values()) > 0
    assert ours.keys() == gradients.keys()
    for name, gradient in ours.items():
        assert (gradient - gradients[name]).abs().max() <= 1e-5 * gradients[name].abs().max() + 1e-9, name


REACHED = {
    "mask_rcnn": {"grid_anchors", "generate_proposals", "match_max_iou", "encode_boxes", "multiscale_roi_align",
                  "decode_boxes", "detect", "paste_masks"},
    "ssd": {"box_iou", "encode_boxes", "decode_boxes", "detect"},
    "retinanet": {"grid_anchors", "match_max_iou", "encode_boxes", "decode_boxes", "clip_boxes_to_image",
                  "batched_nms"},
    "fcos": {"grid_anchors", "generalized_box_iou_loss", "clip_boxes_to_image", "batched_nms"},
}  # fmt: skip


@pytest.mark.parametrize("name", REACHED)
def test_models_reach_the_kernels(name, monkeypatch):
    counts = counting(monkeypatch)
    torch.manual_seed(0)
    model = MODELS[name]()
    spread(model, 10)
    with swap.patch_torchvision():
        images, targets = targets_of(model)
        losses_and_gradients(model, images, targets)
        with torch.no_grad():
            model.eval()(images)
    assert counts.keys() == REACHED[name]


def test_own_steps_stay(monkeypatch):
    """A subclass with its own step keeps it, so does one set by hand, and so does a matcher of another kind."""
    counts = counting(monkeypatch)
    torch.manual_seed(0)
    model = MODELS["faster_rcnn"]()
    images, targets = targets_of(model)
    calls = []

    class Own(type(model.rpn)):
        def filter_proposals(self, *args):
            calls.append(self)
            return super().filter_proposals(*args)

    plain = type(model.rpn)
    model.rpn.__class__ = Own
    model.roi_heads.proposal_matcher.__class__ = type("Other", (detection._utils.Matcher,), {})
    with swap.patch_torchvision():
        model(images, targets)
        assert len(calls) == 1 and counts["box_iou"] == len(images) - 1  # one of the images is empty
        model.rpn.__class__ = plain
        model.rpn.filter_proposals = lambda *args: calls.append(args) or plain.filter_proposals(model.rpn, *args)
        model(images, targets)
        assert len(calls) == 2 and not counts["generate_proposals"]
        del model.rpn.filter_proposals
        model(images, targets)
        assert counts["generate_proposals"] == 1


@pytest.mark.filterwarnings("ignore")
def test_scripts_and_traces_of_a_detector():
    """TorchScript, and the trace that ONNX's exporter takes, are of torchvision's sources and operators."""
    torch.manual_seed(0)
    model = small_ssd().eval()

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image):
            found = self.model([image])[0]
            return found["boxes"], found["scores"], found["labels"]

    def made():
        trace = torch.jit.trace(Flat(), scene()[0][0], check_trace=False)
        return torch.jit.script(model).postprocess_detections.code, str(trace.inlined_graph)

    expected = made()
    with swap.patch_torchvision():
        script, trace = made()
    assert script == expected[0]
    kinds, own = (
        [line.split(" = ")[-1].split("(")[0] for line in graph.splitlines()] for graph in (trace, expected[1])
    )
    assert kinds == own and "boxops" not in trace
