"""Cases of the elementwise ops."""

from itertools import product

import numpy as np
from box_sets import BOXES, far_boxes, integer_boxes

from cases.case import FLOATS, FORMATS, INTEGERS, SIZES, Case, shaped, tensors, zeros


def of_boxes(name, boxes, dtypes=FLOATS, **arguments):
    return Case(name, lambda rng, dtype: {"boxes": boxes(rng, dtype), **arguments}, dtypes)


def every_set(**arguments):
    yield from (of_boxes(name, boxes, **arguments) for name, boxes in BOXES.items())
    yield from (of_boxes(f"{n} boxes", shaped(n), **arguments) for n in SIZES)
    yield of_boxes("integers", integer_boxes, INTEGERS, **arguments)


def shapes(*shapes, **arguments):
    return [of_boxes(f"shape {shape}, {arguments}", shaped(*shape), **arguments) for shape in shapes]


KEEP_DTYPE = {"box_convert", "clip_boxes_to_image"}
CASES = {
    "box_area": [*every_set(), *shapes((2, 3, 5), (), (0, 3)), *(s for f in FORMATS[1:] for s in shapes((65,), fmt=f))],
    "box_convert": [
        *every_set(in_fmt="xyxy", out_fmt="cxcywh"),
        *(s for i, o in product(FORMATS, FORMATS) for s in shapes((), (0, 3), (2, 35), in_fmt=i, out_fmt=o)),
    ],
    "clip_boxes_to_image": [*every_set(size=(48, 64)), *shapes((), (0, 3), (2, 3, 5), size=(480, 640))],
    "remove_small_boxes": [*every_set(min_size=50), *shapes((65,), min_size=0), *shapes((65,), min_size=63.7)],
}

FORMAT = f"one of {', '.join(map(repr, FORMATS))}"
OUTSIDE = "size = (height, width), both >= 0"
BOX = zeros(1, 4)
WRONG_VALUES = [
    ("box_area", {"boxes": zeros(3, 5)}, "boxes of shape [..., 4], got [3, 5]"),
    ("box_area", {"boxes": zeros()}, "boxes of shape [..., 4], got []"),
    ("box_area", {"boxes": zeros(4, 3), "fmt": "xywh"}, "boxes of shape [..., 4], got [4, 3]"),
    ("box_area", {"boxes": zeros(*[1] * 16, 4)}, "arrays of at most 16 dims, got 17"),
    ("box_area", {"boxes": zeros(3, 4), "fmt": "yxyx"}, f"fmt to be {FORMAT}, got 'yxyx'"),
    ("box_area", {"boxes": zeros(3, 4), "fmt": None}, f"fmt to be {FORMAT}, got None"),
    ("box_area", {"boxes": zeros(3, 4, dtype=bool)}, "boxes of a real number type, got bool"),
    ("box_area", {"boxes": zeros(3, 4, dtype=np.complex64)}, "boxes of a real number type, got complex64"),
    ("box_convert", {"boxes": zeros(4, 1), "in_fmt": "xyxy", "out_fmt": "xywh"}, "boxes of shape [..., 4], got [4, 1]"),
    ("box_convert", {"boxes": zeros(4), "in_fmt": "", "out_fmt": "xyxy"}, f"in_fmt to be {FORMAT}, got ''"),
    ("box_convert", {"boxes": zeros(4), "in_fmt": "xyxy", "out_fmt": 1}, f"out_fmt to be {FORMAT}, got 1"),
    ("clip_boxes_to_image", {"boxes": zeros(3), "size": (1, 1)}, "boxes of shape [..., 4], got [3]"),
    ("clip_boxes_to_image", {"boxes": zeros(4), "size": (-1, 5)}, f"{OUTSIDE}, got (-1, 5)"),
    ("clip_boxes_to_image", {"boxes": zeros(4), "size": (2, np.nan)}, f"{OUTSIDE}, got (2, nan)"),
    ("remove_small_boxes", {"boxes": zeros(4), "min_size": 1}, "boxes of shape [N, 4], got [4]"),
    ("remove_small_boxes", {"boxes": zeros(2, 3, 4), "min_size": 1}, "boxes of shape [N, 4], got [2, 3, 4]"),
    ("remove_small_boxes", {"boxes": zeros(3, 4), "min_size": np.nan}, "a number for min_size, got nan"),
]  # fmt: skip
WRONG_TYPES = [
    ("box_area", {"boxes": [[0, 0, 1, 1]]}, "arrays (NumPy, torch or DLPack), got list"),
    ("clip_boxes_to_image", {"boxes": BOX, "size": 5}, "size = (height, width), got 5"),
    ("clip_boxes_to_image", {"boxes": BOX, "size": (1, 2, 3)}, "size = (height, width), got (1, 2, 3)"),
    ("remove_small_boxes", {"boxes": BOX, "min_size": None}, "min_size as a number, got NoneType"),
]  # fmt: skip


# What each op takes of numbers (test_numbers.py): calls, as their other arguments and the numbers, good as they are.
NUMBERS = {
    "clip_boxes_to_image": [({"boxes": zeros(3, 4)}, {"size": (5.0, 6.0)})],
    "remove_small_boxes": [({"boxes": zeros(3, 4)}, {"min_size": 1.0})],
}
DIFFERENTIABLE = {"box_area", "box_convert", "clip_boxes_to_image"}  # operators


def far(rng):
    """Calls on boxes of large integers (test_dtypes.py)."""
    boxes = far_boxes(rng, 40)
    return {
        "box_area": {"boxes": boxes},
        "box_convert": {"boxes": boxes, "in_fmt": "xyxy", "out_fmt": "cxcywh"},
        "clip_boxes_to_image": {"boxes": boxes, "size": (2**25 + 41, 2**25 + 31)},
        "remove_small_boxes": {"boxes": boxes, "min_size": 25},
    }


def samples(device):
    boxes, _ = tensors(device)
    batch, _ = tensors(device, lead=(2,))
    return {
        "box_area": [
            (boxes, "xyxy"),
            (batch.half(), "xywh"),
            (boxes.double().requires_grad_(), "cxcywh"),
        ],
        "box_convert": [*((boxes.half(), *pair) for pair in product(FORMATS, FORMATS)), (boxes.long(), "xyxy", "xywh")],
        "clip_boxes_to_image": [(boxes, 30.0, 50.0), (boxes.int(), 30.0, 50.0)],
        "remove_small_boxes": [(boxes, 20.0)],
    }


def calls(device):
    import boxops

    boxes, _ = tensors(device)
    return {
        "box_area": (boxops.box_area, (boxes,)),
        "box_convert": (lambda b: boxops.box_convert(b, "xyxy", "xywh"), (boxes,)),
        "clip_boxes_to_image": (lambda b: boxops.clip_boxes_to_image(b, (30, 50)), (boxes,)),
        "remove_small_boxes": (lambda b: boxops.remove_small_boxes(b, 20), (boxes,)),
    }


def drawn(d, **more):
    return {"boxes": d.boxes(d.batch, d.n) if d.either() else d.boxes(d.n), **more}


DRAWN = {
    "box_area": lambda d: drawn(d, fmt=d.fmt()),
    "box_convert": lambda d: drawn(d, in_fmt=d.fmt(), out_fmt=d.fmt()),
    "clip_boxes_to_image": lambda d: drawn(
        d, size=(d.knob(12), d.knob(7.5)) if d.often() else d.one_of(3, (1,), None, "ab")
    ),
    "remove_small_boxes": lambda d: {"boxes": d.boxes(d.n), "min_size": d.knob(3)},
}
