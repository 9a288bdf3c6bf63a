"""Cases of rotated boxes."""

from itertools import pairwise, product

import numpy as np
from box_sets import GROUPS, SCORES, far_boxes, grid

from cases.case import FLOATS, INTEGERS, SIZES, Case, zeros


def rotated(rng, shape, extent=300.0, sides=(8.0, 200.0), angles=(-180.0, 180.0)):
    """[*shape, 5]: centres in [0, extent], sides in between `sides`."""
    shape = tuple(np.atleast_1d(shape)) if shape != () else ()
    parts = rng.uniform(0, extent, (*shape, 2)), rng.uniform(*sides, (*shape, 2)), rng.uniform(*angles, (*shape, 1))
    return np.concatenate(parts, axis=-1)


def sprinkled(rng, *values):
    """A fifth of all numbers, and all numbers of a few boxes, are drawn from `values`."""
    boxes = rotated(rng, 80, 100.0)
    boxes = np.where(rng.random(boxes.shape) < 0.2, rng.choice(values, boxes.shape), boxes)
    boxes[:4] = rng.choice(values, (4, 5))
    return boxes


def degenerate(rng):
    boxes = rotated(rng, 60)
    boxes[0::6, 2] = 0
    boxes[1::6, 3] = 0
    boxes[2::6, 2:4] = 0
    boxes[3::6, 2] *= -1
    boxes[4::6, 2:4] *= -1
    return boxes


def lattice(rng):
    """Centres, sides and angles in few steps: shared edges, corners on edges, boxes inside boxes, equal boxes."""
    parts = rng.integers(0, 8, (150, 2)), 2 * rng.integers(1, 5, (150, 2)), 45 * rng.integers(-9, 9, (150, 1))
    return np.concatenate(parts, axis=1).astype(float)


def nearly_equal(rng):
    """One box over and over, off by anything from a part in a billion to a tenth."""
    boxes = np.repeat(rotated(rng, 4), 30, axis=0)
    return rng.permutation(boxes * (1 + rng.normal(0, 1, boxes.shape) * 10.0 ** rng.uniform(-9, -1, (120, 1))))


def nearly_parallel(rng):
    boxes = rotated(rng, 100, 40.0, (20.0, 90.0))
    boxes[:, 4] = rng.choice([-90, 0, 30, 90, 180], 100) + rng.normal(0, 1, 100) * 10.0 ** rng.uniform(-7, -2, 100)
    return boxes


def scaled(float32, float64):
    def make(rng, dtype):
        return rotated(rng, 60, 30.0, (1.0, 30.0)) * ([float64 if dtype == "float64" else float32] * 4 + [1])

    return make


# Name -> (generator, dtype) -> boxes.
BOXES = {
    "none": lambda rng, dtype: np.zeros((0, 5)),
    "one": lambda rng, dtype: rotated(rng, 1),
    "random": lambda rng, dtype: rotated(rng, 150),
    "spread": lambda rng, dtype: rotated(rng, 500, 3000.0),
    "crowded": lambda rng, dtype: rotated(rng, 200, 60.0, (30.0, 80.0)),
    "identical": lambda rng, dtype: np.repeat(rotated(rng, 1), 33, axis=0),
    "right angles": lambda rng, dtype: np.c_[rng.integers(0, 90, (150, 4)), 90 * rng.integers(-40, 40, 150)] * 1.0,
    "axis-parallel": lambda rng, dtype: np.c_[grid(9)[:, :2] + 5, np.full((81, 2), 10), np.zeros(81)],
    "lattice": lambda rng, dtype: lattice(rng),
    "nearly equal": lambda rng, dtype: nearly_equal(rng),
    "nearly parallel": lambda rng, dtype: nearly_parallel(rng),
    "nested": lambda rng, dtype: np.c_[np.zeros((40, 2)), np.arange(1.0, 81).reshape(40, 2), np.arange(40) * 7],
    "long and thin": lambda rng, dtype: rotated(rng, 150, 200.0) * [1, 1, 1, 0.01, 0.05],
    "many turns": lambda rng, dtype: rotated(rng, 150, angles=(-6e4, 6e4)),
    "degenerate": lambda rng, dtype: degenerate(rng),
    "nan": lambda rng, dtype: sprinkled(rng, np.nan),
    "inf": lambda rng, dtype: sprinkled(rng, np.inf, -np.inf),
    "nan, inf and 0": lambda rng, dtype: sprinkled(rng, np.nan, np.inf, -np.inf, 0.0, -0.0),
    "huge and tiny": lambda rng, dtype: sprinkled(rng, 1e38, -1e38, 1e-38, 3e18, 1e-20, 1e-3, 1e5),
    "far": lambda rng, dtype: rotated(rng, 120) + np.array([1e5, 1e5, 0, 0, 0]),
    "tiny and far": lambda rng, dtype: rotated(rng, 120, 1.0, (0.02, 1.0)) + np.array([6e4, -6e4, 0, 0, 0]),
    "edge of overflow": scaled(3e17, 3e152),
    "overflow": scaled(1e30, 1e200),
    "subnormal areas": scaled(1e-20, 1e-155),
    "subnormal sides": scaled(1e-40, 1e-310),
    "mixed scales": lambda rng, dtype: rotated(rng, 200) * (10.0 ** rng.uniform(-2, 2, (200, 5))) ** [0, 0, 1, 1, 0],
}


def shaped(*shape, **options):
    return lambda rng, dtype: rotated(rng, shape, **options)


def integer_boxes(rng, dtype):
    """Small boxes, and boxes over all that the dtype can hold."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    boxes = np.concatenate([rng.integers(max(low, -60), 60, (60, 2)), rng.integers(1, 60, (60, 3))], axis=1)
    extremes = [[0, 0, high, high, 0], [low, low, high, high, high], [high, 0, 1, high, low], [1, 1, low, high, 3]]
    return np.concatenate([boxes.astype(dtype), np.array(extremes, dtype), boxes[:20].astype(dtype)])


def pairs(name, boxes, partners, dtypes=FLOATS, **options):
    def make(rng, dtype):
        boxes1 = boxes(rng, dtype)
        return {"boxes1": boxes1, "boxes2": partners(rng, boxes1), **options}

    return Case(f"{name}, {options}", make, dtypes)


def of_shapes(shape1, shape2, **options):
    return pairs(f"{shape1} x {shape2}", shaped(*shape1), lambda rng, _: rotated(rng, shape2), **options)


def reversed_and_more(rng, boxes):
    return np.concatenate([boxes[::-1], rotated(rng, 17).astype(boxes.dtype)])


def shuffled(rng, boxes):
    return rng.permutation(boxes)


def rotated_box_iou():
    yield from (pairs(name, boxes, reversed_and_more) for name, boxes in BOXES.items())
    yield from (pairs(name, boxes, shuffled, paired=True) for name, boxes in BOXES.items())
    yield pairs("integers", integer_boxes, shuffled, INTEGERS)
    yield pairs("integers", integer_boxes, shuffled, INTEGERS, paired=True)
    for n, m in [*pairwise(SIZES[:-1]), (1, 4097), (1000, 1), (257, 255)]:
        yield of_shapes((n,), (m,))
    yield from (of_shapes((n,), (n,), paired=True) for n in SIZES)
    batches = [((2, 3, 5), (2, 3, 7)), ((3, 1, 5), (2, 7)), ((5,), (4, 7)), ((0, 5), (1, 7)), ((2, 0), (7,))]
    yield from (of_shapes(*batch) for batch in batches)
    batches = [((5, 1), (7,)), ((), ()), ((), (9,)), ((3, 1, 4), (2, 1)), ((0, 5), (5,))]
    yield from (of_shapes(*batch, paired=True) for batch in batches)


THRESHOLDS = (0.0, 0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999, 1.0, 3.0)


def scored(name, boxes, scores="distinct", dtypes=FLOATS, iou_threshold=0.5, **arguments):
    """`arguments` may hold functions (generator, shape of scores) -> value."""

    def make(rng, dtype):
        made = boxes(rng, dtype)
        more = {key: value(rng, made.shape[:-1]) for key, value in arguments.items()}
        return {"boxes": made, "scores": SCORES[scores](rng, made.shape[:-1]), "iou_threshold": iou_threshold, **more}

    return Case(name, make, dtypes)


def rotated_nms():
    varied = [*product(SCORES, THRESHOLDS)]
    for i, (name, boxes) in enumerate(BOXES.items()):
        for scores, threshold in dict.fromkeys([("distinct", 0.5), *varied[7 * i % 40 :: 40]]):
            yield scored(f"{name}, {scores} scores, {threshold}", boxes, scores, iou_threshold=threshold)
    yield from (scored(f"{n} boxes", shaped(n, extent=9 * n**0.5)) for n in SIZES[:-1])
    yield scored(f"{SIZES[-1]} boxes", shaped(SIZES[-1], extent=600.0), dtypes=DECISIVE[:1])
    yield scored("integers", integer_boxes, dtypes=INTEGERS)
    for threshold in THRESHOLDS[:-2]:
        yield scored(f"pairs about {threshold}", about(threshold), "constant", DECISIVE, iou_threshold=threshold)


DECISIVE = ("float32", "float64")  # dtypes that hold the numbers of these pairs


def about(threshold):
    """Pairs that touch no other pair. One box of each slides away from the other until the IoU falls to the threshold,
    and stops by turns right before and right after that."""

    def make(rng, dtype):
        from boxops.reference import rotated_box_iou

        first = rotated(rng, 60, 50.0, (40.0, 160.0)).astype(dtype)
        first[:, :2] += np.stack(np.divmod(np.arange(60), 10), axis=1) * 900
        way = rng.uniform(-1, 1, (60, 2)) * 260
        turn = rng.choice([0, 1e-4, 3, 90], 60)

        def moved(by):
            second = first.astype(float)
            second[:, :2] += by[:, None] * way
            second[:, 4] += turn * (1 - threshold)
            return second.astype(dtype)

        before, after = np.zeros(60), np.ones(60)
        for _ in range(60):  # bisect until the two are neighbours
            middle = (before + after) / 2
            over = rotated_box_iou(first, moved(middle), paired=True) > np.dtype(dtype).type(threshold)
            before, after = np.where(over, middle, before), np.where(over, after, middle)
        return np.concatenate([first, moved(np.where(np.arange(60) % 2, before, after))])

    return make


def batched_rotated_nms():
    for i, (name, boxes) in enumerate(BOXES.items()):
        for scores, groups in list(product(SCORES, GROUPS))[7 * i % 30 :: 30]:
            yield scored(f"{name}, {scores} scores, {groups}", boxes, scores, idxs=GROUPS[groups])
    yield from (scored(f"{n} boxes", shaped(n), idxs=GROUPS["3 groups"]) for n in SIZES[:-2])
    yield scored("integers", integer_boxes, dtypes=INTEGERS, idxs=GROUPS["3 groups"])


CASES = {
    "rotated_box_iou": list(rotated_box_iou()),
    "rotated_nms": list(rotated_nms()),
    "batched_rotated_nms": list(batched_rotated_nms()),
}


PAIR = {"boxes1": zeros(3, 5), "boxes2": zeros(3, 5)}
NMS = {"boxes": zeros(3, 5), "scores": zeros(3), "iou_threshold": 0.5}
BATCHED = {**NMS, "idxs": zeros(3, dtype=np.int64)}
IOU, GROUPED = "rotated_box_iou", "batched_rotated_nms"
WRONG_VALUES = [
    (IOU, {**PAIR, "boxes1": zeros(3, 4)}, "boxes1 of shape [..., N, 5], got [3, 4]"),
    (IOU, {**PAIR, "boxes2": zeros(5)}, "boxes2 of shape [..., M, 5], got [5]"),
    (IOU, {**PAIR, "boxes1": zeros(3), "paired": True}, "boxes1 of shape [..., 5], got [3]"),
    (IOU, {**PAIR, "boxes2": zeros(), "paired": True}, "boxes2 of shape [..., 5], got []"),
    (IOU, {**PAIR, "boxes1": zeros(3, 5, dtype=bool)}, "boxes1 of a real number type, got bool"),
    (IOU, {"boxes1": zeros(2, 3, 5), "boxes2": zeros(3, 3, 5)},
        "leading dims that broadcast, got [2, 3, 5] and [3, 3, 5]"),
    (IOU, {"boxes1": zeros(2, 5), "boxes2": zeros(3, 5), "paired": True},
        "leading dims that broadcast, got [2, 5] and [3, 5]"),
    (IOU, {**PAIR, "boxes1": zeros(*[1] * 16, 5)}, "arrays of at most 16 dims, got 17"),
    *((op, {**base, "boxes": zeros(3, 4)}, "boxes of shape [N, 5], got [3, 4]")
      for op, base in (("rotated_nms", NMS), (GROUPED, BATCHED))),
    ("rotated_nms", {**NMS, "boxes": zeros(5)}, "boxes of shape [N, 5], got [5]"),
    ("rotated_nms", {**NMS, "boxes": zeros(1, 3, 5)}, "boxes of shape [N, 5], got [1, 3, 5]"),
    ("rotated_nms", {**NMS, "boxes": zeros(3, 5, dtype=bool)}, "boxes of a real number type, got bool"),
    ("rotated_nms", {**NMS, "scores": zeros(4)}, "scores of shape [3], got [4]"),
    ("rotated_nms", {**NMS, "scores": zeros(3, dtype=bool)}, "scores of a real number type, got bool"),
    ("rotated_nms", {**NMS, "iou_threshold": -0.5}, "iou_threshold >= 0, got -0.5"),
    ("rotated_nms", {**NMS, "iou_threshold": np.nan}, "iou_threshold >= 0, got nan"),
    (GROUPED, {**BATCHED, "idxs": zeros(3, dtype=complex)}, "idxs of a real number type, got complex128"),
    (GROUPED, {**BATCHED, "idxs": zeros(2, dtype=np.int64)}, "idxs of shape [3], got [2]"),
    (GROUPED, {**BATCHED, "iou_threshold": -1.0}, "iou_threshold >= 0, got -1"),
]  # fmt: skip
WRONG_TYPES = [
    (IOU, {"boxes1": [[0.0] * 5], "boxes2": [[0.0] * 5]}, "arrays (NumPy, torch or DLPack), got list"),
    ("rotated_nms", {**NMS, "iou_threshold": "0.5"}, "iou_threshold as a number, got str"),
    (GROUPED, {**BATCHED, "iou_threshold": None}, "iou_threshold as a number, got NoneType"),
]


SCORED = {"boxes": zeros(3, 5), "scores": zeros(3)}
NUMBERS = {
    "rotated_nms": [(SCORED, {"iou_threshold": 0.5})],
    "batched_rotated_nms": [({**SCORED, "idxs": zeros(3, dtype=np.int64)}, {"iou_threshold": 0.5})],
}


def far_turned(rng, *shape):
    boxes = far_boxes(rng, *shape)
    size, angle = boxes[..., 2:] - boxes[..., :2], rng.integers(0, 90, (*shape, 1))
    return np.concatenate([boxes[..., :2], size, angle], axis=-1)


def far(rng):
    turned = {"boxes": far_turned(rng, 40), "scores": rng.random(40), "iou_threshold": 0.3}
    return {
        "rotated_box_iou": {"boxes1": turned["boxes"], "boxes2": far_turned(rng, 7)},
        "rotated_nms": turned,
        "batched_rotated_nms": {**turned, "idxs": rng.integers(0, 3, 40)},
    }


def tensors(device, count=40, lead=()):
    import torch

    rng = np.random.default_rng(0)
    boxes = torch.from_numpy(rotated(rng, (*lead, count), 100.0)).to(device, torch.float32)
    return boxes, torch.from_numpy(rng.random((*lead, count))).to(device, torch.float32)


def samples(device):
    boxes, scores = tensors(device)
    batch, _ = tensors(device, lead=(2,))
    labels = (scores * 3).long()
    return {
        "rotated_box_iou": [(boxes, boxes[:7], False), (batch.double(), boxes.double(), False), (batch, boxes, True)],
        "rotated_nms": [(boxes, scores, 0.5)],
        "batched_rotated_nms": [(boxes, scores, labels, 0.5)],
    }


def calls(device):
    import boxops

    boxes, scores = tensors(device)
    return {
        "rotated_box_iou": (boxops.rotated_box_iou, (boxes, boxes[:7])),
        "rotated_nms": (lambda b, s: boxops.rotated_nms(b, s, 0.5), (boxes, scores)),
        "batched_rotated_nms": (
            lambda b, s: boxops.batched_rotated_nms(b, s, (s * 3).long(), 0.5),
            (boxes, scores),
        ),
    }
