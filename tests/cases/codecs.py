"""Cases of the codecs."""

from itertools import product

import numpy as np
from box_sets import BOXES, random_boxes

from boxops import reference
from cases.case import FLOATS, SIZES, Case, zeros

CODINGS = {
    "rcnn": {},
    "weights": {"weights": (10.0, 10.0, 5.0, 5.0)},
    "ssd": {"variances": (0.1, 0.1, 0.2, 0.2)},
    "yolo_v1": {"coding": "yolo_v1", "stride": 64},
    "yolo_v2": {"coding": "yolo_v2", "stride": 1.0},
    "yolo_v3": {"coding": "yolo_v3", "stride": (16, 32.0)},
}


def codes(rng, shape, spread=1.0):
    return rng.normal(0, spread, (*shape, 4))


def pairs(name, first, make, anchors, dtypes=FLOATS, fixed=(), **options):
    """`make` and `anchors`: generator -> array."""
    return Case(name, lambda rng, dtype: {first: make(rng), "anchors": anchors(rng), **options}, dtypes, fixed)


def boxes_of(shape):
    return lambda rng: random_boxes(rng, shape)


LEADS = [
    *(((), ()), ((0,), (0,)), ((0,), (1,)), ((3, 0), (0,)), ((5,), (1,)), ((5,), ()), ((), (5,)), ((3, 1), (7,))),
    *(
        ((3, 255), (255,)),
        ((2, 300), (300,)),
        ((300, 3), (300, 1)),
        ((2, 3, 5), (3, 1)),
        ((4, 1), (2, 1, 3)),
        ((2, 1, 70), (3, 70)),
    ),
]


def shared(first, make):
    """`make`: shape -> (generator -> array)."""
    for n, (coding, options) in product(SIZES, CODINGS.items()):
        if n in (1, 17, 257, 4097) or coding in ("weights", "yolo_v3"):
            yield pairs(f"{n}, {coding}", first, make((n,)), boxes_of((n,)), **options)
    for lead, anchors in LEADS:
        for coding in ("rcnn", "yolo_v2"):
            yield pairs(f"{lead} x {anchors}, {coding}", first, make(lead), boxes_of(anchors), **CODINGS[coding])
    for coding in ("rcnn", "yolo_v1", "yolo_v2"):
        yield pairs(f"low and float32, {coding}", first, make((2, 65)),
                    lambda rng: random_boxes(rng, (65,)).astype(np.float32), ("float16", "bfloat16"), ("anchors",),
                    **CODINGS[coding])  # fmt: skip


def encode():
    yield from shared("boxes", boxes_of)
    for (name, boxes), (coding, options) in product(BOXES.items(), CODINGS.items()):

        def make(rng, dtype, boxes=boxes, options=options):
            made = boxes(rng, dtype)
            return {"boxes": made, "anchors": rng.permutation(made), **options}

        yield Case(f"{name}, {coding}", make)
    for coding in ("yolo_v1", "yolo_v2"):  # centres on the borders of cells, and right beside them
        sides = np.array([0, 1e-7, 1e-6, 2e-6, 0.5, 1 - 1e-6, 1, 1 + 1e-6, -1e-7])
        centre = np.stack(np.meshgrid(sides, sides), axis=-1).reshape(-1, 2)
        boxes, anchors = np.concatenate([centre - 0.25, centre + 0.25], axis=1), np.array([[0, 0, 1.0, 1]])
        yield pairs(f"borders, {coding}", "boxes", lambda rng, b=boxes: b, lambda rng, a=anchors: a,
                    coding=coding, stride=1)  # fmt: skip


# Of the images along the first dim; (300, 400) and fewer, so that every one clips.
SIZES_OF_IMAGES = [
    ((3, 40), (40,), [(40, 50), (0, 0), (300.5, 31.25)]),
    ((2, 300, 3), (2, 300, 1), [(200, 100), (100, 200)]),
    ((300,), (2, 300), ((200, 100), (100, 200))),
    ((70,), (1,), [(4 * i, 300 - 4 * i) for i in range(70)]),
    ((2, 9), (9,), [(60, 70)]),
    ((2, 0), (0,), [(60, 70), (1, 2)]),
]


def decode():
    yield from shared("deltas", lambda lead: lambda rng: codes(rng, lead))
    anchors = boxes_of((80,))
    for coding, options in CODINGS.items():
        for size, clip in (((480, 640), 4.0), ((0, 0), 0.5), ((100.5, 31.7), None), (None, None), (None, -1)):
            make = lambda rng: codes(rng, (80,), 5.0)  # noqa: E731
            yield pairs(
                f"{coding}, to {size}, clip {clip}", "deltas", make, anchors, image_size=size, clip=clip, **options
            )
        for lead, anchor_lead, sizes in SIZES_OF_IMAGES:
            make = lambda rng, lead=lead: codes(rng, lead, 3.0)  # noqa: E731
            yield pairs(f"{coding}, {lead} x {anchor_lead}, to {len(sizes)} images", "deltas", make,
                        boxes_of(anchor_lead), image_size=sizes, **options)  # fmt: skip
        special = (np.nan, np.inf, -np.inf, 0.0, -0.0, 200.0, -200.0)
        for size in (None, (480, 640)):
            make = lambda rng, special=special: np.where(  # noqa: E731
                rng.random((80, 4)) < 0.4, rng.choice(special, (80, 4)), codes(rng, (80,))
            )
            yield pairs(f"{coding}, special, to {size}", "deltas", make, anchors, clip=None, image_size=size, **options)
        for name, boxes in BOXES.items():

            def make(rng, dtype, boxes=boxes, options=options):
                made = boxes(rng, dtype)
                return {"deltas": codes(rng, made.shape[:-1]), "anchors": made, **options}

            yield Case(f"{name}, {coding}", make)


CASES = {"encode_boxes": [*encode()], "decode_boxes": [*decode()]}

ZEROS = np.zeros((3, 4), np.float32)
ENCODE, DECODE = {"boxes": ZEROS, "anchors": ZEROS}, {"deltas": ZEROS, "anchors": ZEROS}
YOLO = {**DECODE, "coding": "yolo_v2", "stride": 8}
ONE_OF = "coding to be one of 'rcnn', 'yolo_v1', 'yolo_v2', 'yolo_v3'"
POSITIVE = "> 0 and finite, got"
WRONG_VALUES = [
    ("encode_boxes", {**ENCODE, "boxes": ZEROS[:, :3]}, "boxes of shape [..., 4], got [3, 3]"),
    ("encode_boxes", {**ENCODE, "anchors": ZEROS[:, :3]}, "anchors of shape [..., 4], got [3, 3]"),
    ("encode_boxes", {**ENCODE, "anchors": ZEROS[:2]}, "leading dims that broadcast, got [3, 4] and [2, 4]"),
    ("encode_boxes", {**ENCODE, "boxes": ZEROS.astype(int)}, "boxes of a floating type, got int64"),
    ("encode_boxes", {**ENCODE, "anchors": ZEROS.astype(bool)}, "anchors of a real number type, got bool"),
    ("encode_boxes", {**ENCODE, "coding": "rcn"}, f"{ONE_OF}, got 'rcn'"),
    ("encode_boxes", {**ENCODE, "coding": None}, f"{ONE_OF}, got None"),
    ("encode_boxes", {**ENCODE, "weights": (1, 2, 3)}, "4 weights, got 3"),
    ("encode_boxes", {**ENCODE, "weights": (1, 2, 3, 0)}, f"weights {POSITIVE} 0"),
    ("encode_boxes", {**ENCODE, "weights": (1, np.nan, 3, 1)}, f"weights {POSITIVE} nan"),
    ("encode_boxes", {**ENCODE, "variances": (0.1,)}, "4 weights, got 1"),
    ("encode_boxes", {**ENCODE, "variances": (0.1, 0.1, 0, 0.2)}, f"variances {POSITIVE} 0"),
    ("encode_boxes", {**ENCODE, "variances": (1,) * 4, "weights": (2, 1, 1, 1)}, "weights or variances, got both"),
    ("encode_boxes", {**ENCODE, "coding": "yolo_v3"}, "a stride for coding 'yolo_v3', got None"),
    ("encode_boxes", {**ENCODE, "stride": 8}, "no stride for coding 'rcnn', got 8"),
    ("decode_boxes", {**DECODE, "deltas": ZEROS[..., 0]}, "deltas of shape [..., 4], got [3]"),
    ("decode_boxes", {**DECODE, "deltas": ZEROS.astype(np.int8)}, "deltas of a floating type, got int8"),
    ("decode_boxes", {**DECODE, "anchors": ZEROS[:2]}, "leading dims that broadcast, got [3, 4] and [2, 4]"),
    ("decode_boxes", {**DECODE, "clip": np.nan}, "a number or None for clip, got nan"),
    ("decode_boxes", {**DECODE, "image_size": (-1, 5)}, "image_size = (height, width), both >= 0, got (-1, 5)"),
    ("decode_boxes", {**DECODE, "image_size": (1, np.nan)}, "image_size = (height, width), both >= 0, got (1, nan)"),
    ("decode_boxes", {**DECODE, "image_size": [(3, 4), (1, -2)]},
        "image_size = (height, width), both >= 0, got (1, -2)"),
    ("decode_boxes", {**DECODE, "image_size": [(3, 4), (3, 4)]},
        "image_size of one image, or of each along the first dim of [3], got 2"),
    ("decode_boxes", {"deltas": ZEROS[0], "anchors": ZEROS[0], "image_size": [(3, 4)] * 4},
        "image_size of one image, or of each along the first dim of [], got 4"),
    ("decode_boxes", {**YOLO, "stride": 0}, f"stride {POSITIVE} 0"),
    ("decode_boxes", {**YOLO, "stride": (np.inf, 1)}, f"stride {POSITIVE} inf"),
    ("decode_boxes", {**YOLO, "stride": None}, "a stride for coding 'yolo_v2', got None"),
    ("decode_boxes", {**YOLO, "weights": (2, 1, 1, 1)},
        "no weights or variances for coding 'yolo_v2', got [2, 1, 1, 1]"),
]  # fmt: skip
WRONG_TYPES = [
    ("encode_boxes", {"boxes": [[0, 0, 1, 1]], "anchors": [[0, 0, 1, 1]]}, "arrays (NumPy, torch or DLPack), got list"),
    ("encode_boxes", {**ENCODE, "weights": 1.0}, "weights as numbers in a list or tuple, got float"),
    ("encode_boxes", {**ENCODE, "variances": ("a",) * 4}, "variances as a number, got str"),
    ("decode_boxes", {**DECODE, "clip": "4"}, "clip as a number, got str"),
    ("decode_boxes", {**DECODE, "image_size": 5}, "image_size = (height, width), got 5"),
    ("decode_boxes", {**DECODE, "image_size": []}, "image_size = (height, width), got []"),
    ("decode_boxes", {**DECODE, "image_size": [(5, 6), 7]}, "image_size = (height, width), got 7"),
    ("decode_boxes", {**DECODE, "image_size": [(5, 6), (7, 8, 9)]}, "image_size = (height, width), got (7, 8, 9)"),
    ("decode_boxes", {**DECODE, "image_size": (5, None)}, "image_size as a number, got NoneType"),
    ("decode_boxes", {**YOLO, "stride": "8"}, "stride as a number or (y, x), got '8'"),
]


_PAIR = {"boxes": zeros(3, 4), "anchors": zeros(3, 4)}
_DELTAS = {"deltas": zeros(3, 4), "anchors": zeros(3, 4)}
NUMBERS = {
    "encode_boxes": [
        (_PAIR, {"weights": (1.0, 1.0, 1.0, 1.0)}),
        (_PAIR, {"variances": (0.1, 0.1, 0.2, 0.2)}),
        ({**_PAIR, "coding": "yolo_v2"}, {"stride": 8.0}),
    ],
    "decode_boxes": [
        (_DELTAS, {"weights": (1.0, 1.0, 1.0, 1.0), "clip": 4.0, "image_size": (5.0, 6.0)}),
        (_DELTAS, {"variances": (0.1, 0.1, 0.2, 0.2)}),
        ({**_DELTAS, "coding": "yolo_v2"}, {"stride": (8.0, 8.0)}),
    ],
}
DIFFERENTIABLE = {"encode_boxes", "decode_boxes"}


def as_logs(got, want, dtype, arguments):
    """Equal to the bit but for log, of which NumPy's is up to 4 ulp off, and ours 1."""
    logs = slice(0, 4) if arguments.get("coding") in ("yolo_v2", "yolo_v3") else slice(2, 4)
    exact = np.ones(4, bool)
    exact[logs] = arguments.get("coding") == "yolo_v1"
    np.testing.assert_array_equal(got[..., exact], want[..., exact])
    np.testing.assert_allclose(got, want, rtol=8 * np.finfo(want.dtype).eps, atol=0)


def as_exps(got, want, dtype, arguments):
    """exp differs by a few ulp (NumPy's is up to 3 off, ours 1), on the scale of the box before it was clipped."""
    if arguments.get("coding") == "yolo_v1":
        return np.testing.assert_array_equal(got, want)
    with np.errstate(all="ignore"):
        whole = np.abs(reference.decode_boxes(**{**arguments, "image_size": None}))
        scale = np.maximum(whole[..., :2], whole[..., 2:]) + np.max(arguments.get("stride") or 0)
        tolerance = np.nan_to_num(8 * np.finfo(want.dtype).eps * np.tile(scale, 2), nan=0)
        close = (np.abs(got - want) <= tolerance + 8 * np.finfo(want.dtype).smallest_subnormal) | (got == want)
    assert (close | (np.isnan(got) & np.isnan(want))).all(), f"{got[~close][:5]} instead of {want[~close][:5]}"


COMPARE = {"encode_boxes": as_logs, "decode_boxes": as_exps}


def tensors(device, lead=(40,), anchors=(40,)):
    import torch

    rng = np.random.default_rng(0)
    return [
        torch.from_numpy(array).float().to(device)
        for array in (codes(rng, lead), random_boxes(rng, lead), random_boxes(rng, anchors))
    ]


def samples(device):
    first, boxes, anchors = tensors(device)
    many, many_boxes, _ = tensors(device, (2, 3, 40))
    leaf, leaf_boxes = (tensor.double().requires_grad_() for tensor in (first, boxes))
    rcnn, yolo = ("rcnn", [10.0, 10.0, 5.0, 5.0], []), ("yolo_v2", [1.0] * 4, [8.0, 16.0])
    return {
        "encode_boxes": [
            (leaf_boxes, anchors.double(), *yolo),
            (many_boxes.half(), anchors, *rcnn),
            (boxes, boxes[:1], *rcnn),
        ],
        "decode_boxes": [
            (leaf, anchors.double(), *rcnn, 4.0, []),
            (many.bfloat16(), anchors, *yolo, 4.0, [200.0, 300.0]),
            (many.double().requires_grad_(), anchors.double(), *rcnn, 4.0, [100.0, 200.0, 300.0, 50.0]),
            (first, anchors[0], "yolo_v1", [1.0] * 4, [8.0, 8.0], 4.0, []),
        ],
        "encode_boxes_backward": [(boxes, boxes, anchors, *rcnn, of_anchors) for of_anchors in (False, True)],
        "decode_boxes_backward": [
            (many, many, anchors, *yolo, 4.0, size, of_anchors)
            for of_anchors, size in ((False, [200.0, 300.0]), (True, [200.0, 300.0, 90.0, 50.0]))
        ],
    }


def calls(device):
    import boxops

    first, boxes, anchors = tensors(device)
    return {
        "encode_boxes": (lambda b, a: boxops.encode_boxes(b, a, variances=(0.1, 0.1, 0.2, 0.2)), (boxes, anchors)),
        "decode_boxes": (
            lambda c, a: boxops.decode_boxes(c, a, (10, 10, 5, 5), image_size=(400, 500)),
            (first, anchors),
        ),
    }
