"""Soft non-maximum suppression, with an exp of its own whose bits every backend repeats."""

import numpy as np

from boxops.reference.common import compute, iou_of, quiet, to_columns


@quiet
def soft_nms(boxes, scores, iou_threshold=0.3, *, method="gaussian", sigma=0.5, score_threshold=0.001, idxs=None):
    dtype = np.result_type(compute(boxes), compute(scores))
    boxes, scores = to_columns(np.asarray(boxes).astype(dtype)), np.asarray(scores).astype(dtype)
    groups = np.zeros(scores.shape, dtype=np.int64) if idxs is None else idxs
    iou_threshold, sigma, score_threshold = map(dtype.type, (iou_threshold, sigma, score_threshold))
    sigma = max(sigma, np.finfo(dtype).smallest_subnormal)
    kept, decayed = [], []
    left = np.flatnonzero(scores > score_threshold)
    while left.size:
        place = np.argmax(scores[left])  # the first of equals
        best, left = left[place], np.delete(left, place)
        kept.append(best)
        decayed.append(scores[best])
        met = left[groups[left] == groups[best]]
        iou = iou_of(boxes[:, best, None], boxes[:, met]).astype(dtype)
        if method == "linear":
            met, iou = met[iou > iou_threshold], iou[iou > iou_threshold]
            weight = np.maximum(1 - iou, 0)
        else:
            met, iou = met[iou > 0], iou[iou > 0]
            weight = exp_of_negative(-((iou * iou) / sigma))
        scores[met] *= weight
        left = left[scores[left] > score_threshold]
    return np.array(kept, dtype=np.int64), np.array(decayed, dtype=dtype)


# By dtype: the least argument, ln 2 in two parts, and the coefficients of (e^r - 1 - r) / r^2 from the highest.
EXP = {
    "float32": (-87.0, 0.693359375, -2.12194440e-4,
                (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)),
    "float64": (-708.0, 6.93147180369123816490e-01, 1.90821492927058770002e-10,
                tuple(1 / f for f in (6227020800.0, 479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0,
                                      720.0, 120.0, 24.0, 6.0, 2.0))),
}  # fmt: skip


@quiet
def exp_of_negative(x):
    """e^x for x <= 0; 0 below the least argument, where e^x is about to leave the normal range."""
    number = x.dtype.type
    least, high, low, coefficients = EXP[x.dtype.name]
    k = np.rint(x * number(1.4426950408889634))
    r = (x - k * number(high)) - k * number(low)
    p = number(coefficients[0])
    for c in coefficients[1:]:
        p = p * r + number(c)
    return np.where(x < number(least), number(0), np.ldexp(p * (r * r) + r + number(1), k.astype(np.int32)))
