"""What torchvision's operators and detectors give for fixed inputs and weights, for comparing environments.

python torchvision_results.py FILE [model ...]             saves it, boxops' operators in place of missing ones
python torchvision_results.py --against FILE [model ...]   compares with what was saved
"""

import math
import sys

import torch

if __name__ == "__main__":
    import boxops

    provided = boxops.provide_torchvision_ops()

import torchvision
from torchvision.models import detection


def noise(*shape, seed=0):
    """Numbers from -1 to 1 without a pattern, the same with every torch."""
    waves = (torch.arange(math.prod(shape), dtype=torch.float64) * 12.9898 + seed).sin() * 43758.5453
    return (waves - waves.floor()).mul(2).sub(1).float().reshape(shape)


def operators():
    """The outputs and gradients of torchvision's operators, in float32 and float64, for channels_last and none too."""
    results = {}
    corners = noise(300, 2, seed=1).abs() * 55
    # Inside the map: at its border torchvision's gradient of ps_roi_pool is not that of its result.
    boxes, scores = torch.cat([corners, corners + 5 + 30 * noise(300, 2, seed=3).abs()], 1), noise(300, seed=2)
    results["nms"] = torchvision.ops.nms(boxes, scores, 0.4)
    results["batched_nms"] = torchvision.ops.batched_nms(boxes, scores, torch.arange(300) % 3, 0.4)
    rois = torch.cat([torch.arange(20)[:, None] % 2, boxes[:20]], 1)
    pools = {
        "roi_align": (3, 0.25, 2, True),
        "roi_pool": (3, 0.25),
        "ps_roi_align": (2, 0.25),
        "ps_roi_pool": (2, 0.25),
    }
    for dtype in (torch.float32, torch.float64):
        for name, options in pools.items():
            for count in (20, 0):
                features = noise(2, 8, 24, 28).to(dtype, memory_format=torch.channels_last).requires_grad_()
                pooled = getattr(torchvision.ops, name)(features, rois[:count].to(dtype), *options)
                (pooled * noise(*pooled.shape)).sum().backward()
                results |= {f"{name} {dtype} {count}": pooled, f"{name} {dtype} {count} gradient": features.grad}
                raw = getattr(torch.ops.torchvision, name)(
                    features, rois[:count].to(dtype), 0.25, 2, 2, *([2] if "align" in name else []), *options[3:]
                )
                results |= {f"{name} {dtype} {count} {i}": some for i, some in enumerate(raw) if name != "roi_align"}
    return results


def tiny_faster_rcnn():
    backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 8, 8), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 1))
    backbone.out_channels = 16
    anchors = detection.anchor_utils.AnchorGenerator(((16, 32, 48),), ((0.5, 1.0, 2.0),))
    return detection.FasterRCNN(
        backbone, 5, rpn_anchor_generator=anchors, min_size=96, max_size=128, box_score_thresh=0.01
    )


def build(name):
    """One of torchvision's detectors with the weights that fixed numbers give, or the small one of the tests."""
    if name == "tiny_faster_rcnn":
        model = tiny_faster_rcnn()
    else:
        options = {"score_thresh": 0.01} if "ssd" in name else {"box_score_thresh": 0.01, "min_size": 320}
        model = detection.__dict__[name](weights=None, weights_backbone=None, num_classes=5, **options)
    with torch.no_grad():
        for i, (part, parameter) in enumerate(model.named_parameters()):
            if parameter.dim() == 1:
                parameter.fill_(1.0 if part.endswith("weight") else 0.0)  # of norms, and biases
            else:
                outputs = any(word in part for word in ("cls_score", "bbox_pred", "cls_logits", "classification_head"))
                scale = ((0.2 if "ssd" in name else 6) if outputs else 2) / math.sqrt(parameter[0].numel())
                parameter.copy_(scale * noise(*parameter.shape, seed=i))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # one step of training, and detection has its statistics
    return model


def detector(name):
    """Detections, and the losses and gradients of one training step."""
    model = build(name)
    image = noise(3, 200, 260).abs()
    target = {
        "boxes": torch.tensor([[20.0, 30, 120, 150], [100, 60, 220, 190]]),
        "labels": torch.tensor([1, 3]),
        "masks": torch.ones(2, 200, 260, dtype=torch.uint8),
    }
    results = {}
    torch.manual_seed(0)  # samples
    for part, loss in (losses := model([image], [target])).items():
        results[f"{name} {part}"] = loss
    sum(losses.values()).backward()
    for part, parameter in model.named_parameters():
        if parameter.grad is not None:
            results[f"{name} gradient of {part}"] = parameter.grad.double().norm()[None]
    with torch.no_grad():
        found = model.eval()([image])[0]
    return results | {f"{name} {key}": values for key, values in found.items()}


def results(models):
    every = operators()
    for name in models:
        every |= detector(name)
    return {key: value.detach() for key, value in every.items()}


def compare(these, those, tolerance=1e-4):
    """The largest difference over the scale of each result; raises where it is above the tolerance."""
    assert these.keys() == those.keys(), these.keys() ^ those.keys()
    worst = 0.0
    for key, value in these.items():
        assert value.shape == those[key].shape, (key, value.shape, those[key].shape)
        assert value.dtype == those[key].dtype, key
        if value.numel():
            scale = max(1.0, float(those[key].abs().max()))
            difference = float((value.double() - those[key].double()).abs().max()) / scale
            assert difference <= tolerance, f"{key}: {difference:.2g}"
            worst = max(worst, difference)
    return worst


if __name__ == "__main__":
    torch.set_num_threads(1)
    against = sys.argv[1] == "--against"
    path, *models = sys.argv[2:] if against else sys.argv[1:]
    found = results(models)
    who = (
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, {'boxops' if provided else 'own'} operators"
    )
    if against:
        print(f"{who}: {len(found)} results, the largest difference {compare(found, torch.load(path)):.1g}")
    else:
        torch.save(found, path)
        print(
            f"{who}: {len(found)} results, {sum(len(v) for k, v in found.items() if k.endswith('scores'))} detections"
        )
