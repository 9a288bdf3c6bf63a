"""Cases of suppression."""

from itertools import product

import numpy as np
from box_sets import BOXES, GROUPS, SCORES, far_boxes, integer_boxes, random_boxes, threshold_pairs

from cases.case import FLOATS, INTEGERS, SIZES, Case, shaped, tensors, zeros


def of_scored(name, boxes, scores="distinct", dtypes=FLOATS, iou_threshold=0.5, **arguments):
    """`arguments` may hold functions (generator, shape of scores) -> value."""

    def make(rng, dtype):
        made = boxes(rng, dtype)
        shape = made.shape[:-1]
        more = {key: value(rng, shape) if callable(value) else value for key, value in arguments.items()}
        return {"boxes": made, "scores": SCORES[scores](rng, shape), "iou_threshold": iou_threshold, **more}

    return Case(name, make, dtypes)


THRESHOLDS = (0.0, 0.001, 0.1, 0.3, 0.45, 0.5, 0.6, 0.7, 0.9, 0.95, 0.999)


def nms():
    varied = [*product(SCORES, (*THRESHOLDS, 1.0, 3.0))]
    for i, (name, boxes) in enumerate(BOXES.items()):
        for scores, threshold in [("distinct", 0.5), *varied[7 * i % 60 :: 31]]:
            yield of_scored(f"{name}, {scores} scores, {threshold}", boxes, scores, iou_threshold=threshold)
    yield from (of_scored(f"{n} boxes", shaped(n)) for n in (*SIZES, 256))
    yield of_scored("several sets", several, "nan")
    yield of_scored("integers", integer_boxes, dtypes=INTEGERS)
    for threshold in THRESHOLDS:
        yield of_scored(f"pairs about {threshold}", about(threshold), "constant", DECISIVE, iou_threshold=threshold)


DECISIVE = ("float32", "float64")  # dtypes that hold the coordinates of threshold_pairs


def about(threshold):
    return lambda rng, dtype: threshold_pairs(rng, dtype, threshold)


def several(rng, dtype):
    """More boxes than CUDA takes in one block."""
    return np.concatenate([boxes(rng, dtype) for name, boxes in BOXES.items() if name not in ("crowded", "chain")])


def batched_nms():
    for i, (name, boxes) in enumerate(BOXES.items()):
        for scores, groups in list(product(SCORES, GROUPS))[7 * i % 30 :: 11]:
            yield of_scored(f"{name}, {scores} scores, {groups}", boxes, scores, idxs=GROUPS[groups])
    yield from (of_scored(f"{n} boxes", shaped(n), idxs=GROUPS["3 groups"]) for n in (*SIZES, 256))
    yield of_scored("several sets", several, "tied", idxs=GROUPS["3 groups"])
    yield of_scored("integers", integer_boxes, dtypes=INTEGERS, idxs=GROUPS["3 groups"])
    for threshold in THRESHOLDS[::3]:
        name, boxes = f"pairs about {threshold}", about(threshold)
        yield of_scored(name, boxes, "constant", DECISIVE, iou_threshold=threshold, idxs=GROUPS["one group"])
    yield of_scored("1200 classes at 1e5", classes_at_1e5, idxs=lambda rng, shape: rng.integers(0, 1200, shape))


def classes_at_1e5(rng, dtype):
    """40 objects of 100 candidates each, anywhere in an image of 1e5 px."""
    return np.tile(random_boxes(rng, 40, 1e5 - 300), (100, 1)) + rng.uniform(-9, 9, (4000, 4))


def nms_padded():
    crowd = {"extent": 60.0, "sides": (20.0, 80.0)}
    options = product((3, 1), (0, 1, 60, 65), (None, 0.5), (None, *GROUPS))
    for i, (batch, max_output, score_threshold, groups) in enumerate(options):
        scores = [*SCORES][i % len(SCORES)]
        name = f"[{batch}, 60] to {max_output}, {scores} scores over {score_threshold}, {groups}"
        yield of_scored(name, shaped(batch, 60, **crowd), scores, max_output=max_output,
                        score_threshold=score_threshold, idxs=GROUPS.get(groups))  # fmt: skip
    for shape, max_output in [*product([(0, 5), (2, 0), (2, 1), (5, 257)], (0, 3, 1000)), ((1, 4097), 1000)]:
        yield of_scored(f"{shape} to {max_output}", shaped(*shape), max_output=max_output)
    for name, boxes in BOXES.items():
        yield of_scored(name, stacked(boxes, boxes), iou_threshold=0.3, max_output=50)
    yield of_scored("several sets", stacked(several), "tied", max_output=300, score_threshold=0.3)
    yield of_scored("integers", stacked(integer_boxes), dtypes=INTEGERS, max_output=30)


def stacked(*sets):
    return lambda rng, dtype: np.stack([boxes(rng, dtype) for boxes in sets])


CASES = {"nms": list(nms()), "batched_nms": list(batched_nms()), "nms_padded": list(nms_padded())}

NMS, BATCHED = {"scores": zeros(3), "iou_threshold": 0.5}, {"scores": zeros(3), "iou_threshold": 0.5, "idxs": zeros(3)}
PADDED = {"boxes": zeros(2, 3, 4), "scores": zeros(2, 3), "iou_threshold": 0.5, "max_output": 2}
BOX = {"boxes": zeros(1, 4), "scores": zeros(1), "iou_threshold": 0.5}
WRONG_VALUES = [
    ("nms", {**NMS, "boxes": zeros(3, 5)}, "boxes of shape [N, 4], got [3, 5]"),
    ("nms", {**NMS, "boxes": zeros(4)}, "boxes of shape [N, 4], got [4]"),
    ("nms", {**NMS, "boxes": zeros(1, 3, 4)}, "boxes of shape [N, 4], got [1, 3, 4]"),
    ("nms", {**NMS, "boxes": zeros(3, 4), "scores": zeros(4)}, "scores of shape [3], got [4]"),
    ("nms", {**NMS, "boxes": zeros(3, 4), "scores": zeros(3, 1)}, "scores of shape [3], got [3, 1]"),
    ("nms", {**NMS, "boxes": zeros(3, 4), "scores": zeros(3, dtype=bool)}, "scores of a real number type, got bool"),
    ("nms", {**NMS, "boxes": zeros(3, 4, dtype=np.complex128)}, "boxes of a real number type, got complex128"),
    ("nms", {**NMS, "boxes": zeros(3, 4), "iou_threshold": -0.5}, "iou_threshold >= 0, got -0.5"),
    ("nms", {**NMS, "boxes": zeros(0, 4), "scores": zeros(0), "iou_threshold": np.nan}, "iou_threshold >= 0, got nan"),
    ("batched_nms", {**BATCHED, "boxes": zeros(3, 4), "idxs": zeros(3, dtype=complex)},
        "idxs of a real number type, got complex128"),
    ("batched_nms", {**BATCHED, "boxes": zeros(3, 4), "idxs": zeros(2, dtype=np.int64)}, "idxs of shape [3], got [2]"),
    ("nms_padded", {**PADDED, "boxes": zeros(3, 4)}, "boxes of shape [B, N, 4], got [3, 4]"),
    ("nms_padded", {**PADDED, "scores": zeros(2, 4)}, "scores of shape [2, 3], got [2, 4]"),
    ("nms_padded", {**PADDED, "max_output": -1}, "max_output >= 0, got -1"),
    ("nms_padded", {**PADDED, "idxs": zeros(2, 3, dtype=complex)}, "idxs of a real number type, got complex128"),
    ("nms_padded", {**PADDED, "idxs": zeros(3, dtype=np.int64)}, "idxs of shape [2, 3], got [3]"),
    ("nms_padded", {**PADDED, "score_threshold": np.nan}, "a number for score_threshold, got nan"),
]  # fmt: skip
WRONG_TYPES = [
    ("nms", {**BOX, "boxes": [[0.0, 0, 1, 1]], "scores": [1.0]}, "arrays (NumPy, torch or DLPack), got list"),
    ("nms", {**BOX, "iou_threshold": "0.5"}, "iou_threshold as a number, got str"),
    ("nms", {**BOX, "iou_threshold": None}, "iou_threshold as a number, got NoneType"),
    ("nms_padded", {**PADDED, "max_output": 2.5}, "max_output as an integer, got float"),
    ("nms_padded", {**PADDED, "score_threshold": "0"}, "score_threshold as a number, got str"),
]  # fmt: skip


SCORED = {"boxes": zeros(3, 4), "scores": zeros(3)}
NUMBERS = {
    "nms": [(SCORED, {"iou_threshold": 0.5})],
    "batched_nms": [({**SCORED, "idxs": zeros(3, dtype=np.int64)}, {"iou_threshold": 0.5})],
    "nms_padded": [
        (
            {"boxes": zeros(1, 3, 4), "scores": zeros(1, 3)},
            {"iou_threshold": 0.5, "max_output": 2, "score_threshold": 0.5},
        )
    ],
}


def far(rng):
    boxes, scores = far_boxes(rng, 40), rng.random(40)
    scored = {"boxes": boxes, "scores": scores, "iou_threshold": 0.3}
    return {
        "nms": scored,
        "batched_nms": {**scored, "idxs": rng.integers(0, 3, 40)},
        "nms_padded": {**scored, "boxes": boxes[None], "scores": scores[None], "max_output": 30},
    }


def samples(device):
    import torch

    boxes, scores = tensors(device)
    batch, batch_scores = tensors(device, lead=(2,))
    labels = torch.arange(80, device=device).reshape(2, 40) % 3
    return {
        "nms": [(boxes, scores, 0.5)],
        "batched_nms": [(boxes, scores, labels[0], 0.5)],
        "nms_padded": [(batch, batch_scores, 0.5, 9, None, None), (batch, batch_scores, 0.5, 50, labels, 0.3)],
    }


def calls(device):
    import torch

    import boxops

    return {
        "nms": (lambda b, s: boxops.nms(b, s, 0.5), tensors(device)),
        "batched_nms": (lambda b, s: boxops.batched_nms(b, s, torch.zeros_like(s).long(), 0.5), tensors(device)),
        "nms_padded": (
            lambda b, s: boxops.nms_padded(b, s, 0.5, 9, score_threshold=0.2),
            tensors(device, lead=(2,)),
        ),
    }


def drawn(d, *lead):
    threshold = d.knob(d.one_of(0.0, 0.1, 0.3, 0.5, 1.0, 2, 1e9))
    return {"boxes": d.boxes(*lead), "scores": d.array(lead), "iou_threshold": threshold}


def drawn_padded(d):
    lead = d.batch, d.n
    return {
        **drawn(d, *lead),
        "max_output": d.one_of(0, 1, 2, 100) if d.often() else d.one_of(-1, 2**70, -(2**63), 2.5, None),
        "score_threshold": d.knob(d.one_of(None, 0.5, 3, -np.inf, np.inf)),
        **({"idxs": d.array(lead, INTEGERS)} if d.either() else {}),
    }


DRAWN = {
    "nms": lambda d: drawn(d, d.n),
    "batched_nms": lambda d: {**drawn(d, d.n), "idxs": d.array((d.n,), INTEGERS)},
    "nms_padded": drawn_padded,
}
