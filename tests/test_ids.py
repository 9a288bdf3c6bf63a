"""Group ids and labels: numbers of every dtype, in every op that takes them."""

import functools
import itertools

import backends
import cases
import numpy as np
import pytest
from backends import results_of
from box_sets import random_boxes


def calls_with_ids(rng):
    """For every op that takes ids: the name of those, the ids 0, 1 and 2, and the other arguments."""
    boxes, scores = random_boxes(rng, 60, 100.0).astype(np.float32), rng.random(60).astype(np.float32)
    ids, scored = rng.integers(0, 3, 60), {"boxes": boxes, "scores": scores}
    lists = {"boxes_list": [boxes[:20], boxes[20:]], "scores_list": [scores[:20], scores[20:]]}
    cost = {"logits": rng.normal(0, 1, (1, 5, 3)).astype(np.float32), "boxes": rng.random((1, 5, 4), np.float32),
            "gt_boxes": rng.random((60, 4), np.float32), "offsets": np.array([0, 60])}  # fmt: skip
    turned = {**scored, "boxes": np.pad(boxes, ((0, 0), (0, 1)))}
    padded = {"boxes": boxes.reshape(2, 30, 4), "scores": scores.reshape(2, 30), "max_output": 30}
    return {
        "batched_nms": ("idxs", ids, {**scored, "iou_threshold": 0.2}),
        "batched_rotated_nms": ("idxs", ids, {**turned, "iou_threshold": 0.2}),
        "nms_padded": ("idxs", ids.reshape(2, 30), {**padded, "iou_threshold": 0.2}),
        "soft_nms": ("idxs", ids, scored),
        "weighted_boxes_fusion": ("labels_list", [ids[:20], ids[20:]], {**lists, "iou_threshold": 0.2}),
        "detr_cost": ("gt_labels", ids, cost),
    }


IDS = sorted(calls_with_ids(np.random.default_rng(0)))


def with_ids(backend, op, change, dtype=None):
    """The op's results where the ids are change(ids)."""
    name, ids, rest = calls_with_ids(np.random.default_rng(0))[op]
    listed = isinstance(ids, list)
    changed = [backend.to_array(change(some), dtype) for some in (ids if listed else [ids])]
    return results_of(backend, op, {**backend.converted(rest), name: changed if listed else changed[0]})


@pytest.mark.parametrize("dtype", [*cases.FLOATS, *cases.INTEGERS, "bool"])
@pytest.mark.parametrize("op", IDS)
def test_ids_of_every_dtype(backend, op, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    numbers = {"bool": (0, 1, 1), "uint": (0, 5, 120)}.get(dtype[:4], (-3, 2, 120))
    if op == "detr_cost" and dtype != "bool":
        numbers = (0, 1, 2)
    want = with_ids(backend, op, lambda ids: np.array(numbers)[ids])
    got = with_ids(backend, op, lambda ids: cases.as_dtype(np.array(numbers)[ids], dtype), dtype)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)
    if op == "weighted_boxes_fusion":
        assert got[2].dtype == ("float32" if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("op", IDS)
def test_both_zeros_are_one_id(backend, op, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")

    def spoilt(ids):
        ids = cases.as_dtype(ids, dtype)
        ids[(ids == 0) & (np.arange(len(ids)) % 2 == 0).reshape(-1, *[1] * (ids.ndim - 1))] = -0.0
        return ids

    for g, w in zip(with_ids(backend, op, spoilt, dtype), with_ids(backend, op, lambda ids: ids), strict=True):
        np.testing.assert_array_equal(g, w)


ON_THE_CPU = [backends.NUMPY, backends.TORCH]


@pytest.mark.parametrize("value", [0.5, -0.25, np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("op", IDS)
def test_ids_that_are_not_whole_are_refused_on_the_cpu(op, value):
    name = calls_with_ids(np.random.default_rng(0))[op][0]
    place = {"labels_list": "[0]"}.get(name, "")
    words = f"{op}: expected {name}{place} that are whole numbers, got {value if value == value else 'nan'} at "
    words += "[0, 3]" if op == "nms_padded" else "3"

    def spoilt(ids, dtype):
        ids = ids.astype(dtype)
        ids.reshape(-1)[3] = value
        return ids

    for backend, dtype in itertools.product(ON_THE_CPU, (np.float16, np.float32, np.float64)):
        backend.require()
        with pytest.raises((ValueError, RuntimeError)) as error:
            with_ids(backend, op, functools.partial(spoilt, dtype=dtype))
        assert str(error.value) == words


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", [op for op in IDS if op != "detr_cost"])
def test_ids_that_are_not_whole_are_groups_on_the_device(op, dtype):
    backend = backends.EMULATED
    backend.require()
    numbers = np.array([0.5, np.nan, np.inf], dtype)
    got = with_ids(backend, op, lambda ids: np.where(np.arange(ids.size).reshape(ids.shape) % 2, 1, -1) * numbers[ids])
    # Of the six values, both NaN are one group.
    want = with_ids(
        backend, op, lambda ids: np.where((np.arange(ids.size).reshape(ids.shape) % 2) | (ids == 1), ids, ids + 3)
    )
    for g, w in zip(got[:2], want, strict=False):
        np.testing.assert_array_equal(g, w)
