"""Pooling of regions of interest, RoI by RoI and bin by bin, for all channels at once."""

import math

import numpy as np

from boxops.reference.common import area_of, compute, quiet

MAX_SAMPLES = 4096  # of a bin along one axis
LIMIT = 2.0**30  # pixels; coordinates of pool beyond it count as it


@quiet
def roi_align(input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False):
    return _each_roi(input, boxes, output_size, _mean_of_samples, spatial_scale, sampling_ratio, aligned)


@quiet
def roi_pool(input, boxes, output_size, spatial_scale=1.0):
    return _each_roi(input, boxes, output_size, _largest, spatial_scale)


@quiet
def ps_roi_align(input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1):
    pooled = _each_roi(input, boxes, output_size, _mean_of_samples, spatial_scale, sampling_ratio, True)
    return _position_sensitive(pooled)


@quiet
def ps_roi_pool(input, boxes, output_size, spatial_scale=1.0):
    return _position_sensitive(_each_roi(input, boxes, output_size, _mean_of_pixels, spatial_scale))


@quiet
def multiscale_roi_align(
    features, boxes, output_size, scales, sampling_ratio=2, aligned=False, *, canonical_scale=224, canonical_level=4
):
    _, corners = _rois(features[0], boxes)
    side = np.sqrt(area_of(corners.T))
    level = np.zeros(len(corners), int)
    for i, scale in enumerate(scales[1:], 1):
        k = int(-math.log2(scale))  # level k of the pyramid has k halvings
        level[side >= side.dtype.type(canonical_scale * np.exp2(k - canonical_level - 1e-6))] = i
    pooled = [
        roi_align(f, boxes, output_size, s, sampling_ratio, aligned) for f, s in zip(features, scales, strict=True)
    ]
    return np.stack(pooled)[level, np.arange(len(level))]


def _rois(input, boxes):
    """The image of each RoI, and its corners [K, 4] in the compute type of the features."""
    if isinstance(boxes, list | tuple):
        images = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
        corners = np.concatenate(boxes) if boxes else np.zeros((0, 4))
    else:
        images, corners = boxes[:, 0].astype(int), boxes[:, 1:]
    return images, corners.astype(compute(input).dtype)


def _each_roi(input, boxes, output_size, pool, scale, *rest):
    """[K, C, PH, PW]: `pool` of the features of the RoI's image."""
    size = np.broadcast_to(output_size, 2).astype(int)
    features, (images, corners) = compute(input), _rois(input, boxes)
    out = np.zeros((len(images), input.shape[1], *size), features.dtype)
    for k, image in enumerate(images):
        if features.size:
            pool(features[image], corners[k], features.dtype.type(scale), out[k], *rest)
    return out.astype(input.dtype)


def _position_sensitive(pooled):
    """Keeps of bin (y, x) the input channels (c PH + y) PW + x."""
    count, channels, height, width = pooled.shape
    by_bin = pooled.reshape(count, channels // (height * width), height, width, height, width)
    y, x = np.arange(height)[:, None], np.arange(width)
    return np.ascontiguousarray(by_bin[:, :, y, x, y, x])


def _mean_of_samples(features, box, scale, out, sampling_ratio, aligned):
    _, height, width = features.shape
    _, bins_y, bins_x = out.shape
    x1, y1, x2, y2 = box
    ys, count_y = _samples(y1, y2, scale, bins_y, sampling_ratio, aligned, height)
    xs, count_x = _samples(x1, x2, scale, bins_x, sampling_ratio, aligned, width)
    for p, (y_low, y_high, y_weight) in enumerate(ys):
        y_low, y_high, y_weight = y_low[:, None], y_high[:, None], y_weight[:, None]
        for q, (x_low, x_high, x_weight) in enumerate(xs):
            low, high = (_between(x_weight, features[:, y, x_low], features[:, y, x_high]) for y in (y_low, y_high))
            sample = _between(y_weight, low, high)
            out[:, p, q] = sample.sum(axis=(1, 2)) / out.dtype.type(max(count_y * count_x, 1))


def _between(weight, low, high):
    """What has no weight is not read: infinity times 0 is not a number."""
    return np.where(weight > 0, (1 - weight) * low + weight * high, low)


def _samples(lo, hi, scale, bins, sampling_ratio, aligned, extent):
    """Of each bin, the samples inside [-1, extent]: the pixels before and after, and the weight of the latter. And how
    many samples a bin has."""
    T = lo.dtype.type
    offset = T(0.5 if aligned else 0)
    start = lo * scale - offset
    length = (hi * scale - offset) - start
    if not aligned:
        length = np.maximum(length, T(1))
    bin = length / T(bins)
    count = sampling_ratio if sampling_ratio > 0 else int(np.clip(np.nan_to_num(np.ceil(bin)), 0, MAX_SAMPLES))
    samples = []
    for p in range(bins):
        at = (start + T(p) * bin) + ((np.arange(count).astype(T) + T(0.5)) * bin) / T(max(count, 1))
        at = np.maximum(at[(at >= -1) & (at <= extent)], T(0))
        low = np.minimum(at.astype(int), extent - 1)
        high = np.minimum(low + 1, extent - 1)
        samples.append((low, high, np.where(low == high, T(0), at - low.astype(T)).astype(T)))
    return samples, count


def _largest(features, box, scale, out):
    for (p, q), pixels in _pixels(features, box, scale, out.shape[1:], inclusive=True):
        if pixels.shape[1]:
            out[:, p, q] = pixels.max(axis=1)


def _mean_of_pixels(features, box, scale, out):
    # Without the last row and column, and with the last pixel of the RoI left out: as in the paper's code.
    for (p, q), pixels in _pixels(features[:, :-1, :-1], box, scale, out.shape[1:], inclusive=False):
        if pixels.shape[1]:
            out[:, p, q] = pixels.sum(axis=1) / out.dtype.type(pixels.shape[1])


def _pixels(features, box, scale, bins, inclusive):
    """For each bin, [C, its pixels]."""
    x1, y1, x2, y2 = box
    ys = _ranges(y1, y2, scale, bins[0], features.shape[1], inclusive)
    xs = _ranges(x1, x2, scale, bins[1], features.shape[2], inclusive)
    for p, y in enumerate(ys):
        for q, x in enumerate(xs):
            yield (p, q), features[:, y, x].reshape(len(features), -1)


def _ranges(lo, hi, scale, bins, extent, inclusive):
    T = lo.dtype.type
    lo, hi = lo * scale, hi * scale
    if np.isnan(lo) or np.isnan(hi):
        return [slice(0, 0)] * bins
    start, end = (int(_round(np.clip(v, -T(LIMIT), T(LIMIT)))) for v in (lo, hi))
    bin = T(max(end - start + inclusive, 1)) / T(bins)
    edges = [(int(np.floor(T(p) * bin)) + start, int(np.ceil(T(p + 1) * bin)) + start) for p in range(bins)]
    return [slice(*np.clip(edge, 0, extent)) for edge in edges]


def _round(value):
    """Halves away from 0."""
    whole = np.trunc(value)
    return whole + np.sign(value) * (np.abs(value - whole) >= 0.5)
