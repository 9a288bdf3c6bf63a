"""Cases of top_boxes."""

import numpy as np
from box_sets import BOXES, SCORES, far_boxes, integer_boxes

from cases.case import FLOATS, INTEGERS, SIZES, Case, shaped, tensors, zeros

METHODS = ("score", "area")


def of_top(name, boxes, scores="distinct", dtypes=FLOATS, **arguments):
    def make(rng, dtype):
        made = boxes(rng, dtype)
        return {"boxes": made, "scores": SCORES[scores](rng, made.shape[:-1]), "min_score": 0.4, **arguments}

    return Case(name, make, dtypes)


def top_boxes():
    for name, boxes in BOXES.items():
        yield of_top(f"{name}, area", boxes, method="area", min_score=900)
        yield of_top(name, boxes)
    for scores in SCORES:
        for method in METHODS:
            yield of_top(f"{scores} scores, {method}", shaped(65), scores, method=method, min_score=-0.5)
    yield from (of_top(f"{n} boxes", shaped(n)) for n in SIZES)
    for method in METHODS:
        yield of_top(f"integers, {method}", integer_boxes, dtypes=INTEGERS, method=method)
        for least in (-np.inf, np.inf):
            yield of_top(f"above {least}, {method}", shaped(17), method=method, min_score=least)


CASES = {"top_boxes": list(top_boxes())}

OK = {"boxes": zeros(3, 4), "scores": zeros(3), "min_score": 0.5}
WRONG_VALUES = [
    ("top_boxes", {**OK, "boxes": zeros(3, 5)}, "boxes of shape [N, 4], got [3, 5]"),
    ("top_boxes", {**OK, "boxes": zeros(1, 3, 4)}, "boxes of shape [N, 4], got [1, 3, 4]"),
    ("top_boxes", {**OK, "scores": zeros(4)}, "scores of shape [3], got [4]"),
    ("top_boxes", {**OK, "scores": zeros(3, dtype=np.complex64)}, "scores of a real number type, got complex64"),
    ("top_boxes", {**OK, "min_score": np.nan}, "a number for min_score, got nan"),
    ("top_boxes", {**OK, "method": "width"}, "method to be one of 'score', 'area', got 'width'"),
]
WRONG_TYPES = [("top_boxes", {**OK, "min_score": None}, "min_score as a number, got NoneType")]
NUMBERS = {"top_boxes": [({"boxes": zeros(3, 4), "scores": zeros(3)}, {"min_score": 0.5})]}
CONSTANT = {"top_boxes"}


def far(rng):
    return {"top_boxes": {"boxes": far_boxes(rng, 40), "scores": rng.random(40), "min_score": 9, "method": "area"}}


def samples(device):
    boxes, scores = tensors(device)
    return {"top_boxes": [(boxes, scores, 0.5, "score"), (boxes.half(), scores.double(), 900.0, "area")]}


def calls(device):
    import boxops

    return {"top_boxes": (lambda b, s: boxops.top_boxes(b, s, 900, method="area"), tensors(device))}


DRAWN = {
    "top_boxes": lambda d: {
        "boxes": d.boxes(d.n),
        "scores": d.array((d.n,)),
        "min_score": d.knob(3),
        "method": d.one_of(*METHODS) if d.often() else d.one_of("", None, 3),
    }
}
