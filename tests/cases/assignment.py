"""Cases of assignment and of DETR's matching costs."""

import numpy as np
from box_sets import random_boxes

from cases.case import FLOATS, INTEGERS, Case, as_dtype, zeros


def of_costs(name, cost, dtypes=FLOATS, **arguments):
    """`cost`: (generator, dtype) -> array."""
    return Case(name, lambda rng, dtype: {"cost": cost(rng, dtype), **arguments}, dtypes)


def uniform(*shape):
    return lambda rng, dtype: rng.uniform(-1, 1, shape)


def tied(*shape, levels=4):
    return lambda rng, dtype: rng.integers(0, levels, shape).astype(float)


def forbidding(*shape, share=0.4, value=np.inf):
    """Some costs infinite, but never those of one assignment."""

    def make(rng, dtype):
        cost = np.where(rng.random(shape) < share, value, rng.uniform(-1, 1, shape))
        rows, columns = shape[-2:]
        k = min(rows, columns)
        for one in cost.reshape(-1, rows, columns):
            one[rng.permutation(rows)[:k], rng.permutation(columns)[:k]] = 0.5
        return cost

    return make


def faulty(*shape, counts=None, maximize=False):
    """Of six problems two have a NaN, two a cost infinite the wrong way, one no finite assignment, and one is good."""

    def make(rng, dtype):
        cost = rng.integers(0, 9, shape).astype(float)
        forbidden = -np.inf if maximize else np.inf
        problems = np.split(cost, np.cumsum(counts)[:-1]) if counts else cost
        for b, problem in enumerate(problems):
            rows, columns = problem.shape
            if problem.size and b % 3:
                problem[rng.integers(rows), rng.integers(columns)] = np.nan if b % 3 == 1 else -forbidden
            elif problem.size and b % 2:
                problem[rng.integers(rows) if rows <= columns else slice(None)] = forbidden
        return cost

    return make


def integers(*shape):
    """Over all that the dtype can hold, and a few small ones."""

    def make(rng, dtype):
        info = np.iinfo(dtype)
        values = np.array([info.min, info.max, 0, 1, 2, 3, info.max // 2], dtype)
        return rng.choice(values, shape)

    return make


def huge(rng, dtype):
    largest = {"float16": 65504.0, "float64": np.finfo(np.float64).max}.get(dtype, 3e38)
    return np.where(rng.random((9, 12)) < 0.3, rng.choice([-1.0, 1.0], (9, 12)), rng.uniform(-1, 1, (9, 12))) * largest


def wide_range(rng, dtype):
    return 10.0 ** rng.uniform(-7, 4, (17, 17)) * rng.choice([-1, 1], (17, 17))


def products(n):
    """The cost i * j, on which shortest augmenting paths are as long as can be."""
    return lambda rng, dtype: np.outer(np.arange(1.0, n + 1), np.arange(1.0, n + 1))


def crowded(*shape):
    """All rows want the same three columns."""
    return lambda rng, dtype: np.broadcast_to(np.arange(shape[1]) > 2, shape).astype(float)


def offsets(*counts):
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def ragged(counts, columns, make=uniform, **options):
    return of_costs(f"ragged {counts} x {columns}, {make.__name__}, {options}", make(sum(counts), columns),
                    offsets=offsets(*counts), **options)  # fmt: skip


SHAPES = [(1, 1), (1, 9), (9, 1), (5, 5), (7, 8), (8, 7), (15, 17), (16, 16), (17, 33), (33, 17), (40, 64), (65, 40)]
SHAPES += [(3, 300), (300, 3), (3, 7, 5), (3, 5, 7), (20, 1, 1)]
SHAPES += [(0, 5), (5, 0), (0, 0), (0, 3, 4), (4, 0, 3), (4, 3, 0)]


def assignments():
    for shape in SHAPES:
        yield of_costs(f"{shape}", uniform(*shape))
        yield of_costs(f"{shape}, maximize", uniform(*shape), maximize=True)
        yield of_costs(f"{shape}, tied", tied(*shape))
    yield of_costs("constant", lambda rng, dtype: np.full((20, 25), 0.5))
    yield of_costs("all zero, either sign", lambda rng, dtype: rng.choice([0.0, -0.0], (12, 12)))
    for shape in [(12, 12), (9, 30), (30, 9), (4, 10, 8)]:
        yield of_costs(f"{shape}, forbidden pairs", forbidding(*shape))
        yield of_costs(f"{shape}, maximize with forbidden pairs", forbidding(*shape, value=-np.inf), maximize=True)
        yield of_costs(f"{shape}, nearly all forbidden", forbidding(*shape, share=0.95))
    yield of_costs("huge", huge)
    yield of_costs("wide range", wide_range)
    yield of_costs("products", products(30))
    for shape in [(20, 20), (20, 25), (25, 20)]:
        yield of_costs(f"{shape}, crowded", crowded(*shape))
    yield of_costs("integers", integers(20, 30), INTEGERS)
    yield of_costs("integers, more rows", integers(3, 13, 7), INTEGERS)
    yield of_costs("integers, maximize", integers(17, 17), INTEGERS, maximize=True)
    for shape in [(7, 5, 5), (12, 9, 30), (13, 30, 9), (9, 1, 1)]:
        for maximize in (False, True):
            yield of_costs(f"{shape}, faulty, {maximize=}", faulty(*shape, maximize=maximize), maximize=maximize,
                           on_invalid="unmatched")  # fmt: skip
    counts = (3, 5, 2, 9, 0, 0, 7, 1, 4, 12)
    for maximize in (False, True):
        make = faulty(sum(counts), 7, counts=counts, maximize=maximize)
        yield of_costs(f"ragged {counts}, faulty, {maximize=}", make, maximize=maximize, offsets=offsets(*counts),
                       on_invalid="unmatched")  # fmt: skip
    yield of_costs("integers, unmatched", integers(3, 13, 7), INTEGERS, on_invalid="unmatched")
    for make in (uniform, tied, forbidding):
        for counts, columns in [((3, 5, 2), 7), ((7, 0, 0, 12, 1), 6), ((4,), 4)]:
            if make is not forbidding:
                yield ragged(counts, columns, make)
    yield ragged((3, 9, 0, 4), 5, maximize=True)
    yield ragged((), 5)
    yield ragged((0, 0), 5)
    yield ragged((3, 2), 0)
    yield ragged((1,) * 40, 3)


LABELS = ("int64", "int32", "uint8")


def of_detections(name, counts, queries, classes, scale=1.0, spoil=None, labels="int64", **options):
    def make(rng, dtype):
        total, batch = sum(counts), len(counts)
        logits = rng.normal(0, 3, (batch, queries, classes)) * scale
        boxes, gt_boxes = (normalised(rng, shape) for shape in ((batch, queries), (total,)))
        if spoil is not None:
            for array in (logits, boxes, gt_boxes):
                hit = rng.random(array.shape) < 0.05
                array[hit] = rng.choice(spoil, hit.sum())
        return {"logits": logits, "boxes": boxes, "gt_labels": rng.integers(0, classes, total).astype(labels),
                "gt_boxes": gt_boxes, "offsets": offsets(*counts), **options}  # fmt: skip

    return Case(name, make)


def normalised(rng, shape):
    """cxcywh in units of the image."""
    corners = random_boxes(rng, shape, 0.6, (0.02, 0.4))
    return np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], axis=-1)


def costs():
    for focal in (False, True):
        say = "focal" if focal else "softmax"
        for counts, queries, classes in [((3, 5), 20, 11), ((1,), 1, 1), ((4, 0, 7), 300, 91), ((2,), 257, 3),
                                         ((9, 1), 15, 17), ((), 5, 3), ((0, 0), 4, 3), ((3, 1), 0, 3)]:  # fmt: skip
            yield of_detections(
                f"{counts} x {queries}, {classes} classes, {say}", counts, queries, classes, focal=focal
            )
        yield of_detections(f"other weights, {say}", (5, 6), 33, 20, focal=focal, class_weight=2.0, box_weight=0.25,
                            giou_weight=-1.5)  # fmt: skip
        yield of_detections(f"large logits, {say}", (5, 6), 33, 20, scale=30.0, focal=focal)
        yield of_detections(f"nan and inf, {say}", (5, 6), 33, 20, spoil=[np.nan, np.inf, -np.inf, 0.0], focal=focal)
        yield of_detections(f"inverted boxes, {say}", (5, 6), 33, 20, spoil=[-0.5, -0.0], focal=focal)
        for labels in LABELS:
            yield of_detections(f"labels {labels}, {say}", (5, 6), 9, 200, labels=labels, focal=focal)


CASES = {"linear_sum_assignment": list(assignments()), "detr_cost": list(costs())}


COST = {"logits": zeros(2, 3, 5), "boxes": zeros(2, 3, 4), "gt_labels": zeros(4, dtype=np.int64),
        "gt_boxes": zeros(4, 4), "offsets": offsets(2, 2)}  # fmt: skip
LSA = "linear_sum_assignment"
WRONG_VALUES = [
    (LSA, {"cost": zeros(3)}, "cost of shape [n, m] or [B, n, m], got [3]"),
    (LSA, {"cost": zeros(1, 2, 3, 4)}, "cost of shape [n, m] or [B, n, m], got [1, 2, 3, 4]"),
    (LSA, {"cost": zeros(2, 3, 4), "offsets": offsets(2)}, "cost of shape [R, m], got [2, 3, 4]"),
    (LSA, {"cost": zeros(3, 4, dtype=np.complex64)}, "cost of a real number type, got complex64"),
    (LSA, {"cost": zeros(3, 4), "offsets": zeros(0, dtype=np.int64)}, "offsets of shape [B + 1], got [0]"),
    (LSA, {"cost": zeros(3, 4), "offsets": offsets(3).astype(np.float32)}, "offsets of an integer type, got float32"),
    *((LSA, {"cost": zeros(3, 4), "on_invalid": value}, f"on_invalid to be one of 'raise', 'unmatched', got {value!r}")
      for value in ("skip", "", None, 1)),
    ("detr_cost", {**COST, "logits": zeros(2, 3)}, "logits of shape [B, Q, C], got [2, 3]"),
    ("detr_cost", {**COST, "logits": zeros(2, 3, 0)}, "logits of at least one class, got [2, 3, 0]"),
    ("detr_cost", {**COST, "logits": zeros(2, 3, 5, dtype=np.int32)}, "logits of a floating type, got int32"),
    ("detr_cost", {**COST, "boxes": zeros(2, 4, 4)}, "boxes of shape [2, 3, 4], got [2, 4, 4]"),
    ("detr_cost", {**COST, "boxes": zeros(2, 3, 4, dtype=np.int32)}, "boxes of a floating type, got int32"),
    ("detr_cost", {**COST, "gt_boxes": zeros(4, 5)}, "gt_boxes of shape [G, 4], got [4, 5]"),
    ("detr_cost", {**COST, "gt_boxes": zeros(4, 4, dtype=np.int64)}, "gt_boxes of a floating type, got int64"),
    ("detr_cost", {**COST, "gt_labels": zeros(3, dtype=np.int64)}, "gt_labels of shape [4], got [3]"),
    ("detr_cost", {**COST, "gt_labels": zeros(4, dtype=complex)}, "gt_labels of a real number type, got complex128"),
    *(("detr_cost", {**COST, name: value}, f"a finite {name}, got {value}")
      for name in ("class_weight", "box_weight", "giou_weight") for value in (np.nan, np.inf, -np.inf)),
    ("detr_cost", {**COST, "offsets": offsets(4)}, "offsets of shape [3], got [2]"),
    ("detr_cost", {**COST, "offsets": offsets(2, 2).astype(np.float32)}, "offsets of an integer type, got float32"),
]  # fmt: skip
NO_IMAGES = {**COST, "logits": zeros(0, 3, 5), "boxes": zeros(0, 3, 4), "offsets": offsets()}
WRONG_VALUES += [("detr_cost", NO_IMAGES, "no ground truths where there are no images, got 4")]
WRONG_TYPES = [
    (LSA, {"cost": [[1.0]]}, "arrays (NumPy, torch or DLPack), got list"),
    ("detr_cost", {**COST, "class_weight": "1"}, "class_weight as a number, got str"),
    ("detr_cost", {**COST, "giou_weight": None}, "giou_weight as a number, got NoneType"),
]


NUMBERS = {
    "detr_cost": [
        (
            {
                "logits": zeros(1, 3, 2),
                "boxes": zeros(1, 3, 4),
                "gt_labels": zeros(3, dtype=np.int64),
                "gt_boxes": zeros(3, 4),
                "offsets": np.array([0, 3]),
            },
            {"class_weight": 1.0, "box_weight": 1.0, "giou_weight": 1.0},
        )
    ]
}
NEGATIVE = {"class_weight", "box_weight", "giou_weight"}  # numbers that may be below 0
CONSTANT = {"detr_cost"}


def far(rng):
    return {LSA: {"cost": 2.0**25 + rng.integers(0, 9, (20, 20))}}


# exp and log differ between backends by a few units in the last place, and the softmax sums in another order.
def close(got, want, dtype, arguments):
    tolerance = 1e-12 if want.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


COMPARE = {"detr_cost": close}  # what must not be equal to the bit


def tensors(device):
    import torch

    rng = np.random.default_rng(0)
    arguments = of_detections("sample", (3, 4), 9, 5).make(rng, "float32")
    made = {name: torch.from_numpy(as_dtype(a, "float32") if a.dtype == np.float64 else a).to(device)
            for name, a in arguments.items()}  # fmt: skip
    return made, torch.from_numpy(rng.random((3, 4, 6))).to(device)


def samples(device):
    import torch

    made, cost = tensors(device)
    return {
        LSA: [
            (cost, False, None, "raise"),
            (cost[0].int(), True, None, "raise"),
            (cost[0].masked_fill(cost[0] > 0.95, torch.nan), False, made["offsets"].clamp(max=4), "unmatched"),
        ],
        "detr_cost": [
            (*made.values(), 1.0, 5.0, 2.0, False),
            (made["logits"].half(), *[*made.values()][1:], 1.0, 5.0, 2.0, True),
            (made["logits"].double(), *[*made.values()][1:], 1.0, 5.0, 2.0, False),
        ],
    }


def calls(device):
    import boxops

    made, cost = tensors(device)
    return {
        LSA: (boxops.linear_sum_assignment, (cost,)),
        "detr_cost": (lambda *arrays: boxops.detr_cost(*arrays, focal=True), tuple(made.values())),
    }
