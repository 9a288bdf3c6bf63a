"""Cases of proposals and detections."""

from itertools import product

import numpy as np
from box_sets import BOXES, SCORES, far_boxes, integer_boxes, random_boxes

from cases.case import FLOATS, INTEGERS, SIZES, Case, shaped, zeros

KEEP_DTYPE = {"detect"}
LOGITS = {
    "distinct": lambda rng, shape: rng.permuted(np.broadcast_to(np.linspace(-6, 6, shape[1]), shape), axis=1),
    "tied": lambda rng, shape: rng.integers(-3, 3, shape) / 2,
    "constant": lambda rng, shape: np.zeros(shape),
    "zeros of both signs": lambda rng, shape: rng.choice([0.0, -0.0], shape),
    "nan": lambda rng, shape: np.where(rng.random(shape) < 0.4, np.nan, rng.normal(0, 2, shape)),
    "infinite": lambda rng, shape: rng.choice([np.inf, -np.inf, np.nan, 1.0], shape),
    "saturated": lambda rng, shape: rng.normal(0, 60, shape),
    "all nan": lambda rng, shape: np.full(shape, np.nan),
}


def proposals(name, batch, levels, logits="distinct", anchors=None, deltas=None, dtypes=FLOATS, fixed=(), **options):
    """`anchors` and `deltas`: (generator, shape without the 4) -> array."""

    def make(rng, dtype):
        count = sum(levels)
        return {
            "objectness": LOGITS[logits](rng, (batch, count)),
            "deltas": (deltas or (lambda rng, shape: rng.normal(0, 0.3, (*shape, 4))))(rng, (batch, count)),
            "anchors": (anchors or crowd)(rng, (count,)),
            "num_anchors_per_level": levels,
            "image_sizes": [(200.0 + 10 * b, 300 - 20 * b) for b in range(batch)],
            **options,
        }

    return Case(name, make, dtypes, fixed)


def crowd(rng, shape):
    return random_boxes(rng, shape, 250.0, (10.0, 100.0))


def of_images(rng, shape):
    return crowd(rng, (2, *shape))


def of_float32(rng, shape):
    return crowd(rng, shape).astype(np.float32)


def no_deltas(rng, shape):
    return np.zeros((*shape, 4))


def columns(rng, shape):
    """Boxes whose IoU is the ratio of their widths, 1 to 20."""
    return np.array([[0, 0, 1 + i % 20, 1] for i in range(*shape)], np.float64).reshape(-1, 4)


def wild(rng, shape):
    return rng.choice(
        [0.0, 0.5, -3.0, 4.0, 4.2, 60.0, -60.0, np.inf, -np.inf, np.nan], (*shape, 4), p=[0.37] + 9 * [0.07]
    )


def generate_proposals():
    for levels in ([1], [7, 15, 16], [63, 64, 65], [255, 257, 0], [0, 5], [0], [], [9] * 40):
        for batch in (2, 1):
            yield proposals(f"{batch} x {levels}", batch, levels)
    yield proposals("no images", 0, [30, 10])
    for logits in LOGITS:
        yield proposals(f"{logits} logits", 2, [150, 40], logits, pre_nms_top_n=60, post_nms_top_n=50)
        yield proposals(f"{logits} logits of a large level", 1, [5000, 300], logits, pre_nms_top_n=100)
    for pre, post in product((0, 1, 33, 500), (0, 1, 20, 500)):
        yield proposals(f"{pre} to {post}", 2, [80, 40, 20], pre_nms_top_n=pre, post_nms_top_n=post)
    yield proposals("thousands", 1, [4097, 2000], "tied", pre_nms_top_n=4000, post_nms_top_n=100, iou_threshold=0.2)
    for threshold in (0.0, 0.3, 0.5, 0.9, 1.0, 2.0):
        yield proposals(f"over {threshold}", 2, [90, 30], iou_threshold=threshold)
    for threshold in (0.05, 0.1, 0.25, 0.5, 0.7, 0.75, 0.95):
        yield proposals(f"ratios about {threshold}", 1, [40], "constant", columns, no_deltas, iou_threshold=threshold,
                        min_size=0.5)  # fmt: skip
    for min_size in (-1.0, 0.0, 5.0, 7.5, np.inf):
        yield proposals(f"sides of {min_size}", 1, [40, 20], "distinct", columns, no_deltas, min_size=min_size)
    for least in (-1.0, 0.5, 1.0, np.inf):
        yield proposals(f"scores of {least}", 2, [70, 33], "tied", score_threshold=least)
    yield proposals("wild deltas", 2, [300, 100], deltas=wild)
    yield proposals("wild deltas, no clip", 2, [300, 100], deltas=wild, clip=np.inf, min_size=0.0)
    yield proposals("weights", 2, [100, 50], weights=(10, 10.0, 5, 5.0), clip=0.1)
    yield proposals("anchors of images", 2, [100, 50], anchors=of_images)
    yield proposals("float32 anchors", 2, [100, 50], anchors=of_float32, fixed=("anchors",))
    yield proposals("float64 anchors", 2, [100, 50], fixed=("anchors",))
    yield proposals("float64 logits", 2, [100, 50], fixed=("objectness",))
    yield proposals("no room", 2, [50], image_sizes=[(0, 0), (1e-4, 100)])
    yield proposals("no room, no least side", 2, [50], image_sizes=[(0, 0), (1e-4, 100)], min_size=0)


def detections(name, boxes, classes, scores="distinct", dtypes=FLOATS, fixed=(), per_class=False, **options):
    def make(rng, dtype):
        made = boxes(rng, dtype)
        if per_class:
            shifts = rng.integers(0, 9, (*made.shape[:-1], classes, 1))
            made = made[..., None, :] + shifts.astype(made.dtype)
        return {"boxes": made, "scores": SCORES[scores](rng, (*made.shape[:2], classes)), **options}

    return Case(name, make, dtypes, fixed)


def detect():
    dense = {"extent": 100.0, "sides": (20.0, 60.0)}
    for n in SIZES[:-1]:
        yield detections(f"{n} boxes", shaped(2, n, **dense), 3, score_threshold=0.3)
    for classes, per_class in product((1, 2, 16, 33, 90), (False, True)):
        yield detections(f"{classes} classes, {per_class}", shaped(2, 70, **dense), classes, per_class=per_class,
                         score_threshold=0.2, min_size=25.0 if per_class else None)  # fmt: skip
    for shape, classes in product(((0, 5), (2, 0), (1, 1)), (0, 1, 3)):
        yield detections(f"{shape}, {classes} classes", shaped(*shape), classes, per_class=classes == 3)
    rules = product((None, 0, 1, 5, 1000), (False, True), (0, 1, 40, 500))
    for i, (topk, agnostic, most) in enumerate(rules):
        scores = [*SCORES][i % len(SCORES)]
        yield detections(f"{scores} scores, {topk} per class, {agnostic}, to {most}", shaped(2, 60, **dense), 4, scores,
                         score_threshold=(0.0, 0.25, -1.0)[i % 3], topk_per_class=topk, class_agnostic=agnostic,
                         max_output=most)  # fmt: skip
    for (name, boxes), agnostic in product(BOXES.items(), (False, True)):
        stacked = lambda rng, dtype, boxes=boxes: np.stack([boxes(rng, dtype), boxes(rng, dtype)[::-1]])  # noqa: E731
        yield detections(f"{name}, {agnostic}", stacked, 2, iou_threshold=0.3, class_agnostic=agnostic,
                         min_size=None if agnostic else 1.0)  # fmt: skip
    yield detections("many tied candidates", shaped(1, 700, **dense), 7, "tied", topk_per_class=50, iou_threshold=0.9)
    yield detections("more than a block holds at a time", shaped(1, 900, extent=900.0, sides=(10.0, 90.0)), 2,
                     score_threshold=0.2, max_output=1000)  # fmt: skip
    for topk, most in ((None, 200), (150, 500), (128, 500), (129, 500)):  # more than CUDA takes of each class at first
        yield detections(f"{topk} of many candidates, to {most}", shaped(2, 500, **dense), 5, "tied",
                         topk_per_class=topk, iou_threshold=0.8, max_output=most)  # fmt: skip
    for threshold in (0.01, 0.2):  # of many candidates few stay
        yield detections(f"crowd, {threshold}", shaped(1, 2000, extent=30.0, sides=(50.0, 90.0)), 1, "tied",
                         iou_threshold=threshold)  # fmt: skip
    yield detections("integers", lambda rng, dtype: integer_boxes(rng, dtype)[None], 3, dtypes=INTEGERS, min_size=3)
    yield detections("float64 scores", shaped(2, 50), 3, fixed=("scores",))
    for threshold in (0.0, 0.5, np.inf, -np.inf):
        yield detections(f"scores over {threshold}", shaped(2, 50), 3, "infinite", score_threshold=threshold)


CASES = {"generate_proposals": list(generate_proposals()), "detect": list(detect())}


RPN = {"objectness": zeros(2, 5), "deltas": zeros(2, 5, 4), "anchors": zeros(5, 4), "num_anchors_per_level": [3, 2],
       "image_sizes": [(8, 9), (8, 9)]}  # fmt: skip
WIDE = np.lib.stride_tricks.as_strided(zeros(1), (1, 2**20, 2048), (0, 0, 0))  # writable, so that nothing copies it
HEAD = {"boxes": zeros(2, 3, 4), "scores": zeros(2, 3, 5)}
SIDES = "image_sizes = [(height, width), ...], all >= 0"
WRONG_VALUES = [
    ("generate_proposals", {**RPN, "objectness": zeros(5)}, "objectness of shape [B, A], got [5]"),
    ("generate_proposals", {**RPN, "objectness": zeros(2, 5, dtype=np.int64)},
     "objectness of a floating type, got int64"),
    ("generate_proposals", {**RPN, "deltas": zeros(2, 4, 4)}, "deltas of shape [2, 5, 4], got [2, 4, 4]"),
    ("generate_proposals", {**RPN, "deltas": zeros(10, 4)}, "deltas of shape [2, 5, 4], got [10, 4]"),
    ("generate_proposals", {**RPN, "deltas": zeros(2, 5, 4, dtype=bool)}, "deltas of a real number type, got bool"),
    ("generate_proposals", {**RPN, "anchors": zeros(4, 4)}, "anchors of shape [5, 4] or [2, 5, 4], got [4, 4]"),
    ("generate_proposals", {**RPN, "anchors": zeros(1, 5, 4)}, "anchors of shape [5, 4] or [2, 5, 4], got [1, 5, 4]"),
    ("generate_proposals", {**RPN, "anchors": zeros(5, 4, dtype=bool)}, "anchors of a real number type, got bool"),
    ("generate_proposals", {**RPN, "num_anchors_per_level": [3]},
     "num_anchors_per_level with the sum 5 of the anchors, got [3]"),
    ("generate_proposals", {**RPN, "num_anchors_per_level": [2**62, 2**62, 2**62, 2**62, 5]},
     f"num_anchors_per_level with the sum 5 of the anchors, got {[2**62, 2**62, 2**62, 2**62, 5]}"),
    ("generate_proposals", {**RPN, "num_anchors_per_level": [6, -1]}, "num_anchors_per_level >= 0, got -1"),
    ("generate_proposals", {**RPN, "image_sizes": [(8, 9)]}, "image_sizes of 2 images, got 1"),
    ("generate_proposals", {**RPN, "image_sizes": [(8, 9), (8, -1)]}, f"{SIDES}, got -1"),
    ("generate_proposals", {**RPN, "image_sizes": [(8, 9), (np.nan, 1)]}, f"{SIDES}, got nan"),
    ("generate_proposals", {**RPN, "pre_nms_top_n": -1}, "pre_nms_top_n >= 0, got -1"),
    ("generate_proposals", {**RPN, "post_nms_top_n": -2}, "post_nms_top_n >= 0, got -2"),
    ("generate_proposals", {**RPN, "iou_threshold": -0.5}, "iou_threshold >= 0, got -0.5"),
    ("generate_proposals", {**RPN, "iou_threshold": np.nan}, "iou_threshold >= 0, got nan"),
    ("generate_proposals", {**RPN, "score_threshold": np.nan}, "a number for score_threshold, got nan"),
    ("generate_proposals", {**RPN, "min_size": np.nan}, "a number for min_size, got nan"),
    ("generate_proposals", {**RPN, "weights": (1.0, 1.0)}, "4 weights, got 2"),
    ("generate_proposals", {**RPN, "weights": (1, 1, 0, 1)}, "weights > 0 and finite, got 0"),
    ("generate_proposals", {**RPN, "clip": np.nan}, "a number for clip, got nan"),
    ("detect", {**HEAD, "scores": zeros(2, 3)}, "scores of shape [B, N, C], got [2, 3]"),
    ("detect", {**HEAD, "scores": zeros(2, 3, 5, dtype=bool)}, "scores of a real number type, got bool"),
    ("detect", {**HEAD, "boxes": zeros(3, 4)}, "boxes of shape [2, 3, 4] or [2, 3, 5, 4], got [3, 4]"),
    ("detect", {**HEAD, "boxes": zeros(2, 3, 4, 4)}, "boxes of shape [2, 3, 4] or [2, 3, 5, 4], got [2, 3, 4, 4]"),
    ("detect", {**HEAD, "boxes": zeros(2, 3, 4, dtype=bool)}, "boxes of a real number type, got bool"),
    ("detect", {"boxes": WIDE[..., :4], "scores": WIDE},
     "fewer than 2^31 scores per image, got 1048576 x 2048"),
    ("detect", {**HEAD, "score_threshold": np.nan}, "a number for score_threshold, got nan"),
    ("detect", {**HEAD, "iou_threshold": -1.0}, "iou_threshold >= 0, got -1"),
    ("detect", {**HEAD, "max_output": -1}, "max_output >= 0, got -1"),
    ("detect", {**HEAD, "topk_per_class": -1}, "topk_per_class >= 0, got -1"),
    ("detect", {**HEAD, "min_size": np.nan}, "a number for min_size, got nan"),
]  # fmt: skip
WRONG_TYPES = [
    ("generate_proposals", {**RPN, "num_anchors_per_level": 5}, "num_anchors_per_level as a list or tuple, got int"),
    ("generate_proposals", {**RPN, "num_anchors_per_level": [2.5, 2.5]},
     "num_anchors_per_level as an integer, got float"),
    ("generate_proposals", {**RPN, "image_sizes": (8, 9)}, "image_sizes = (height, width), got 8"),
    ("generate_proposals", {**RPN, "image_sizes": [("8", 9)] * 2}, "image_sizes as a number, got str"),
    ("generate_proposals", {**RPN, "pre_nms_top_n": 1.5}, "pre_nms_top_n as an integer, got float"),
    ("generate_proposals", {**RPN, "post_nms_top_n": None}, "post_nms_top_n as an integer, got NoneType"),
    ("generate_proposals", {**RPN, "iou_threshold": "0"}, "iou_threshold as a number, got str"),
    ("generate_proposals", {**RPN, "score_threshold": None}, "score_threshold as a number, got NoneType"),
    ("generate_proposals", {**RPN, "min_size": None}, "min_size as a number, got NoneType"),
    ("generate_proposals", {**RPN, "weights": 1.0}, "weights as numbers in a list or tuple, got float"),
    ("generate_proposals", {**RPN, "clip": "none"}, "clip as a number, got str"),
    ("detect", {**HEAD, "score_threshold": "0"}, "score_threshold as a number, got str"),
    ("detect", {**HEAD, "iou_threshold": None}, "iou_threshold as a number, got NoneType"),
    ("detect", {**HEAD, "max_output": 1.5}, "max_output as an integer, got float"),
    ("detect", {**HEAD, "topk_per_class": 2.5}, "topk_per_class as an integer, got float"),
    ("detect", {**HEAD, "min_size": "1"}, "min_size as a number, got str"),
]  # fmt: skip


NUMBERS = {
    "generate_proposals": [
        (
            {"objectness": zeros(1, 3), "deltas": zeros(1, 3, 4), "anchors": zeros(3, 4)},
            {
                "num_anchors_per_level": [3],
                "image_sizes": [(8.0, 9.0)],
                "pre_nms_top_n": 3,
                "post_nms_top_n": 3,
                "iou_threshold": 0.5,
                "score_threshold": 0.1,
                "min_size": 1.0,
                "weights": (1.0, 1.0, 1.0, 1.0),
                "clip": 4.0,
            },
        )
    ],
    "detect": [
        (
            {"boxes": zeros(1, 3, 4), "scores": zeros(1, 3, 2)},
            {"score_threshold": 0.1, "iou_threshold": 0.5, "max_output": 3, "topk_per_class": 2, "min_size": 1.0},
        )
    ],
}
CONSTANT = {"detect", "generate_proposals"}


def far(rng):
    boxes, deltas = far_boxes(rng, 40), rng.normal(0, 0.1, (1, 40, 4))
    return {
        "detect": {"boxes": boxes[None], "scores": rng.random((1, 40, 1)), "score_threshold": 0.1},
        "generate_proposals": {
            "objectness": rng.random((1, 40)),
            "deltas": deltas,
            "anchors": boxes,
            "num_anchors_per_level": [40],
            "image_sizes": [(2**26, 2**26)],
        },
    }


def close(got, want, dtype, arguments):
    """Integers to the bit. Decoding takes exp, whose last bit is the library's, so a coordinate may differ by a few
    roundings of the largest number in its sum; and the sigmoid takes exp too."""
    if want.dtype.kind == "i" or want.size == 0:
        return np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(got, want, rtol=0, atol=8 * np.finfo(want.dtype).eps * np.abs(want).max())


COMPARE = {"generate_proposals": close}


def tensors(op, device):
    """The arrays of a case as tensors, and the rest."""
    import torch

    case = {"generate_proposals": proposals("tensors", 2, [60, 30], "tied"),
            "detect": detections("tensors", shaped(2, 40, extent=100.0), 3, "tied", per_class=True)}[op]  # fmt: skip
    arguments = case.arguments()
    arrays = [torch.from_numpy(value).to(device) for value in arguments.values() if isinstance(value, np.ndarray)]
    return arrays, [value for value in arguments.values() if not isinstance(value, np.ndarray)]


def samples(device):
    rpn, (levels, sizes) = tensors("generate_proposals", device)
    sides = [float(side) for size in sizes for side in size]
    boxes, scores = tensors("detect", device)[0]
    numbers = (0.0, 1e-3, [1.0] * 4, 4.0)
    return {
        "generate_proposals": [
            (*rpn, levels, sides, 20, 10, 0.7, *numbers),
            (rpn[0].half(), rpn[1].bfloat16(), rpn[2].double(), levels, sides, 1000, 1000, 0.5, *numbers),
        ],
        "detect": [
            (boxes, scores, 0.2, 0.5, 10, None, None, False),
            (boxes[:, :, 0].half(), scores.double(), 0.2, 0.5, 100, 5, 1.0, True),
        ],
    }


def calls(device):
    import boxops

    rpn, (levels, sizes) = tensors("generate_proposals", device)
    return {
        "generate_proposals": (lambda *some: boxops.generate_proposals(*some, levels, sizes, 20, 10), tuple(rpn)),
        "detect": (lambda *some: boxops.detect(*some, 0.2, topk_per_class=5), tuple(tensors("detect", device)[0])),
    }
