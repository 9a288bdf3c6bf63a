"""nms, batched_nms and nms_padded: the same decisions on every backend."""

import backends
import numpy as np
import pytest
from box_sets import GROUPS, SCORES, random_boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops import reference

OPS = ("nms", "batched_nms", "nms_padded")


@pytest.mark.parametrize("op", OPS)
def test_layouts(backend, op):
    rng = np.random.default_rng(1)
    lead = (3,) if op == "nms_padded" else ()
    arguments = {"boxes": random_boxes(rng, (*lead, 40), 100.0).astype(np.float32), "iou_threshold": 0.5}
    arguments["scores"] = rng.random((*lead, 40), np.float32)
    groups = rng.integers(0, 3, (*lead, 40))
    more = {"nms": {}, "batched_nms": {"idxs": groups}, "nms_padded": {"idxs": groups, "max_output": 20}}
    backends.check_layouts(backend, op, {**arguments, **more[op]})


def call(backend, op, *arrays, **options):
    result = getattr(backend.ops, op)(*(backend.to_array(np.asarray(array)) for array in arrays), **options)
    return tuple(map(backend.to_numpy, result)) if isinstance(result, tuple) else backend.to_numpy(result)


def column(*widths):
    """Boxes that share their left lower corner: the IoU of two is the ratio of their widths."""
    return np.array([[0, 0, width, 1] for width in widths], np.float32)


@pytest.mark.parametrize("scores", ["float16", "float32", "float64", "int32", "uint8"])
@pytest.mark.parametrize("boxes", ["float16", "float32", "float64", "int16"])
def test_scores_of_another_dtype(backend, boxes, scores):
    rng = np.random.default_rng(3)
    boxes, scores = random_boxes(rng, 100, 100.0).astype(boxes), rng.integers(0, 200, 100).astype(scores)
    got = call(backend, "nms", boxes, scores, iou_threshold=0.4)
    np.testing.assert_array_equal(got, reference.nms(boxes, scores, 0.4))


def test_float64_scores_are_compared_as_float64(backend):
    scores = np.array([1, 1 + 1e-12, 1 - 1e-12])  # equal as float32
    np.testing.assert_array_equal(call(backend, "nms", column(1, 1, 1), scores, iou_threshold=0.5), [1])
    order = call(backend, "nms", column(1, 1, 1), scores, iou_threshold=1.0)
    np.testing.assert_array_equal(order, [1, 0, 2])


def test_order_of_scores(backend):
    scores = np.array([np.nan, -0.0, 1, 0.0, -np.inf, np.nan, 1, np.inf], np.float32)
    keep = call(backend, "nms", column(*[1] * 8), scores, iou_threshold=1.0)
    np.testing.assert_array_equal(keep, [7, 2, 6, 1, 3, 4, 0, 5])


def test_threshold_is_rounded_once_to_the_compute_type(backend):
    # 1/10 as float32 lies above 0.1 as float64: compared in float64, the second box would go.
    keep = call(backend, "nms", column(10, 1), np.array([1, 0], np.float32), iou_threshold=0.1)
    np.testing.assert_array_equal(keep, [0, 1])
    below = float(np.nextafter(np.float32(0.1), np.float32(0)))
    keep = call(backend, "nms", column(10, 1), np.array([1, 0], np.float32), iou_threshold=below)
    np.testing.assert_array_equal(keep, [0])


def test_suppressed_boxes_suppress_nothing(backend):
    boxes = np.array([[0, 0, 10, 1], [3, 0, 13, 1], [6, 0, 16, 1]], np.float32)
    keep = call(backend, "nms", boxes, np.array([3, 2, 1], np.float32), iou_threshold=0.5)
    np.testing.assert_array_equal(keep, [0, 2])


def test_groups_do_not_meet(backend):
    boxes, scores = column(*[1] * 6), np.arange(6, dtype=np.float32)
    for ids in ([-1, 1, -1, 1, -1, 1], [-(2**63), 2**63 - 1, -(2**63), 2**63 - 1, 0, -1]):
        keep = call(backend, "batched_nms", boxes, scores, np.array(ids), iou_threshold=0.5)
        want = [5, 4] if ids[0] == -1 else [5, 4, 3, 2]
        np.testing.assert_array_equal(keep, want)


def test_groups_that_agree_in_32_bits(backend):
    ids = np.array([1, 1 + 2**32, 1 + 2**40])
    keep = call(backend, "batched_nms", column(1, 1, 1), np.ones(3, np.float32), ids, iou_threshold=0.5)
    np.testing.assert_array_equal(keep, [0, 1, 2])


def test_padded_score_threshold(backend):
    scores = np.array([[0.5, np.nan, 0.6, -np.inf], [0.1, 0.2, 0.5, np.nan]], np.float32)
    boxes = np.broadcast_to(np.arange(4.0)[:, None] * 2 + [0, 0, 1, 1], (2, 4, 4)).astype(np.float32)
    indices, counts = call(backend, "nms_padded", boxes, scores, iou_threshold=0.5, max_output=3, score_threshold=0.5)
    np.testing.assert_array_equal(indices, [[2, -1, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(counts, [1, 0])
    indices, counts = call(backend, "nms_padded", boxes, scores, iou_threshold=0.5, max_output=5)
    np.testing.assert_array_equal(indices, [[2, 0, 3, 1, -1], [2, 1, 0, 3, -1]])
    np.testing.assert_array_equal(counts, [4, 4])


@pytest.mark.parametrize("seed", range(40))
def test_all_sorts_of_crowds(backend, seed):
    """Sizes over many decades, dense and sparse, long and flat, huge and tiny: what a spatial index could get wrong."""
    rng = np.random.default_rng(seed)
    count, decades = rng.integers(2, 900), rng.choice([0, 1, 3, 6])
    side = 10.0 ** rng.uniform(-decades / 2, decades / 2, (count, 2)) * rng.uniform(1, 100, 2)
    corner = rng.normal(0, 10.0 ** rng.uniform(0, 4), (count, 2)) + rng.choice([0, 0, -1e3, 1e5])
    boxes = np.concatenate([corner, corner + side], axis=1) * 10.0 ** rng.choice([0, 0, 0, -16, -12, 6, 15, 17])
    boxes[rng.random(count) < rng.choice([0, 0, 0.1])] *= rng.choice([np.nan, np.inf, -1])
    with np.errstate(over="ignore"):
        boxes = boxes.astype(rng.choice(["float32", "float64"]))
    scores, threshold = SCORES[rng.choice([*SCORES])](rng, count), rng.choice([0, 0.01, 0.2, 0.5, 0.8, 0.99])
    keep = call(backend, "nms", boxes, scores, iou_threshold=threshold)
    np.testing.assert_array_equal(keep, reference.nms(boxes, scores, threshold))


def test_many_boxes_in_small_groups(backend):
    """So many that a GPU sorts them, where it finds the places of fewer by counting; keys of both lengths."""
    rng = np.random.default_rng(5)
    boxes = random_boxes(rng, (2, 8200), 60.0).astype(np.float32)
    scores, groups = rng.integers(0, 500, (2, 8200)).astype(np.float32), rng.integers(-2000, 2000, (2, 8200)) << 33
    options = {"iou_threshold": 0.3, "max_output": 3000, "score_threshold": 10.0}
    got = call(backend, "nms_padded", boxes, scores, idxs=backend.to_array(groups), **options)
    want = boxops.nms_padded(boxes, scores, idxs=groups, **options)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)
    boxes, scores, groups = boxes[:, :5900].reshape(-1, 4), scores[:, :5900].ravel(), groups[:, :5900].ravel()
    keep = call(backend, "batched_nms", boxes, scores.astype(np.float64), groups, iou_threshold=0.3)
    np.testing.assert_array_equal(keep, boxops.batched_nms(boxes, scores, groups, 0.3))


@pytest.mark.parametrize("limit", [1, 70, 1024, 1100])
def test_long_groups_stop_at_the_limit(backend, limit):
    """Groups of several rounds of a GPU kernel, next to short ones, within a batch."""
    rng = np.random.default_rng(limit)
    boxes, scores = random_boxes(rng, (2, 2700), 700.0).astype(np.float32), rng.random((2, 2700), np.float32)
    groups = rng.choice([0, 1, 2, 3], (2, 2700), p=[0.01, 0.8, 0.01, 0.18])
    options = {"iou_threshold": 0.4, "max_output": limit}
    for labels in (None, groups):
        more = {} if labels is None else {"idxs": backend.to_array(labels)}
        got = call(backend, "nms_padded", boxes, scores, **more, **options)
        want = boxops.nms_padded(boxes, scores, idxs=labels, **options)
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g, w)


# Properties that together say what NMS is

integral = arrays(np.float32, st.tuples(st.integers(0, 12), st.just(4)), elements=st.integers(-3, 6))
anything = arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=st.floats(width=32))
thresholds = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 2 / 3, 1.0]) | st.floats(0, 1)


@given(integral | anything, thresholds, st.randoms(use_true_random=False))
def test_what_is_kept(boxes, threshold, random):
    scores = np.array([random.choice([0.0, 0.5, 1.0, np.nan]) for _ in boxes], np.float32)
    keep = boxops.nms(boxes, scores, threshold)
    rank = np.empty(len(boxes), int)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(boxes))
    over = boxops.box_iou(boxes, boxes) > np.float32(threshold)
    assert (np.diff(rank[keep]) > 0).all()
    assert not np.triu(over[np.ix_(keep, keep)], 1).any()
    for gone in set(range(len(boxes))) - set(keep.tolist()):
        assert any(over[gone, kept] and rank[kept] < rank[gone] for kept in keep)
    np.testing.assert_array_equal(boxops.nms(boxes[keep], scores[keep], threshold), np.arange(len(keep)))


@given(integral, thresholds, st.data())
def test_order_of_input_does_not_matter(boxes, threshold, data):
    scores = np.array(data.draw(st.permutations(range(len(boxes)))), np.float32)
    shuffle = np.array(data.draw(st.permutations(range(len(boxes)))), int)
    keep = boxops.nms(boxes[shuffle], scores[shuffle], threshold)
    np.testing.assert_array_equal(shuffle[keep], boxops.nms(boxes, scores, threshold))


@given(integral, thresholds, st.sampled_from([*GROUPS]), st.integers(0, 2**32 - 1))
def test_batched_is_nms_of_each_group(boxes, threshold, kind, seed):
    rng = np.random.default_rng(seed)
    scores, ids = rng.permutation(len(boxes)).astype(np.float32), GROUPS[kind](rng, len(boxes))
    kept = [members[boxops.nms(boxes[members], scores[members], threshold)]
            for members in (np.flatnonzero(ids == i) for i in np.unique(ids))]  # fmt: skip
    kept = np.concatenate([np.zeros(0, int), *kept])
    keep = boxops.batched_nms(boxes, scores, ids, threshold)
    np.testing.assert_array_equal(keep, kept[np.argsort(-scores[kept])])


@given(integral, thresholds, st.integers(0, 15))
def test_padded_is_batched_cut_or_filled(boxes, threshold, max_output):
    rng = np.random.default_rng(len(boxes))
    scores, labels = rng.random(len(boxes)), rng.integers(0, 2, len(boxes))
    keep = boxops.batched_nms(boxes, scores, labels, threshold)[:max_output]
    indices, counts = boxops.nms_padded(boxes[None], scores[None], threshold, max_output, idxs=labels[None])
    np.testing.assert_array_equal(indices[0], np.pad(keep, (0, max_output - len(keep)), constant_values=-1))
    np.testing.assert_array_equal(counts, [len(keep)])


# Second opinion


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("count", [1, 100, 3000])
def test_torchvision(torchvision, count, threshold):
    import torch

    rng = np.random.default_rng(count)
    boxes, scores = torch.from_numpy(random_boxes(rng, count)), torch.from_numpy(rng.integers(0, 999, count) / 999)
    labels = torch.from_numpy(rng.integers(0, 5, count))
    torch.testing.assert_close(boxops.nms(boxes, scores, threshold), torchvision.nms(boxes, scores, threshold))
    got, want = (module.batched_nms(boxes, scores, labels, threshold) for module in (boxops, torchvision))
    assert set(got.tolist()) == set(want.tolist())  # torchvision breaks ties between groups in no fixed order
