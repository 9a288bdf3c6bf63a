"""Cases of fusing the boxes of several models."""

from itertools import cycle, product

import numpy as np
from box_sets import BOXES, GROUPS, SCORES, far_boxes, integer_boxes, random_boxes

from cases.case import FLOATS, INTEGERS, Case, zeros

CONF_TYPES = ("avg", "max", "box_and_model_avg", "absent_model_aware_avg")


def of_models(name, *sets, scores="distinct", labels="3 groups", dtypes=FLOATS, **options):
    """One set of boxes for each model."""

    def make(rng, dtype):
        boxes = [make_boxes(rng, dtype) for make_boxes in sets]
        counts = [len(b) for b in boxes]
        cuts, shape = np.cumsum(counts)[:-1], (sum(counts),)
        return {
            "boxes_list": boxes,
            "scores_list": np.split(SCORES[scores](rng, shape), cuts),
            "labels_list": np.split(GROUPS[labels](rng, shape), cuts),
            **options,
        }

    return Case(name, make, dtypes)


def seen_by(models, objects, extent=640.0, jitter=4.0, each=1):
    """What each of several models sees of the same objects."""

    def see(rng, dtype):
        truth = random_boxes(np.random.default_rng(objects), objects, extent)
        return np.repeat(truth, each, axis=0) + rng.normal(0, jitter, (objects * each, 4))

    return [see] * models


def around(objects, boxes):
    """What one model sees of few objects, many times."""

    def see(rng, dtype):
        return random_boxes(np.random.default_rng(objects), objects)[rng.integers(0, objects, boxes)] + rng.normal(
            0, 6, (boxes, 4)
        )

    return see


def drift(length):
    """Each box draws the cluster of those before it on, until one is left behind."""
    return lambda rng, dtype: np.arange(length)[:, None] * np.array([0.5, 0.0, 0.5, 0.0]) + np.array([0, 0, 10, 10])


def fusion():
    kinds = cycle(product(CONF_TYPES, SCORES, (None, *GROUPS)))
    for name, boxes in BOXES.items():
        if name == "chain":
            continue
        yield of_models(f"{name}, twice", boxes, boxes, labels="one group")
        for (conf_type, scores, groups), threshold in zip(kinds, (0.0, 0.4), strict=False):
            yield of_models(f"{name}, {conf_type}, {scores} scores, {groups}, {threshold}", boxes, boxes, BOXES["none"],
                            scores=scores, labels=groups or "one group", conf_type=conf_type, iou_threshold=threshold,
                            weights=[2, 0.5, 1])  # fmt: skip
    for conf_type, overflow in product(CONF_TYPES, (False, True)):
        for weights in (None, [0.5, 3.0, 1.0], [0.0, 1.0, 0.0]):
            yield of_models(f"3 models, {conf_type}, {overflow}, {weights}", *seen_by(3, 60, each=2),
                            labels="one group", conf_type=conf_type, allows_overflow=overflow,
                            weights=weights)  # fmt: skip
    for models in (1, 2, 33, 64, 65, 130):
        for conf_type in CONF_TYPES[2:]:
            yield of_models(f"{models} models, {conf_type}", *seen_by(models, 6), labels="one group",
                            weights=[1 + m % 3 for m in range(models)], conf_type=conf_type)  # fmt: skip
    for objects in (1, 7, 15, 16, 17, 63, 65, 300):
        yield of_models(f"{objects} objects", *seen_by(3, objects), labels="one group")
        yield of_models(f"{objects} objects of one score", *seen_by(2, objects), scores="constant", labels="own groups")
    for boxes in (127, 128, 129, 257):  # CUDA settles 128 at a time
        yield of_models(f"{boxes} boxes around 9 objects", around(9, boxes), labels="one group", dtypes=("float32",))
    for scores, threshold in product(("constant", "distinct"), (0.0, 0.5, 0.8)):
        yield of_models(f"300 boxes that drift, {scores} scores, {threshold}", drift(300), scores=scores,
                        labels="one group", dtypes=("float32", "float64"), iou_threshold=threshold)  # fmt: skip
    for skip in (-np.inf, 0.5, 2.0):
        yield of_models(f"scores from {skip}", *seen_by(3, 50), score_threshold=skip)
    yield of_models("crowd", *seen_by(3, 300, extent=100.0), iou_threshold=0.3, labels="one group")
    yield of_models("integers", integer_boxes, integer_boxes, dtypes=INTEGERS, iou_threshold=0.2)


CASES = {"weighted_boxes_fusion": list(fusion())}


_OK = {"boxes_list": [zeros(3, 4), zeros(2, 4)], "scores_list": [zeros(3), zeros(2)],
       "labels_list": [zeros(3, dtype=np.int64), zeros(2, dtype=np.int64)]}  # fmt: skip
_OP = "weighted_boxes_fusion"
_KNOWN = ", ".join(map(repr, CONF_TYPES))
WRONG_VALUES = [
    (_OP, {"boxes_list": [], "scores_list": [], "labels_list": []}, "the boxes of one model at least, got none"),
    (_OP, {**_OK, "scores_list": [zeros(3)]}, "scores_list for each of 2 models, got 1"),
    (_OP, {**_OK, "labels_list": _OK["labels_list"] * 2}, "labels_list for each of 2 models, got 4"),
    (_OP, {**_OK, "weights": [1, 2, 3]}, "weights for each of 2 models, got 3"),
    (_OP, {**_OK, "weights": [1, -2]}, "weights >= 0, got -2"),
    (_OP, {**_OK, "weights": [1, np.nan]}, "weights >= 0, got nan"),
    (_OP, {**_OK, "weights": [1, np.inf]}, "weights >= 0, got inf"),
    (_OP, {**_OK, "weights": [0, 0]}, "a weight > 0, got none"),
    (_OP, {**_OK, "iou_threshold": -0.5}, "iou_threshold >= 0, got -0.5"),
    (_OP, {**_OK, "iou_threshold": np.nan}, "iou_threshold >= 0, got nan"),
    (_OP, {**_OK, "score_threshold": np.nan}, "a number for score_threshold, got nan"),
    (_OP, {**_OK, "conf_type": "mean"}, f"conf_type to be one of {_KNOWN}, got 'mean'"),
    (_OP, {**_OK, "boxes_list": [zeros(3, 4), zeros(2, 5)]}, "boxes_list[1] of shape [N, 4], got [2, 5]"),
    (_OP, {**_OK, "boxes_list": [zeros(3, 4, dtype=bool), zeros(2, 4)]},
        "boxes_list[0] of a real number type, got bool"),
    (_OP, {**_OK, "scores_list": [zeros(3), zeros(3)]}, "scores_list[1] of shape [2], got [3]"),
    (_OP, {**_OK, "labels_list": [zeros(3, dtype=complex)] * 2},
        "labels_list[0] of a real number type, got complex128"),
    (_OP, {**_OK, "labels_list": [zeros(3, dtype=np.int64), zeros(2, dtype=np.int32)]},
        "labels_list[1] of the dtype of labels_list[0] (int64), got int32"),
]  # fmt: skip
WRONG_TYPES = [
    (_OP, {**_OK, "iou_threshold": "0"}, "iou_threshold as a number, got str"),
    (_OP, {**_OK, "score_threshold": None}, "score_threshold as a number, got NoneType"),
    (_OP, {**_OK, "weights": ["1", 1]}, "weights as a number, got str"),
    (
        _OP,
        {"boxes_list": 3, "scores_list": [[1.0]], "labels_list": [[1]]},
        "boxes_list as a list of arrays or lists, got int",
    ),
]


NUMBERS = {
    _OP: [
        (
            {"boxes_list": [zeros(3, 4)], "scores_list": [zeros(3)], "labels_list": [zeros(3, dtype=np.int64)]},
            {"weights": [2.0], "iou_threshold": 0.5, "score_threshold": 0.1},
        )
    ]
}
CONSTANT = {_OP}


def far(rng):
    parts = {"boxes_list": far_boxes(rng, 40), "scores_list": rng.random(40), "labels_list": rng.integers(0, 3, 40)}
    return {_OP: {name: [part] for name, part in parts.items()}}


def _tensors(device):
    import torch

    case = of_models("samples", *seen_by(3, 9)).arguments("float32")
    return ([torch.from_numpy(part).to(device) for part in case[name]]
            for name in ("boxes_list", "scores_list", "labels_list"))  # fmt: skip


def samples(device):
    boxes, scores, labels = _tensors(device)
    doubles = [b.double() for b in boxes]
    return {_OP: [(boxes, scores, labels, [1.0, 2.0, 1.0], 0.5, 0.1, "avg", False),
                  (doubles, scores, labels, [1.0, 2.0, 1.0], 0.5, 0.1, "absent_model_aware_avg", True)]}  # fmt: skip


def calls(device):
    import boxops

    boxes, scores, labels = _tensors(device)

    def fuse(*tensors):
        return boxops.weighted_boxes_fusion(tensors[:3], tensors[3:6], tensors[6:], [1, 2, 1], conf_type="max")

    return {_OP: (fuse, (*boxes, *scores, *labels))}
