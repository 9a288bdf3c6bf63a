"""What the tests of the detectors share: small images with objects, torchvision's model beside ours."""

import pytest

torch = pytest.importorskip("torch", exc_type=ImportError)
torchvision = pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))


def scene(seed=0, sizes=((96, 128), (80, 64), (64, 64)), classes=5, most=4):
    """Images of noise and targets: several objects in the first image, none in the second."""
    generator = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for i, (height, width) in enumerate(sizes):
        count = 0 if i == 1 else most
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values * 0.6
        corners[:, 1] += 0.3
        boxes = (corners * torch.tensor([width, height])).flatten(1)
        labels = torch.randint(1, classes, (count,), generator=generator)
        images.append(torch.rand(3, height, width, generator=generator))
        targets.append({"boxes": boxes, "labels": labels})
    return images, targets


def losses_and_gradients(model, images, targets):
    """In training mode, but the norms keep their statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    model.zero_grad()
    torch.manual_seed(0)
    losses = model(images, targets)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_training(ours, theirs, images, targets):
    losses, gradients = losses_and_gradients(ours, images, targets)
    expected, their_gradients = losses_and_gradients(theirs, images, targets)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss > 0
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    assert gradients.keys() == their_gradients.keys()
    # An input that differs by 1e-6 moves torchvision's own gradients by up to 1 % of their norm, where a ReLU flips.
    for name, gradient in gradients.items():
        assert (gradient - their_gradients[name]).norm() <= 0.02 * their_gradients[name].norm() + 1e-5, name


@torch.no_grad()
def assert_same_detections(ours, theirs, images, tolerance=1e-3):
    results, expected = ours.eval()(images), theirs.eval()(images)
    assert len(results) == len(expected) == len(images)
    assert sum(len(result["boxes"]) for result in results) > 10
    for result, other in zip(results, expected, strict=True):
        assert result.keys() == other.keys()
        for key, values in result.items():
            torch.testing.assert_close(values, other[key], rtol=tolerance, atol=tolerance)


def spread(model, factor):
    """Random weights give equal scores everywhere; larger ones tell boxes and classes apart."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and any(part in name for part in ("cls_score", "cls_logits", "bbox_pred")):
                parameter.mul_(factor)
