"""Linear models on features that are too many for memory: SVMs with mined negatives, ridge regression.

Girshick et al. 2014 (arXiv 1311.2524v5), appendices B and C, and the numbers of its authors' code. Shapes: R regions, F
features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Settings:
    """The hyperparameters of SVMs and regressors; where no section is named, those of the authors' code."""

    svm_neg_iou: float = 0.3  # appendix B
    svm_cost: float = 1e-3  # C
    feature_norm: float = 20.0  # mean length of the features that the SVMs and the regressors see
    svm_positive_weight: float = 2.0
    svm_intercept_scaling: float = 10.0
    svm_batch: int = 2000  # hard negatives after which an SVM is trained anew
    svm_passes: int = 2  # through all images at most
    ridge_iou: float = 0.6  # appendix C, as the next one
    ridge_lambda: float = 1000.0


def scale_of(features: np.ndarray, length: float) -> float:
    """The factor that gives features [N, F] this mean length, from a sample of them."""
    some = features[:: max(len(features) // 10_000, 1)].astype(np.float32)
    return length / max(float(np.linalg.norm(some, axis=1).mean()), 1e-12) if len(some) else 1.0


def mine(
    features: np.ndarray,
    positive: np.ndarray,
    negative: np.ndarray,
    spans: list[tuple[int, int]],
    scale: float,
    s: Settings,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Weight [1, F] and bias [1] of a class's SVM, for features [R, F] as they are, of which [R] say what they are.

    All negatives of the first images train a first SVM. From then on, image by image, those on the wrong side of its
    margin join, and those far on the right side leave, until a pass through all images finds none.
    """
    from sklearn.svm import LinearSVC

    def some(at: np.ndarray) -> np.ndarray:
        return features[at].astype(np.float32) * scale

    objects = some(np.flatnonzero(positive))
    cache, svm = np.empty(0, np.int64), None
    for _ in range(s.svm_passes):
        found, fresh = 0, cache[:0]
        for i, (start, end) in enumerate(spans):
            new = np.setdiff1d(start + np.flatnonzero(negative[start:end]), cache)
            if svm is not None and len(new):
                new = new[svm.decision_function(some(new)) > -1]
            found, fresh = found + len(new), np.concatenate([fresh, new])
            if len(fresh) < s.svm_batch and (i + 1 < len(spans) or not len(fresh)):
                continue
            cache, fresh = np.concatenate([cache, fresh]), fresh[:0]
            seen = some(cache)
            svm = LinearSVC(
                C=s.svm_cost,
                loss="hinge",
                class_weight={1: s.svm_positive_weight},
                intercept_scaling=s.svm_intercept_scaling,
                random_state=seed % 2**32,
                max_iter=10_000,
            ).fit(np.concatenate([objects, seen]), np.repeat([1, 0], [len(objects), len(seen)]))
            cache = cache[svm.decision_function(seen) > -1.2]
        if not found:
            break
    assert svm is not None
    return svm.coef_ * scale, svm.intercept_


def ridge(near: np.ndarray, at: np.ndarray, scale: float, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight [4, F] and bias [4] that give the deltas of these rows, by the normal equations: only F x F numbers are in
    memory, however many rows there are."""
    n, width = len(at), near["feature"].shape[1]
    gram, cross = torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, 4, dtype=torch.float64)
    x_sum, y_sum = gram[0].clone(), cross[0].clone()
    for part in np.array_split(at, -(-n // 4096)):
        x = torch.from_numpy(near["feature"][part].astype(np.float32) * scale)
        y = torch.from_numpy(near["code"][part])
        gram += x.T @ x
        cross += x.T @ y
        x_sum += x.double().sum(0)
        y_sum += y.double().sum(0)
    x_mean, y_mean = x_sum / n, y_sum / n
    gram -= n * torch.outer(x_mean, x_mean)
    cross -= n * torch.outer(x_mean, y_mean)
    gram.diagonal().add_(strength)
    weight = torch.cholesky_solve(cross, torch.linalg.cholesky(gram))
    return (weight * scale).T.numpy(), (y_mean - x_mean @ weight).numpy()
