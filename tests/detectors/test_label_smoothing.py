"""The lecture's form of label smoothing, and torch's."""

import pytest
from scenes import torch
from test_mixup_losses import tiny_detector
from torch.nn import functional as F

from boxops import models
from boxops.models.labels import cross_entropy, smooth_labels, torch_smoothing


@pytest.mark.parametrize("n", [2, 3, 20, 1000])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
def test_torchs_form(n, eps):
    """1 - eps for the class and eps / (n - 1) for the others: torch's 1 - e + e / n and e / n, e = eps n / (n - 1)."""
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(50, n, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, n, (50,), generator=generator)
    wanted = torch.full((50, n), eps / (n - 1), dtype=torch.float64)
    wanted[range(50), labels] = 1 - eps
    torch.testing.assert_close(smooth_labels(F.one_hot(labels, n).double(), eps), wanted)
    by_hand = -(wanted * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert torch_smoothing(eps, n) == pytest.approx(eps * n / (n - 1))
    torch.testing.assert_close(F.cross_entropy(logits, labels, label_smoothing=torch_smoothing(eps, n)), by_hand)
    torch.testing.assert_close(F.cross_entropy(logits, smooth_labels(F.one_hot(labels, n).double(), eps)), by_hand)


def test_soft_labels_and_edges():
    """Of mixup's labels the mix of what is smoothed; up to where all classes are alike; of one class nothing."""
    one, two = torch.eye(4)[[0, 1]]
    mixed = smooth_labels(0.3 * one + 0.7 * two, 0.1)
    torch.testing.assert_close(mixed, 0.3 * smooth_labels(one, 0.1) + 0.7 * smooth_labels(two, 0.1))
    torch.testing.assert_close(smooth_labels(one, 0.75), torch.full((4,), 0.25))
    assert smooth_labels(torch.ones(2, 1), 0.1).tolist() == [[1], [1]]
    assert smooth_labels(one, 0.0) is one
    for eps in (0.76, -0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"label_smoothing: expected 0 to 0.75 for 4 classes, got"):
            torch_smoothing(eps, 4)


def test_background_stays():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, -100])
    loss, plain = cross_entropy(logits, labels, 0.2), F.cross_entropy(logits, labels, reduction="none")
    wanted = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    by_hand = -(wanted * logits[1:3].log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(loss, torch.stack([plain[0], *by_hand, plain[3]]))
    assert loss[3] == 0


@pytest.mark.parametrize("name", ["ssd", "faster_rcnn"])
def test_detectors(name):
    """Only the class loss moves; by as much as its objects' do."""
    losses = []
    for eps in (0.0, 0.3):
        model, images, targets = tiny_detector(name, label_smoothing=eps)
        torch.manual_seed(0)
        losses.append(model(images, targets))
    assert {key for key in losses[0] if losses[0][key] != losses[1][key]} <= {"classification", "loss_classifier"}
    assert losses[0] != losses[1]


def test_it_is_said_where_it_is_unknown_or_too_much():
    with pytest.raises(TypeError, match="label_smoothing"):
        models.create("fcos", 3, label_smoothing=0.1)  # a focal loss is for hard labels
    model, images, targets = tiny_detector("ssd", label_smoothing=0.9)
    with pytest.raises(ValueError, match=r"label_smoothing: expected 0 to 0.8 for 5 classes, got 0.9"):
        model(images, targets)
