"""Boxes of given sizes centred on the cells of grids."""

import numpy as np

from boxops.reference.common import quiet


@quiet
def multibox_anchors(grid_size, sizes, aspect_ratios, *, normalized=True, like=None):
    height, width = grid_size
    ratios = [1 / r for r in aspect_ratios]  # width over height
    unit_x, unit_y = (width, height) if normalized else (1, 1)
    pairs = [(s, ratios[0]) for s in sizes] + [(sizes[0], r) for r in ratios[1:]]
    halves = [(s * np.sqrt(r) * height / np.float64(unit_x) / 2, s / np.sqrt(r) * height / np.float64(unit_y) / 2)
              for s, r in pairs]  # fmt: skip
    return around(centres(grid_size, (1, 1), 0.5, (unit_y, unit_x), like), halves, like)


@quiet
def grid_anchors(image_size, grid_sizes, sizes, aspect_ratios, *, strides=None, like=None):
    levels = []
    for level, (height, width) in enumerate(grid_sizes):
        if strides is None:
            stride = [side // max(cells, 1) for side, cells in zip(image_size, (height, width), strict=True)]
        else:
            stride = np.broadcast_to(strides[level], 2)
        tall = np.sqrt(np.float32(aspect_ratios[level]))
        wide = np.float32(1) / tall
        halves = [(np.round(w * s / 2), np.round(h * s / 2))
                  for w, h in zip(wide, tall, strict=True) for s in np.float32(sizes[level])]  # fmt: skip
        levels.append(around(centres((height, width), stride, 0, (1, 1), like), halves, like))
    return np.concatenate(levels)


@quiet
def cell_anchors(grid_size, priors, stride, *, like=None):
    halves = [(w / 2, h / 2) for w, h in priors]
    return around(centres(grid_size, np.broadcast_to(stride, 2), 0.5, (1, 1), like), halves, like)


def types_of(like):
    """What is computed in, and what the result is rounded to."""
    result = np.dtype(np.float32 if like is None else like.dtype)
    return (np.float64 if result == np.float64 else np.float32), result


def centres(grid, stride, offset, divisor, like):
    """[H, W, (x, y)]."""
    t, _ = types_of(like)
    y, x = ((np.arange(n).astype(t) + t(offset)) * t(s) / t(d) for n, s, d in zip(grid, stride, divisor, strict=True))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(len(y), len(x), 2)


def around(centre, halves, like):
    t, result = types_of(like)
    centre, half = centre[:, :, None], np.array(halves, np.float64).astype(t)
    return np.concatenate([centre - half, centre + half], axis=-1).reshape(-1, 4).astype(result)
