"""Cases of soft suppression."""

from itertools import product

import numpy as np
from box_sets import BOXES, GROUPS, SCORES, far_boxes, integer_boxes

from cases.case import FLOATS, INTEGERS, SIZES, Case, shaped, tensors, zeros
from cases.nms import DECISIVE, THRESHOLDS, about


def of_soft(name, boxes, scores="distinct", dtypes=FLOATS, iou_threshold=0.3, **arguments):
    """`scores` may be a function too; `arguments` as for of_scored."""

    def make(rng, dtype):
        made = boxes(rng, dtype)
        shape = made.shape[:-1]
        more = {key: value(rng, shape) if callable(value) else value for key, value in arguments.items()}
        drawn = SCORES.get(scores, scores)(rng, shape)
        return {"boxes": made, "scores": drawn, "iou_threshold": iou_threshold, **more}

    return Case(name, make, dtypes)


def soft_nms():
    varied = [*product(("linear", "gaussian"), SCORES, (0.001, 0.2, 0.0, -0.5, -np.inf), (None, *GROUPS))]
    for i, (name, boxes) in enumerate(BOXES.items()):
        if name == "chain":
            continue
        yield of_soft(f"{name}, linear", boxes, dtypes=FLOATS if len(name) < 6 else DECISIVE, method="linear")
        for method, scores, score_threshold, groups in varied[7 * i % 60 :: 61]:
            yield of_soft(f"{name}, {method}, {scores} scores over {score_threshold}, {groups}", boxes, scores,
                          method=method, score_threshold=score_threshold, idxs=GROUPS.get(groups))  # fmt: skip
    for sigma in (1e-300, 1e-6, 0.1, 10.0, np.inf):
        yield of_soft(f"sigma {sigma}", BOXES["crowded"], sigma=sigma)
    for n in SIZES[:-2]:
        yield of_soft(f"{n} boxes", shaped(n), dtypes=DECISIVE, method=("gaussian", "linear")[n % 2])
        yield of_soft(f"{n} boxes of one score", shaped(n), "constant", ("float32",))
    for method, groups in product(("linear", "gaussian"), (None, "3 groups")):
        yield of_soft(f"scores of both signs, {method}, {groups}", shaped(200, extent=100.0), signed, method=method,
                      score_threshold=-2.0, idxs=GROUPS.get(groups))  # fmt: skip
    for n in (700, 1100):
        yield of_soft(f"{n} boxes in a crowd", shaped(n, extent=60.0), dtypes=("float32",))
    for method, groups in product(("linear", "gaussian"), (None, "3 groups")):
        yield of_soft(f"around 12 objects, {method}, {groups}", around_objects, dtypes=DECISIVE, method=method,
                      idxs=GROUPS.get(groups))  # fmt: skip
    yield of_soft("integers", integer_boxes, dtypes=INTEGERS)
    for threshold in THRESHOLDS[::2]:
        yield of_soft(f"pairs about {threshold}", about(threshold), "constant", DECISIVE, threshold, method="linear")


def around_objects(rng, dtype):
    """200 boxes in components of some objects each."""
    corner = rng.uniform(0, 400, (12, 2))
    objects = np.concatenate([corner, corner + rng.uniform(20, 80, (12, 2))], 1)[np.arange(200) % 12]
    return (objects + rng.normal(0, 6, objects.shape)).astype(dtype)


def signed(rng, shape):
    return rng.integers(-20, 20, shape) / 20.0


CASES = {"soft_nms": list(soft_nms())}


_OK = {"boxes": zeros(3, 4), "scores": zeros(3)}
WRONG_VALUES = [
    ("soft_nms", {**_OK, "boxes": zeros(3, 5)}, "boxes of shape [N, 4], got [3, 5]"),
    ("soft_nms", {**_OK, "boxes": zeros(1, 3, 4)}, "boxes of shape [N, 4], got [1, 3, 4]"),
    ("soft_nms", {**_OK, "boxes": zeros(3, 4, dtype=bool)}, "boxes of a real number type, got bool"),
    ("soft_nms", {**_OK, "scores": zeros(4)}, "scores of shape [3], got [4]"),
    ("soft_nms", {**_OK, "scores": zeros(3, dtype=np.complex64)}, "scores of a real number type, got complex64"),
    ("soft_nms", {**_OK, "idxs": zeros(3, dtype=complex)}, "idxs of a real number type, got complex128"),
    ("soft_nms", {**_OK, "idxs": zeros(2, dtype=np.int64)}, "idxs of shape [3], got [2]"),
    ("soft_nms", {**_OK, "iou_threshold": -0.5}, "iou_threshold >= 0, got -0.5"),
    ("soft_nms", {**_OK, "iou_threshold": np.nan}, "iou_threshold >= 0, got nan"),
    ("soft_nms", {**_OK, "sigma": 0.0}, "sigma > 0, got 0"),
    ("soft_nms", {**_OK, "sigma": np.nan}, "sigma > 0, got nan"),
    ("soft_nms", {**_OK, "score_threshold": np.nan}, "a number for score_threshold, got nan"),
    ("soft_nms", {**_OK, "method": "cubic"}, "method to be one of 'linear', 'gaussian', got 'cubic'"),
]
WRONG_TYPES = [
    ("soft_nms", {**_OK, "iou_threshold": "0"}, "iou_threshold as a number, got str"),
    ("soft_nms", {**_OK, "sigma": None}, "sigma as a number, got NoneType"),
    ("soft_nms", {**_OK, "score_threshold": "low"}, "score_threshold as a number, got str"),
    ("soft_nms", {"boxes": [[0, 0, 1, 1]], "scores": [1.0]}, "arrays (NumPy, torch or DLPack), got list"),
]


NUMBERS = {
    "soft_nms": [
        (
            {"boxes": zeros(3, 4), "scores": zeros(3)},
            {"iou_threshold": 0.5, "sigma": 0.5, "score_threshold": 0.1},
        )
    ]
}
INFINITE = {"sigma"}  # numbers that may be infinite
CONSTANT = {"soft_nms"}  # floating results without a derivative


def far(rng):
    return {"soft_nms": {"boxes": far_boxes(rng, 40), "scores": rng.random(40), "iou_threshold": 0.3}}


def samples(device):
    boxes, scores = tensors(device)
    groups = (scores * 3).long()
    return {
        "soft_nms": [
            (boxes, scores, 0.3, "linear", 0.5, 0.1, None),
            (boxes, scores.double(), 0.3, "gaussian", 0.5, 0.1, groups),
        ]
    }


def calls(device):
    import boxops

    return {"soft_nms": (lambda b, s: boxops.soft_nms(b, s, 0.3, score_threshold=0.1), tensors(device))}
