"""Cases of the matching of anchors to ground truth."""

from itertools import product

import numpy as np
from box_sets import BOXES, far_boxes, integer_boxes, random_boxes

from cases.case import FLOATS, INTEGERS, SIZES, Case, shaped, zeros

CROWD = {"extent": 100.0, "sides": (20.0, 80.0)}


def of_anchors(name, anchors, truths, dtypes=FLOATS, **arguments):
    """`truths`: (generator, anchors) -> gt_boxes; `arguments` may hold functions of (generator, anchors, gt_boxes)."""

    def make(rng, dtype):
        made = anchors(rng, dtype)
        boxes = truths(rng, made)
        more = {key: value(rng, made, boxes) if callable(value) else value for key, value in arguments.items()}
        return {"anchors": made, "gt_boxes": boxes, **more}

    return Case(name, make, dtypes)


def some(count, **options):
    return lambda rng, _: random_boxes(rng, count, **options)


def taken(rng, anchors):
    """Some of the anchors, in another order, and some other boxes."""
    return np.concatenate(
        [rng.permutation(anchors)[: len(anchors) // 4 + 1], random_boxes(rng, 3).astype(anchors.dtype)]
    )


def grid_anchors(side, stride=16.0):
    """Nine anchors per place, three sizes by three shapes: many equal IoUs."""
    y, x = np.divmod(np.arange(side * side), side)
    centre = np.stack([x, y], axis=1)[:, None] * stride + stride / 2
    half = np.array([(s * r, s / r) for s, r in product((16.0, 32.0, 64.0), (0.5, 1.0, 2.0))]) / 2
    return np.concatenate([centre - half, centre + half], axis=2).reshape(-1, 4)


def on_the_grid(rng, anchors):
    """Boxes centred on places or between them, so that anchors around tie."""
    centre, half = rng.integers(0, 13, (9, 2)) * 8.0, rng.choice([8.0, 16.0, 24.0], (9, 2))
    return np.concatenate([centre - half, centre + half], axis=1)


def ragged(*counts):
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def truths_of(*counts, **options):
    return {"truths": some(sum(counts), **options), "offsets": ragged(*counts)}


def repeated(count):
    return lambda rng, anchors: np.repeat(anchors[:1], count, axis=0)


def far_away(count):
    return lambda rng, _: random_boxes(rng, count) + 3000.0


def both(**options):
    """What both ops on boxes are tried on."""
    yield from (of_anchors(name, boxes, taken, **options) for name, boxes in BOXES.items())
    yield of_anchors("integers", integer_boxes, taken, INTEGERS, **options)
    yield from (of_anchors(f"{n} anchors", shaped(n), some(5), **options) for n in SIZES)
    yield from (of_anchors(f"{n} boxes", shaped(70), some(n), **options) for n in (0, 1, 2, 65, 257))
    yield of_anchors("grid", lambda rng, _: grid_anchors(7), on_the_grid, **options)
    yield of_anchors("equal boxes", shaped(300, **CROWD), repeated(40), **options)
    yield of_anchors("equal anchors and boxes", BOXES["identical"], repeated(40), **options)
    yield of_anchors("nothing meets", shaped(300), far_away(20), **options)
    yield of_anchors("nothing meets, more boxes", shaped(30), far_away(50), **options)
    yield of_anchors("more boxes than anchors", shaped(17, **CROWD), some(60, **CROWD), **options)
    yield of_anchors("shared anchors", shaped(300), **truths_of(3, 0, 40, 1), **options)
    yield of_anchors("own anchors", shaped(4, 300), **truths_of(3, 0, 40, 1), **options)
    yield of_anchors("own anchors, one image", shaped(1, 20), **truths_of(7), **options)
    yield of_anchors("no boxes in any image", shaped(20), **truths_of(0, 0, 0), **options)
    yield of_anchors("no images", shaped(20), **truths_of(), **options)
    yield of_anchors("no images, own anchors", shaped(0, 20), **truths_of(), **options)
    yield of_anchors("no anchors", shaped(0), **truths_of(3, 4), **options)
    yield of_anchors("no anchors, one image", shaped(0), some(3), **options)
    yield of_anchors("many small images", shaped(40, 9), **truths_of(*[3, 0, 5, 1] * 10), **options)


def named(suffix, all_cases):
    return [Case(f"{case.name}, {suffix}", case.make, case.dtypes) for case in all_cases]


def ignore_of(*counts):
    return {"ignore_boxes": lambda rng, *_: random_boxes(rng, sum(counts)), "ignore_offsets": ragged(*counts)}


def match_max_iou():
    yield from named("0.7, 0.3, low quality", both(high=0.7, low=0.3, allow_low_quality=True))
    yield from named("0.5", both(high=0.5))
    for high, low, restored in [*product((0.0, 0.3), (None, 0.0), (False, True)), (1.0, 0.2, True), (2.0, -1.0, True)]:
        yield of_anchors(f"{high}, {low}, {restored}", shaped(100, **CROWD), some(9, **CROWD), high=high, low=low,
                         allow_low_quality=restored)  # fmt: skip
    rule = {"high": 0.5, "low": 0.4}
    for restored, threshold in product((False, True), (0.0, 0.5, 1.0)):
        rule |= {"allow_low_quality": restored, "ignore_threshold": threshold}
        suffix = f"ignore over {threshold}, {restored}"
        yield of_anchors(suffix, shaped(300), some(5), ignore_boxes=lambda rng, *_: random_boxes(rng, 7), **rule)
        yield of_anchors(f"shared, {suffix}", shaped(300), **truths_of(3, 0, 9), **ignore_of(0, 4, 2), **rule)
        yield of_anchors(f"own, {suffix}", shaped(3, 300), **truths_of(3, 0, 9), **ignore_of(2, 5, 0), **rule)
        yield of_anchors(f"equal, {suffix}", BOXES["touching"], taken, ignore_boxes=taken_anchors, **rule)
        yield of_anchors(f"nan and inf, {suffix}", BOXES["nan, inf and 0"], taken, ignore_boxes=taken_anchors, **rule)
    yield of_anchors("ignore, integers", integer_boxes, taken, INTEGERS, ignore_boxes=taken_anchors, **rule)
    yield of_anchors("ignore none", shaped(70), some(5), ignore_boxes=some_of_none, **rule)


def taken_anchors(rng, anchors, truths):
    return taken(rng, anchors)


def some_of_none(rng, anchors, truths):
    return np.zeros((0, 4))


def match_greedy():
    yield from named("no threshold", both())
    yield from named("0.5", both(iou_threshold=0.5))
    yield of_anchors("0", shaped(300), some(5), iou_threshold=0.0)


def of_matrix(name, shape, values, iou_threshold):
    return Case(
        f"{name} {shape}, {iou_threshold}",
        lambda rng, dtype: {"iou": values(rng, shape).astype(float), "iou_threshold": iou_threshold},
    )


VALUES = {
    "random": lambda rng, shape: rng.random(shape),
    "tied": lambda rng, shape: rng.integers(0, 4, shape) / 4,
    "zero": lambda rng, shape: rng.choice([0.0, -0.0], shape),
    "constant": lambda rng, shape: np.ones(shape),
    "negative": lambda rng, shape: -rng.random(shape),
    "nan": lambda rng, shape: np.where(rng.random(shape) < 0.4, np.nan, rng.random(shape)),
    "all nan": lambda rng, shape: np.full(shape, np.nan),
    "infinite": lambda rng, shape: rng.choice([np.inf, -np.inf, np.nan, 1.0], shape),
    "equal columns": lambda rng, shape: np.broadcast_to(rng.random((*shape[:-1], 1)), shape),
    "equal rows": lambda rng, shape: np.broadcast_to(rng.random((*shape[:-2], 1, shape[-1])), shape),
}


def match_greedy_matrix():
    shapes = [
        (0, 0),
        (0, 3),
        (3, 0),
        (1, 1),
        (31, 33),
        (65, 40),
        (20, 70),
        (2, 33, 17),
        (0, 3, 2),
        (3, 0, 2),
        (2, 3, 0),
    ]
    for i, (shape, name) in enumerate(product(shapes, VALUES)):
        yield of_matrix(name, shape, VALUES[name], (None, 0.5, 0.0)[i % 3])
    yield from (of_matrix("random", (n, 7), VALUES["random"], 0.7) for n in SIZES)
    yield from (of_matrix("tied", (9, n), VALUES["tied"], 0.7) for n in SIZES[:-3])


CASES = {
    "match_greedy": list(match_greedy()),
    "match_greedy_matrix": list(match_greedy_matrix()),
    "match_max_iou": list(match_max_iou()),
}


def wrong(op, **valid):
    """Bad arguments of an op on anchors and boxes, and the words."""
    offsets = np.array([0, 2, 3])
    valid = {"anchors": zeros(5, 4), "gt_boxes": zeros(3, 4), **valid}
    for arguments, words in [
        ({"anchors": zeros(5, 3)}, "anchors of shape [A, 4], got [5, 3]"),
        ({"anchors": zeros(4)}, "anchors of shape [A, 4], got [4]"),
        ({"anchors": zeros(1, 5, 3), "offsets": offsets}, "anchors of shape [B, A, 4], got [1, 5, 3]"),
        ({"anchors": zeros(2, 5, 4)}, "anchors of shape [A, 4] without offsets, got [2, 5, 4]"),
        ({"anchors": zeros(3, 5, 4), "offsets": offsets}, "anchors of shape [A, 4] or [2, A, 4], got [3, 5, 4]"),
        ({"anchors": zeros(5, 4, dtype=bool)}, "anchors of a real number type, got bool"),
        ({"gt_boxes": zeros(3, 5)}, "gt_boxes of shape [G, 4], got [3, 5]"),
        ({"gt_boxes": zeros(1, 3, 4)}, "gt_boxes of shape [G, 4], got [1, 3, 4]"),
        ({"gt_boxes": zeros(3, 4, dtype=complex)}, "gt_boxes of a real number type, got complex128"),
        ({"offsets": offsets[None]}, "offsets of shape [B + 1], got [1, 3]"),
        ({"offsets": np.zeros(0, int)}, "offsets of shape [B + 1], got [0]"),
        ({"offsets": offsets.astype(np.float32)}, "offsets of an integer type, got float32"),
    ]:
        yield op, {**valid, **arguments}, words


WRONG_OFFSETS = [  # seen on the CPU only
    ([0, 2, 1, 3], "offsets that never fall, got 1 after 2 at 2"),
    ([0, 2], "offsets from 0 to 3, the number of gt_boxes, got 0 to 2"),
    ([1, 3], "offsets from 0 to 3, the number of gt_boxes, got 1 to 3"),
]
MAX_IOU = {"anchors": zeros(5, 4), "gt_boxes": zeros(3, 4), "high": 0.5}
GREEDY = {"anchors": zeros(5, 4), "gt_boxes": zeros(3, 4)}
IN_TWO = {**MAX_IOU, "offsets": np.array([0, 2, 3])}
WRONG_VALUES = [
    *wrong("match_max_iou", high=0.5),
    *wrong("match_greedy"),
    ("match_max_iou", {**MAX_IOU, "high": np.nan}, "a number for high, got nan"),
    ("match_max_iou", {**MAX_IOU, "low": np.nan}, "a number for low, got nan"),
    ("match_max_iou", {**MAX_IOU, "low": 0.75}, "low <= high, got 0.75 and 0.5"),
    ("match_max_iou", {**MAX_IOU, "ignore_threshold": -0.5}, "ignore_threshold >= 0, got -0.5"),
    ("match_max_iou", {**MAX_IOU, "ignore_threshold": np.nan}, "ignore_threshold >= 0, got nan"),
    ("match_max_iou", {**MAX_IOU, "ignore_boxes": zeros(4)}, "ignore_boxes of shape [C, 4], got [4]"),
    ("match_max_iou", {**MAX_IOU, "ignore_boxes": zeros(1, 4, dtype=bool)},
        "ignore_boxes of a real number type, got bool"),
    ("match_max_iou", {**MAX_IOU, "ignore_offsets": np.zeros(2, int)}, "ignore_boxes with ignore_offsets, got None"),
    ("match_max_iou", {**IN_TWO, "ignore_boxes": zeros(1, 4)},
        "ignore_offsets with offsets and ignore_boxes, got None"),
    ("match_max_iou", {**MAX_IOU, "ignore_boxes": zeros(1, 4), "ignore_offsets": np.array([0, 1])},
        "offsets with ignore_offsets, got None"),
    ("match_max_iou", {**IN_TWO, "ignore_boxes": zeros(1, 4), "ignore_offsets": np.array([0, 1])},
        "ignore_offsets as long as offsets, 3, got 2"),
    ("match_max_iou", {**IN_TWO, "ignore_boxes": zeros(1, 4), "ignore_offsets": zeros(3)},
        "ignore_offsets of an integer type, got float32"),
    ("match_greedy", {**GREEDY, "iou_threshold": -1}, "iou_threshold >= 0, got -1"),
    ("match_greedy", {**GREEDY, "iou_threshold": np.nan}, "iou_threshold >= 0, got nan"),
    ("match_greedy_matrix", {"iou": zeros(3)}, "iou of shape [A, G] or [B, A, G], got [3]"),
    ("match_greedy_matrix", {"iou": zeros(1, 1, 3, 2)}, "iou of shape [A, G] or [B, A, G], got [1, 1, 3, 2]"),
    ("match_greedy_matrix", {"iou": zeros(3, 2, dtype=int)}, "iou of a floating type, got int64"),
    ("match_greedy_matrix", {"iou": zeros(3, 2), "iou_threshold": -0.5}, "iou_threshold >= 0, got -0.5"),
]  # fmt: skip
NO_ARRAY = "arrays (NumPy, torch or DLPack), got list"
WRONG_TYPES = [
    ("match_max_iou", {"anchors": [[0.0, 0, 1, 1]], "gt_boxes": [[0.0, 0, 1, 1]], "high": 0.5}, NO_ARRAY),
    ("match_max_iou", {**MAX_IOU, "high": "0.5"}, "high as a number, got str"),
    ("match_max_iou", {**MAX_IOU, "low": "0.5"}, "low as a number, got str"),
    ("match_max_iou", {**MAX_IOU, "ignore_threshold": None}, "ignore_threshold as a number, got NoneType"),
    ("match_greedy", {"anchors": [[0.0, 0, 1, 1]], "gt_boxes": [[0.0, 0, 1, 1]]}, NO_ARRAY),
    ("match_greedy", {**GREEDY, "iou_threshold": "0"}, "iou_threshold as a number, got str"),
    ("match_greedy_matrix", {"iou": [[0.5]]}, NO_ARRAY),
    ("match_greedy_matrix", {"iou": zeros(1, 1), "iou_threshold": "0"}, "iou_threshold as a number, got str"),
]


_PAIR = {"anchors": zeros(3, 4), "gt_boxes": zeros(3, 4)}
NUMBERS = {
    "match_max_iou": [(_PAIR, {"high": 0.7, "low": 0.3, "ignore_threshold": 0.5})],
    "match_greedy": [(_PAIR, {"iou_threshold": 0.5})],
    "match_greedy_matrix": [({"iou": zeros(3, 3)}, {"iou_threshold": 0.5})],
}
INFINITE = {"ignore_threshold"}  # numbers that may be infinite
CONSTANT = {*NUMBERS}


def far(rng):
    boxes, others = far_boxes(rng, 40), far_boxes(rng, 7)
    return {
        "match_max_iou": {"anchors": boxes, "gt_boxes": others, "high": 0.3, "ignore_boxes": others[:2]},
        "match_greedy": {"anchors": boxes, "gt_boxes": others},
    }


def tensors(device):
    import torch

    rng = np.random.default_rng(0)
    anchors, boxes = (torch.from_numpy(random_boxes(rng, n, **CROWD)).float().to(device) for n in (40, 7))
    return anchors, boxes, torch.tensor([0, 3, 7], device=device)


def samples(device):
    anchors, boxes, offsets = tensors(device)
    own, leaf = anchors.reshape(2, 20, 4), anchors.double().requires_grad_()
    return {
        "match_max_iou": [
            (anchors, boxes, 0.7, 0.3, True, None, None, None, 0.5),
            (own.half(), boxes.half(), 0.5, 0.5, False, offsets, boxes.half(), offsets, 0.5),
            (leaf, boxes.double(), 0.5, 0.5, False, None, boxes.double(), None, 0.5),
            (anchors, boxes.int(), 0.5, 0.5, False, None, boxes.half(), None, 0.5),
        ],
        "match_greedy": [(anchors, boxes, None, None), (own.bfloat16(), boxes.bfloat16(), 0.5, offsets)],
        "match_greedy_matrix": [(anchors, None), (own.half(), 0.5), (leaf, 0.5)],
    }


def calls(device):
    import boxops

    anchors, boxes, offsets = tensors(device)
    return {
        "match_max_iou": (
            lambda a, g, o: boxops.match_max_iou(a, g, 0.7, 0.3, True, offsets=o, ignore_boxes=g, ignore_offsets=o),
            (anchors, boxes, offsets),
        ),
        "match_greedy": (lambda a, g: boxops.match_greedy(a, g, 0.5), (anchors, boxes)),
        "match_greedy_matrix": (lambda iou: boxops.match_greedy_matrix(iou), (anchors,)),
    }
