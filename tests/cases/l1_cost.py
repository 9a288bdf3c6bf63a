"""Cases of the L1 cost."""

from box_sets import BOXES, far_boxes, integer_boxes

from cases.case import INTEGERS, SIZES, tensors, zeros
from cases.iou import drawn, of_pairs, of_shapes, reversed_and_more, shuffled


def pairs():
    yield from (of_pairs(name, boxes, reversed_and_more) for name, boxes in BOXES.items())
    yield of_pairs("integers", integer_boxes, shuffled, INTEGERS)
    yield from (of_shapes((n,), (m,)) for n, m in zip(SIZES[:-1], SIZES[1:-1] + SIZES[:1], strict=True))
    batches = [((2, 3, 5), (2, 3, 7)), ((3, 1, 5), (2, 7)), ((5,), (4, 7)), ((0, 5), (1, 7)), ((2, 0), (7,))]
    yield from (of_shapes(*batch) for batch in batches)


CASES = {"box_l1_cost": list(pairs())}

PAIR = {"boxes1": zeros(3, 4), "boxes2": zeros(3, 4)}
WRONG_VALUES = [
    ("box_l1_cost", {**PAIR, "boxes1": zeros(3, 5)}, "boxes1 of shape [..., N, 4], got [3, 5]"),
    ("box_l1_cost", {**PAIR, "boxes2": zeros(4)}, "boxes2 of shape [..., M, 4], got [4]"),
    ("box_l1_cost", {**PAIR, "boxes1": zeros(3, 4, dtype=bool)}, "boxes1 of a real number type, got bool"),
    ("box_l1_cost", {"boxes1": zeros(2, 3, 4), "boxes2": zeros(3, 3, 4)},
        "leading dims that broadcast, got [2, 3, 4] and [3, 3, 4]"),
]  # fmt: skip
WRONG_TYPES = [("box_l1_cost", {"boxes1": None, "boxes2": None}, "arrays (NumPy, torch or DLPack), got NoneType")]
DIFFERENTIABLE = {"box_l1_cost"}


def far(rng):
    return {"box_l1_cost": {"boxes1": far_boxes(rng, 40), "boxes2": far_boxes(rng, 7)}}


def samples(device):
    boxes, _ = tensors(device)
    batch, _ = tensors(device, lead=(2,))
    leaf = boxes.double().requires_grad_()
    return {"box_l1_cost": [(leaf, leaf.detach()[:7]), (batch, boxes), (boxes.half().requires_grad_(), leaf)]}


def calls(device):
    import boxops

    boxes, _ = tensors(device)
    return {"box_l1_cost": (boxops.box_l1_cost, (boxes, boxes[:7]))}


DRAWN = {"box_l1_cost": lambda d: drawn(d, False)}
