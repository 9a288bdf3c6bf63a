"""Masks: pasting the mask head's small masks into the image, and boxes around masks."""

import numpy as np

from boxops.reference.common import compute, quiet

FARTHEST = 2.0**30  # coordinates beyond count as this


@quiet
def paste_masks(masks, boxes, image_size, *, padding=1, threshold=None):
    height, width = image_size
    values = compute(masks).reshape(len(masks), *masks.shape[-2:])
    values = np.pad(values, [(0, 0), (padding, padding), (padding, padding)])
    number = compute(boxes).dtype.type
    factor = number((masks.shape[-1] + 2 * padding) / masks.shape[-1])
    out = np.zeros((len(masks), height, width), values.dtype)
    for mask, box, image in zip(values, compute(boxes), out, strict=True):
        if np.isnan(box).any():
            continue
        (x1, x2), (y1, y2) = ends(box[0::2], factor), ends(box[1::2], factor)
        rows, columns = np.arange(max(y1, 0), min(y2 + 1, height)), np.arange(max(x1, 0), min(x2 + 1, width))
        if len(rows) and len(columns):
            low, high, weight = sources(rows - y1, mask.shape[0], max(y2 - y1 + 1, 1), values.dtype.type)
            by_rows = (1 - weight)[:, None] * mask[low] + weight[:, None] * mask[high]
            low, high, weight = sources(columns - x1, mask.shape[1], max(x2 - x1 + 1, 1), values.dtype.type)
            image[np.ix_(rows, columns)] = (1 - weight) * by_rows[:, low] + weight * by_rows[:, high]
    out = out.astype(masks.dtype) if threshold is None else out > values.dtype.type(threshold)
    return out.reshape(*masks.shape[:-2], height, width)


def ends(pair, factor):
    """Both ends along one axis after growing by the factor about the middle, as integers."""
    number = pair.dtype.type
    half, middle = (pair[1] - pair[0]) * number(0.5) * factor, (pair[1] + pair[0]) * number(0.5)
    ends = np.stack([middle - half, middle + half])
    return [int(end) for end in np.fmin(np.fmax(ends, number(-FARTHEST)), number(FARTHEST))]


def sources(pixels, size, pasted_size, number):
    """Which two of `size` values each pixel of `pasted_size` lies between, and the weight of the second."""
    at = np.fmax((number(size) / number(pasted_size)) * (pixels.astype(number) + number(0.5)) - number(0.5), 0)
    low = np.minimum(at.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), at - low.astype(number)


def masks_to_boxes(masks):
    boxes = np.zeros((len(masks), 4), np.float32)
    for mask, box in zip(masks, boxes, strict=True):
        y, x = np.nonzero(mask)
        if len(y):
            box[:] = x.min(), y.min(), x.max(), y.max()
    return boxes
