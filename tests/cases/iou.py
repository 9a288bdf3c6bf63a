"""Cases of the ops on two sets of boxes."""

import numpy as np
from box_sets import BOXES, far_boxes, integer_boxes, random_boxes

from cases.case import FLOATS, FORMATS, INTEGERS, SIZES, Case, shaped, tensors, zeros

PAIRWISE = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou", "box_ioa")
LOSSES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")


def of_pairs(name, boxes, partners, dtypes=FLOATS, **options):
    """`partners`: (generator, boxes1) -> boxes2."""

    def make(rng, dtype):
        boxes1 = boxes(rng, dtype)
        return {"boxes1": boxes1, "boxes2": partners(rng, boxes1), **options}

    return Case(", ".join([name, *(f"{key}={value}" for key, value in options.items())]), make, dtypes)


def of_shapes(shape1, shape2, **options):
    return of_pairs(f"{shape1} x {shape2}", shaped(*shape1), lambda rng, _: random_boxes(rng, shape2), **options)


def shuffled(rng, boxes):
    return rng.permutation(boxes)


def reversed_and_more(rng, boxes):
    return np.concatenate([boxes[::-1], random_boxes(rng, 17).astype(boxes.dtype)])


def pairwise():
    yield from (of_pairs(name, boxes, reversed_and_more) for name, boxes in BOXES.items())
    yield of_pairs("integers", integer_boxes, shuffled, INTEGERS)
    for n, m in [*zip(SIZES[:-1], SIZES[1:-1] + SIZES[:1], strict=True), (1, 4097), (4097, 1), (257, 255)]:
        yield of_shapes((n,), (m,))
    batches = [((2, 3, 5), (2, 3, 7)), ((3, 1, 5), (2, 7)), ((5,), (4, 7)), ((0, 5), (1, 7)), ((2, 0), (7,))]
    yield from (of_shapes(*batch) for batch in batches)
    yield from (of_shapes((65,), (33,), fmt=fmt) for fmt in FORMATS[1:])


def paired(**options):
    yield from (of_pairs(name, boxes, shuffled, **options) for name, boxes in BOXES.items())
    yield of_pairs("integers", integer_boxes, shuffled, INTEGERS, **options)
    yield from (of_shapes((n,), (n,), **options) for n in SIZES)
    batches = [((5, 1), (7,)), ((), ()), ((), (9,)), ((3, 1, 4), (2, 1)), ((0, 5), (5,))]
    yield from (of_shapes(*batch, **options) for batch in batches)


CASES = {
    **{op: [*pairwise(), *paired(paired=True)] for op in PAIRWISE},
    **{op: [*paired(), *paired(reduction="mean"), *paired(reduction="sum")] for op in LOSSES},
}

PAIR = {"boxes1": zeros(3, 4), "boxes2": zeros(3, 4)}
WRONG_VALUES = [
    ("box_iou", {**PAIR, "boxes1": zeros(3, 5)}, "boxes1 of shape [..., N, 4], got [3, 5]"),
    ("box_iou", {**PAIR, "boxes2": zeros(4)}, "boxes2 of shape [..., M, 4], got [4]"),
    ("box_iou", {**PAIR, "boxes2": zeros(3, 5), "fmt": "xywh"}, "boxes2 of shape [..., M, 4], got [3, 5]"),
    ("box_iou", {**PAIR, "boxes1": zeros(3), "paired": True}, "boxes1 of shape [..., 4], got [3]"),
    ("box_iou", {**PAIR, "boxes1": zeros(3, 4, dtype=bool)}, "boxes1 of a real number type, got bool"),
    ("box_iou", {"boxes1": zeros(2, 3, 4), "boxes2": zeros(3, 3, 4)},
        "leading dims that broadcast, got [2, 3, 4] and [3, 3, 4]"),
    ("box_iou", {"boxes1": zeros(2, 4), "boxes2": zeros(3, 4), "paired": True},
        "leading dims that broadcast, got [2, 4] and [3, 4]"),
    ("box_iou", {**PAIR, "fmt": "xyxyr"}, "fmt to be one of 'xyxy', 'xywh', 'cxcywh', got 'xyxyr'"),
    ("box_ioa", {**PAIR, "boxes1": zeros(3, 5)}, "boxes1 of shape [..., N, 4], got [3, 5]"),
    ("generalized_box_iou", {**PAIR, "boxes2": zeros(5)}, "boxes2 of shape [..., M, 4], got [5]"),
    ("distance_box_iou", {**PAIR, "eps": -1.0}, "eps >= 0 and finite, got -1"),
    ("complete_box_iou", {**PAIR, "eps": np.nan}, "eps >= 0 and finite, got nan"),
    ("generalized_box_iou_loss", {**PAIR, "reduction": "max"},
        "reduction to be one of 'none', 'mean', 'sum', got 'max'"),
    ("distance_box_iou_loss", {**PAIR, "boxes1": zeros(3, 5)}, "boxes1 of shape [..., 4], got [3, 5]"),
    ("complete_box_iou_loss", {**PAIR, "boxes2": zeros(2, 4)}, "leading dims that broadcast, got [3, 4] and [2, 4]"),
]  # fmt: skip
WRONG_TYPES = [
    ("box_iou", {"boxes1": None, "boxes2": None}, "arrays (NumPy, torch or DLPack), got NoneType"),
    ("distance_box_iou", {**PAIR, "eps": "small"}, "eps as a number, got str"),
]  # fmt: skip


WITH_EPS = ("complete_box_iou", "distance_box_iou", *LOSSES)
NUMBERS = {op: [({"boxes1": zeros(3, 4), "boxes2": zeros(3, 4)}, {"eps": 1e-7})] for op in WITH_EPS}
DIFFERENTIABLE = {*PAIRWISE, "iou_of_loss"}


def far(rng):
    boxes = far_boxes(rng, 40)
    return {
        **{op: {"boxes1": boxes, "boxes2": far_boxes(rng, 7)} for op in PAIRWISE},
        **{op: {"boxes1": boxes, "boxes2": boxes[::-1].copy()} for op in LOSSES},
    }


def within_order_of_summation(got, want, dtype, arguments):
    tolerance = 1e-12 if want.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


COMPARE = dict.fromkeys(LOSSES, within_order_of_summation)


def samples(device):
    boxes, scores = tensors(device)
    batch, batch_scores = tensors(device, lead=(2,))
    leaf, ones = boxes.double().requires_grad_(), scores.new_ones(40, 7)
    return {
        **{
            op: [
                (leaf, leaf.detach()[:7], *eps, "xyxy", False),
                (boxes.bfloat16(), boxes.bfloat16(), *eps, "xywh", True),
                (batch, boxes, *eps, "cxcywh", False),
                (boxes.half().requires_grad_(), leaf, *eps, "xyxy", True),
            ]
            for op in PAIRWISE
            for eps in [(1e-7,) if op in ("distance_box_iou", "complete_box_iou") else ()]
        },
        "iou_of_loss": [(leaf, leaf.detach().flip(0), op.removesuffix("_loss"), 1e-7) for op in LOSSES],
        "iou_backward": [
            (ones, boxes, boxes[:7], "box_ioa", False, "xyxy", 0.0, False),
            (batch_scores.new_ones(2, 40), batch, boxes, "generalized_box_iou", True, "xyxy", 1e-7, True),
        ],
    }


def calls(device):
    import boxops

    boxes, _ = tensors(device)
    return {
        **{op: (getattr(boxops, op), (boxes, boxes[:7])) for op in PAIRWISE},
        **{op: (lambda a, b, op=op: getattr(boxops, op)(a, b, "mean"), (boxes, boxes.flip(0))) for op in LOSSES},
    }


def drawn(d, paired):
    lead1, lead2 = d.one_of(((), ()), ((), (d.batch,)), ((d.batch,), (1,)), ((d.batch, 1), (2,)))
    return {"boxes1": d.boxes(*lead1, d.n), "boxes2": d.boxes(*lead2, d.one_of(d.n, 1) if paired else d.m)}


def drawn_measure(d):
    paired = d.either()
    return {**drawn(d, paired), "paired": paired, "fmt": d.fmt()}


def drawn_loss(d):
    return {**drawn(d, True), "reduction": d.one_of("none", "none", "none", "none", "max"), "eps": d.knob(1e-7)}


DRAWN = {
    **dict.fromkeys(PAIRWISE, drawn_measure),
    **{op: lambda d: {**drawn_measure(d), "eps": d.knob(1e-7)} for op in ("distance_box_iou", "complete_box_iou")},
    **dict.fromkeys(LOSSES, drawn_loss),
}
