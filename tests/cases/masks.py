"""Cases of pasting masks and of boxes around them."""

from itertools import product

import numpy as np
from box_sets import random_boxes

from cases.case import FLOATS, INTEGERS, Case, zeros


def of_pasted(name, count, size=(28, 28), image_size=(60, 90), boxes=None, lead=(), dtypes=FLOATS, fixed=("boxes",),
              **options):  # fmt: skip
    def make(rng, dtype):
        placed = random_boxes(rng, count, 60.0, (1.0, 50.0)) - 10 if boxes is None else boxes(rng)
        return {"masks": rng.random((count, *lead, *size)), "boxes": placed.astype(placed.dtype),
                "image_size": image_size, **options}  # fmt: skip

    return Case(name, make, dtypes, fixed)


def odd_boxes(rng):
    """Across the image's edges, outside of it, of one pixel, inverted, without area, huge, infinite and NaN."""
    return np.array([
        [-20, -30, 10, 12], [80, 50, 120, 99], [-50, -60, 200, 300], [-30, 5, -20, 15], [5, 200, 15, 220],
        [7, 7, 7, 7], [7.5, 8.5, 7.6, 8.6], [20, 20, 10, 10], [20, 10, 10, 20], [0, 0, 89, 59], [-0.5, -0.5, 0.4, 0.4],
        [-1e9, -1e9, 1e9, 1e9], [-1e30, 0, 1e30, 40], [-np.inf, 0, 10, 10], [0, 0, np.inf, 10], [0, np.nan, 10, 10],
        [1e30, 1e30, 2e30, 2e30], [88.9, 58.9, 88.95, 58.95],
    ])  # fmt: skip


def pasted():
    for count, padding, threshold in product((0, 1, 5), (0, 1, 3), (None, 0.5)):
        yield of_pasted(f"{count}, padding {padding}, over {threshold}", count, padding=padding, threshold=threshold)
    for size in ((1, 1), (2, 2), (14, 14), (5, 9), (28, 28), (67, 67)):
        yield of_pasted(f"masks of {size}", 6, size)
    for image_size in ((0, 5), (5, 0), (1, 1), (3, 17), (64, 64), (61, 33), (1, 500)):
        for threshold in (None, 0.25):
            yield of_pasted(f"image of {image_size} over {threshold}", 7, image_size=image_size, threshold=threshold)
    for threshold in (None, 0.0, -1.0, 0.7):
        yield of_pasted(f"odd boxes over {threshold}", 18, boxes=odd_boxes, threshold=threshold)
    yield of_pasted("[N, 1, M, M]", 4, lead=(1,))
    yield of_pasted("[0, 1, M, M] over 0.5", 0, lead=(1,), threshold=0.5)
    yield of_pasted("boxes of the dtype", 9, fixed=())
    yield of_pasted("integer boxes", 9, boxes=lambda rng: rng.integers(-20, 80, (9, 4)))


def around(name, masks, dtypes=FLOATS):
    return Case(name, lambda rng, dtype: {"masks": masks(rng)}, dtypes)


def blobs(rng, count, height, width):
    """Masks with anything from no pixel to all of them."""
    boxes = rng.integers(0, max(height, width), (count, 4))
    y, x = np.mgrid[:height, :width]
    x1, y1, x2, y2 = (c[:, None, None] for c in boxes.T)
    return ((x >= x1) & (x < x2) & (y >= y1) & (y < y2) | (rng.random((count, height, width)) < 2e-3)).astype(float)


def one_each(height, width):
    return np.eye(height * width).reshape(-1, height, width)


def masks_to_boxes():
    for shape in ((0, 5, 5), (3, 0, 5), (3, 5, 0), (1, 1, 1), (9, 37, 53), (5, 64, 128), (3, 200, 333)):
        yield around(f"{shape}", lambda rng, shape=shape: blobs(rng, *shape))
        yield around(f"{shape} full", lambda rng, shape=shape: np.ones(shape))
    for shape in ((5, 7), (3, 130), (130, 3)):
        yield around(f"one pixel of {shape}", lambda rng, shape=shape: one_each(*shape))
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-7])
    yield around(
        "special values", lambda rng: special[rng.integers(0, 6, (9, 20, 30)) * (rng.random((9, 20, 30)) < 0.01)]
    )
    yield around("negative zeros", lambda rng: np.full((2, 20, 30), -0.0))
    for dtype in (*INTEGERS, "bool"):
        yield around(f"{dtype}", lambda rng, dtype=dtype: (blobs(rng, 6, 33, 77) * rng.integers(1, 100)).astype(dtype))
        yield around(f"one pixel, {dtype}", lambda rng, dtype=dtype: one_each(3, 70).astype(dtype))


CASES = {"paste_masks": list(pasted()), "masks_to_boxes": list(masks_to_boxes())}
KEEP_DTYPE = {"paste_masks"}


_OK = {"masks": zeros(3, 5, 5), "boxes": zeros(3, 4), "image_size": (4, 6)}
_MASKS, _SIZE = "masks of shape [N, M, M] or [N, 1, M, M]", "image_size = (height, width)"
WRONG_VALUES = [
    ("paste_masks", {**_OK, "masks": zeros(5, 5)}, f"{_MASKS}, got [5, 5]"),
    ("paste_masks", {**_OK, "masks": zeros(3, 2, 5, 5)}, f"{_MASKS}, got [3, 2, 5, 5]"),
    ("paste_masks", {**_OK, "masks": zeros(3, 0, 5)}, "masks of one pixel at least, got [3, 0, 5]"),
    ("paste_masks", {**_OK, "masks": zeros(3, 5, 5, dtype=np.uint8)}, "masks of a floating type, got uint8"),
    ("paste_masks", {**_OK, "masks": zeros(3, 5, 5, dtype=bool)}, "masks of a real number type, got bool"),
    ("paste_masks", {**_OK, "boxes": zeros(3, 5)}, "boxes of shape [N, 4], got [3, 5]"),
    ("paste_masks", {**_OK, "boxes": zeros(2, 4)}, "boxes of shape [3, 4], got [2, 4]"),
    ("paste_masks", {**_OK, "image_size": (-1, 6)}, f"{_SIZE}, both in 0..2^31, got (-1, 6)"),
    ("paste_masks", {**_OK, "padding": -1}, "padding in 0..1024, got -1"),
    ("paste_masks", {**_OK, "threshold": np.nan}, "a number for threshold, got nan"),
    ("masks_to_boxes", {"masks": zeros(5, 5)}, "masks of shape [N, H, W], got [5, 5]"),
    ("masks_to_boxes", {"masks": zeros(1, 2, 5, 5, dtype=bool)}, "masks of shape [N, H, W], got [1, 2, 5, 5]"),
    ("masks_to_boxes", {"masks": zeros(2, 5, 5, dtype=np.complex64)}, "masks of a real number type, got complex64"),
]
WRONG_TYPES = [
    ("paste_masks", {**_OK, "image_size": 5}, f"{_SIZE}, got 5"),
    ("paste_masks", {**_OK, "image_size": (5, 6.5)}, "image_size as an integer, got float"),
    ("paste_masks", {**_OK, "padding": "1"}, "padding as an integer, got str"),
    ("paste_masks", {**_OK, "threshold": "0.5"}, "threshold as a number, got str"),
    ("masks_to_boxes", {"masks": [[[1]]]}, "arrays (NumPy, torch or DLPack), got list"),
]


NUMBERS = {
    "paste_masks": [
        ({"masks": zeros(3, 2, 2), "boxes": zeros(3, 4)}, {"image_size": (4, 5), "padding": 1, "threshold": 0.5})
    ]
}
ANY_NUMBER = {"threshold"}  # numbers that may be infinite and below 0


def far(rng):
    masks = np.stack([np.eye(5), 1 - np.eye(5)]).astype(np.float64)
    long = np.array([[1, 0, 2.0**25 + 2, 8], [3, 2, 2**25 + 1, 7]])
    return {"paste_masks": {"masks": masks, "boxes": long, "image_size": (9, 20), "padding": 0}}


def _tensors(device):
    import torch

    rng = np.random.default_rng(0)
    arrays = rng.random((6, 14, 14)), random_boxes(rng, 6, 50.0, (5.0, 40.0))
    return (torch.from_numpy(x).float().to(device) for x in arrays)


def samples(device):
    masks, boxes = _tensors(device)
    return {
        "paste_masks": [(masks, boxes, 40, 50, 1, None), (masks[:, None].half(), boxes, 40, 50, 0, 0.5)],
        "masks_to_boxes": [(masks,), (masks > 0.9,)],
    }


def calls(device):
    import boxops

    masks, boxes = _tensors(device)
    return {
        "paste_masks": (lambda m, b: boxops.paste_masks(m, b, (40, 50), threshold=0.5), (masks, boxes)),
        "masks_to_boxes": (lambda m: boxops.masks_to_boxes(m > 0.9), (masks,)),
    }
