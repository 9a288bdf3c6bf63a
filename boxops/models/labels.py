"""Label smoothing: the target of an object's class is 1 - eps, that of each of the n - 1 others eps / (n - 1).

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7, in the form of Zhang
et al., "Bag of Freebies for Training Object Detection Neural Networks", 2019, section 3.2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def smooth_labels(targets: Tensor, eps: float) -> Tensor:
    """Smoothed labels of one-hot targets ``[..., n]``: 1 - eps where they are 1, eps / (n - 1) where they are 0.

    Soft targets, as mixup's, are smoothed by the same linear function. Targets of a single class (n = 1) stay as they
    are.

    Raises:
        ValueError: eps is not from 0 to (n - 1) / n, where all classes have the same target.
    """
    n = targets.shape[-1]
    torchs = torch_smoothing(eps, n)
    return targets * (1 - torchs) + torchs / n if eps else targets


def torch_smoothing(eps: float, n: int) -> float:
    """``label_smoothing`` of ``torch.nn.functional.cross_entropy`` that is this eps for n classes: eps n / (n - 1).

    torch gives its share to all classes, the own one too: 1 - e + e / n and e / n. With e = eps n / (n - 1) that is
    1 - eps and eps / (n - 1). Of one class it is 0.

    Raises:
        ValueError: eps is not from 0 to (n - 1) / n.
    """
    if eps and not 0 <= eps <= (n - 1) / n and n > 1:
        raise ValueError(f"label_smoothing: expected 0 to {(n - 1) / n:g} for {n} classes, got {eps}")
    return min(eps * n / (n - 1), 1.0) if n > 1 else 0.0


def cross_entropy(logits: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Softmax cross entropy ``[N]`` of logits ``[N, C]``, 0 where the label is -100. Labels of 0, the background, are
    not smoothed, so that what is surely nothing is not found as a little of everything."""
    plain = F.cross_entropy(logits, labels, reduction="none")
    if not eps:
        return plain
    smooth = torch_smoothing(eps, logits.shape[1])
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smooth).where(labels > 0, plain)
