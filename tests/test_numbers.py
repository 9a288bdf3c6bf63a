"""Every number that an op takes: never NaN, and infinite or negative only where that means something."""

import inspect
import math

import numpy as np
import pytest

import boxops


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


BOXES, ROTATED, SCORES, IDS = zeros(3, 4), zeros(3, 5), zeros(3), zeros(3, dtype=np.int64)
SCORED, PAIR = {"boxes": BOXES, "scores": SCORES}, {"boxes1": BOXES, "boxes2": BOXES}
RPN = {"objectness": zeros(1, 3), "deltas": zeros(1, 3, 4), "anchors": BOXES}
DETR = {
    "logits": zeros(1, 3, 2),
    "boxes": zeros(1, 3, 4),
    "gt_labels": IDS,
    "gt_boxes": BOXES,
    "offsets": np.array([0, 3]),
}
FEATURES = {"input": zeros(1, 4, 5, 5), "boxes": zeros(2, 5)}
LEVELS = {"features": [zeros(1, 4, 8, 8), zeros(1, 4, 4, 4)], "boxes": zeros(2, 5)}
CODES = {"weights": (1.0, 1.0, 1.0, 1.0)}
YOLO = {"coding": "yolo_v2"}

# Op -> calls of it, each as its other arguments and its numbers, which are good as they are.
CALLS = {
    "clip_boxes_to_image": [({"boxes": BOXES}, {"size": (5.0, 6.0)})],
    "remove_small_boxes": [({"boxes": BOXES}, {"min_size": 1.0})],
    **{op: [(PAIR, {"eps": 1e-7})] for op in ("complete_box_iou", "distance_box_iou", "generalized_box_iou_loss",
                                              "distance_box_iou_loss", "complete_box_iou_loss")},
    "nms": [(SCORED, {"iou_threshold": 0.5})],
    "batched_nms": [({**SCORED, "idxs": IDS}, {"iou_threshold": 0.5})],
    "rotated_nms": [({**SCORED, "boxes": ROTATED}, {"iou_threshold": 0.5})],
    "batched_rotated_nms": [({**SCORED, "boxes": ROTATED, "idxs": IDS}, {"iou_threshold": 0.5})],
    "nms_padded": [({"boxes": BOXES[None], "scores": SCORES[None]},
                    {"iou_threshold": 0.5, "max_output": 2, "score_threshold": 0.5})],
    "soft_nms": [(SCORED, {"iou_threshold": 0.5, "sigma": 0.5, "score_threshold": 0.1})],
    "weighted_boxes_fusion": [({"boxes_list": [BOXES], "scores_list": [SCORES], "labels_list": [IDS]},
                               {"weights": [2.0], "iou_threshold": 0.5, "score_threshold": 0.1})],
    "encode_boxes": [({"boxes": BOXES, "anchors": BOXES}, CODES),
                     ({"boxes": BOXES, "anchors": BOXES}, {"variances": (0.1, 0.1, 0.2, 0.2)}),
                     ({"boxes": BOXES, "anchors": BOXES, **YOLO}, {"stride": 8.0})],
    "decode_boxes": [({"deltas": BOXES, "anchors": BOXES}, {**CODES, "clip": 4.0, "image_size": (5.0, 6.0)}),
                     ({"deltas": BOXES, "anchors": BOXES}, {"variances": (0.1, 0.1, 0.2, 0.2)}),
                     ({"deltas": BOXES, "anchors": BOXES, **YOLO}, {"stride": (8.0, 8.0)})],
    "match_max_iou": [({"anchors": BOXES, "gt_boxes": BOXES}, {"high": 0.7, "low": 0.3, "ignore_threshold": 0.5})],
    "match_greedy": [({"anchors": BOXES, "gt_boxes": BOXES}, {"iou_threshold": 0.5})],
    "match_greedy_matrix": [({"iou": zeros(3, 3)}, {"iou_threshold": 0.5})],
    "sample_matches": [({"matches": IDS}, {"batch_size_per_image": 2, "positive_fraction": 0.5})],
    "mine_hard_negatives": [({"loss": SCORES, "matches": IDS}, {"ratio": 3.0, "min_negatives": 1})],
    "detr_cost": [(DETR, {"class_weight": 1.0, "box_weight": 1.0, "giou_weight": 1.0})],
    "generate_proposals": [(RPN, {
        "num_anchors_per_level": [3], "image_sizes": [(8.0, 9.0)], "pre_nms_top_n": 3, "post_nms_top_n": 3,
        "iou_threshold": 0.5, "score_threshold": 0.1, "min_size": 1.0, "weights": (1.0, 1.0, 1.0, 1.0), "clip": 4.0})],
    "detect": [({"boxes": BOXES[None], "scores": zeros(1, 3, 2)}, {
        "score_threshold": 0.1, "iou_threshold": 0.5, "max_output": 3, "topk_per_class": 2, "min_size": 1.0})],
    "paste_masks": [({"masks": zeros(3, 2, 2), "boxes": BOXES},
                     {"image_size": (4, 5), "padding": 1, "threshold": 0.5})],
    **{op: [(FEATURES, {"output_size": (2, 2), "spatial_scale": 0.5, "sampling_ratio": 2})]
       for op in ("roi_align", "ps_roi_align")},
    **{op: [(FEATURES, {"output_size": (2, 2), "spatial_scale": 0.5})] for op in ("roi_pool", "ps_roi_pool")},
    "multiscale_roi_align": [(LEVELS, {"output_size": 2, "scales": [0.5, 0.25], "sampling_ratio": 2,
                                       "canonical_scale": 224.0, "canonical_level": 4})],
    "multibox_anchors": [({"like": BOXES}, {"grid_size": (2, 3), "sizes": [0.5, 0.2], "aspect_ratios": [1.0, 2.0]})],
    "grid_anchors": [({"like": BOXES}, {"image_size": (8, 8), "grid_sizes": [(2, 2)], "sizes": [[8.0]],
                                        "aspect_ratios": [[1.0]], "strides": [(4, 4)]})],
    "cell_anchors": [({"like": BOXES}, {"grid_size": (2, 2), "priors": [(3.0, 4.0)], "stride": (8.0, 8.0)})],
}  # fmt: skip

# Infinite: no limit, or nothing passes. Below 0, and -inf: everything passes, or as the formula has it.
THRESHOLDS = {"score_threshold", "min_size", "high", "low", "threshold"}
UPWARDS = {*THRESHOLDS, "iou_threshold", "ignore_threshold", "size", "image_size", "image_sizes", "clip", "sigma"}
DOWNWARDS = {*THRESHOLDS, "clip"}
NEGATIVE = {*DOWNWARDS, "class_weight", "box_weight", "giou_weight", "sampling_ratio", "canonical_level"}
ALLOWED = {math.nan: set(), math.inf: UPWARDS - {"low"}, -math.inf: DOWNWARDS - {"high"}, -1: NEGATIVE - {"high"}}


# Integers, though of a name that allows infinity
WHOLE = {("image_size", "grid_anchors"), ("image_size", "paste_masks")}


def variants(value, bad):
    """The number, or the nested numbers one at a time, replaced by the bad one."""
    if not isinstance(value, (list, tuple)):
        return [bad]
    return [
        type(value)([*value[:i], new, *value[i + 1 :]]) for i, old in enumerate(value) for new in variants(old, bad)
    ]


def test_every_number_has_a_call():
    for op in sorted(boxops.__all__):
        if inspect.isroutine(getattr(boxops, op)):
            parameters = inspect.signature(getattr(boxops, op)).parameters.values()
            names = {p.name for p in parameters if "float" in str(p.annotation) or "int" in str(p.annotation)}
            assert names == {name for _, numbers in CALLS.get(op, []) for name in numbers}, op


@pytest.mark.parametrize("op", CALLS)
def test_bad_numbers(backend, op):
    for arguments, numbers in CALLS[op]:
        backend.run(op, {**arguments, **numbers})
        for bad, allowed in ALLOWED.items():
            for name, value in numbers.items():
                for changed in variants(value, bad):
                    call = {**arguments, **numbers, name: changed}
                    if name in allowed and (name, op) not in WHOLE:
                        backend.run(op, call)
                        continue
                    with pytest.raises((ValueError, TypeError, RuntimeError), match=f"^{op}: expected "):
                        backend.run(op, call)
                        print(f"{op} takes {name}={changed}")  # shown where it does
