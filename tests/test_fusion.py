"""weighted_boxes_fusion: the same clusters and results on every backend, and those of ensemble-boxes."""

import os

import numpy as np
import pytest
from box_sets import random_boxes
from cases.fusion import CONF_TYPES, of_models, seen_by
from hypothesis import given
from hypothesis import strategies as st

import boxops
from boxops import reference

OP = "weighted_boxes_fusion"


def call(backend, boxes, scores, labels, *rest, **options):
    lists = ([backend.to_array(np.asarray(part)) for part in parts] for parts in (boxes, scores, labels))
    return tuple(map(backend.to_numpy, backend.ops.weighted_boxes_fusion(*lists, *rest, **options)))


def same(got, want):
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)
        assert g.dtype == w.dtype


def test_by_hand(backend):
    boxes = [np.float32([[0, 0, 10, 10], [50, 50, 60, 60]]), np.float32([[2, 0, 12, 10]])]
    scores, labels = [np.float32([0.75, 0.5]), np.float32([0.25])], [np.array([1, 2]), np.array([1])]
    got = call(backend, boxes, scores, labels)
    # Two thirds of overlap: one cluster of mean score 0.5; the other box is seen by one model of two.
    same(got, (np.float32([[0.5, 0, 10.5, 10], [50, 50, 60, 60]]), np.float32([0.5, 0.25]), np.array([1, 2])))
    got = call(backend, boxes, scores, [labels[0], np.array([2])])
    np.testing.assert_array_equal(got[1], np.float32([0.375, 0.25, 0.125]))


def test_ties_and_the_threshold(backend):
    """Of two clusters with the same IoU the older one gets the box; an IoU at the threshold is not enough."""
    boxes = [np.float32([[0, 0, 10, 10], [10, 0, 20, 10], [5, 0, 15, 10]])]
    scores, labels = [np.float32([1, 0.75, 0.25])], [np.array([1, 1, 1])]
    fused = call(backend, boxes, scores, labels, iou_threshold=0.25)[0]
    np.testing.assert_array_equal(fused, np.float32([[10, 0, 20, 10], [1, 0, 11, 10]]))
    assert len(call(backend, boxes, scores, labels, iou_threshold=1 / 3)[0]) == 3


def test_clusters_that_move(backend):
    """Of the first cluster the second box makes one that the third joins, and the fourth no more."""
    left = np.float32([0, 3, 4.5, -3.2])[:, None] * np.float32([1, 0, 1, 0]) + np.float32([0, 0, 10, 10])
    scores, labels = np.float32([0.9, 0.8, 0.7, 0.6]), np.zeros(4, np.int64)
    for first, clusters in (([0, 1, 2], 1), ([0, 2], 2), ([0, 3], 1), ([0, 1, 3], 2), ([0, 1, 2, 3], 2)):
        lists = [left[first]], [scores[first]], [labels[first]]
        assert len(call(backend, *lists, iou_threshold=0.5)[1]) == clusters
        # Many such scenes, apart from each other: the boxes of one stand anywhere among those of the others.
        rng = np.random.default_rng(len(first))
        place = 40 * np.float32(rng.permutation(100))[:, None, None] * np.float32([1, 0, 1, 0])
        boxes = (left[first] + place).reshape(-1, 4)
        noise = rng.uniform(0, 0.01, (100, 1)).astype(np.float32)
        lists = [boxes], [(scores[first] - noise).ravel()], [np.zeros(len(boxes), np.int64)]
        got = call(backend, *lists, iou_threshold=0.5)
        assert len(got[1]) == 100 * clusters
        same(got, reference.weighted_boxes_fusion(*lists, iou_threshold=0.5))


@pytest.mark.parametrize("threshold", [0.0, 0.55])
@pytest.mark.parametrize("extent", [300.0, 3000.0])
def test_many_clusters_of_one_label(backend, threshold, extent):
    """More than CUDA looks at at a time."""
    boxes, scores, labels = (
        of_models("many", *seen_by(2, 620, extent), labels="one group").arguments("float32").values()
    )
    lists = (boxes, scores, labels)
    same(
        call(backend, *lists, iou_threshold=threshold),
        reference.weighted_boxes_fusion(*lists, iou_threshold=threshold),
    )


def crowd(rng, boxes, extent, sides=(16, 128)):
    corners = rng.uniform(0, extent, (boxes, 2))
    return np.concatenate([corners, corners + rng.uniform(*sides, (boxes, 2))], 1).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 8, 106, 264, 379])
def test_clusters_that_come_to_meet_others(backend, seed):
    """CUDA guesses which boxes hang on each other: in the first two scenes not all, in the others twice."""
    rng = np.random.default_rng(seed)
    lists = [crowd(rng, 250, 150)], [rng.random(250).astype(np.float32)]
    for labels in (np.zeros(250, np.int64), rng.permutation(np.repeat([5, 3, 4], [230, 10, 10]))):
        got = call(backend, *lists, [labels], iou_threshold=0.5)
        same(got, reference.weighted_boxes_fusion(*lists, [labels], iou_threshold=0.5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("objects", "boxes", "threshold"), [(9, 300, 0.55), (1, 200, 0.9), (3, 700, 0.8)])
def test_parts_of_a_label(backend, objects, boxes, threshold, dtype):
    """CUDA fuses them side by side, whether they have few boxes or many, and few clusters or many; two labels have."""
    rng = np.random.default_rng(objects)
    seen = crowd(rng, objects, 100 * objects)[rng.integers(0, objects, boxes)]
    seen = seen + rng.normal(0, 0.12, seen.shape) * np.tile(seen[:, 2:] - seen[:, :2], 2)
    seen[::50] = np.nan
    labels = np.sort(rng.integers(0, 2, boxes))
    lists = [seen[::2], seen[1::2]], [rng.random(len(seen) // 2) for _ in range(2)], [labels[::2], labels[1::2]]
    lists = *([part.astype(dtype) for part in parts] for parts in lists[:2]), lists[2]
    options = {"iou_threshold": threshold, "conf_type": "box_and_model_avg"}
    same(call(backend, *lists, **options), reference.weighted_boxes_fusion(*lists, **options))


def test_scores_that_add_up_to_nothing(backend):
    """A cluster whose scores' sum is 0 keeps the box that it had."""
    rng = np.random.default_rng(0)
    boxes = crowd(rng, 1, 200) + rng.normal(0, 2, (700, 4)).astype(np.float32)
    for scores in (np.zeros(700), np.repeat([1, -1], [300, 400])):
        lists = [boxes], [scores.astype(np.float32)], [np.zeros(700, np.int64)]
        got = call(backend, *lists, score_threshold=-2.0)
        same(got, reference.weighted_boxes_fusion(*lists, score_threshold=-2.0))


@pytest.mark.skipif(os.environ.get("BOXOPS_EMULATOR") == "race", reason="80 s for kernels that others run there, too")
def test_very_many_boxes(backend):
    """Most of them left out; CUDA sorts so many otherwise."""
    rng = np.random.default_rng(0)
    n = 2**17 + 1  # one more than kMostTiled of common/tile_sort.cuh
    boxes, scores = random_boxes(rng, n, 5000.0).astype(np.float32), rng.random(n, np.float32)
    lists = [boxes], [scores], [rng.integers(0, 3, len(boxes)).astype(np.int16)]
    options = {"score_threshold": 0.997, "iou_threshold": 0.3}
    same(call(backend, *lists, **options), reference.weighted_boxes_fusion(*lists, **options))


def test_layouts(backend):
    boxes, scores, labels = of_models("layouts", *seen_by(2, 20)).arguments("float32").values()
    want = call(backend, boxes, scores, labels)
    for relaid in backend.layouts.values():
        lists = ([relaid(backend.to_array(part)) for part in parts] for parts in (boxes, scores, labels))
        got = backend.ops.weighted_boxes_fusion(*lists)
        same(tuple(map(backend.to_numpy, got)), want)


@pytest.mark.parametrize("seed", range(16))
def test_all_sorts_of_models(backend, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 200, rng.integers(1, 5))
    truth = random_boxes(rng, 60, rng.choice([60.0, 300.0, 2000.0]))
    pick = [rng.integers(0, 60, size) for size in sizes]
    noise = rng.choice([0.5, 5.0, 30.0])
    boxes = [(truth[p] + rng.normal(0, noise, (len(p), 4))).astype(np.float32) for p in pick]
    scores = [rng.integers(0, 9, size).astype(np.float32) / 8 for size in sizes]
    labels = [(p % rng.choice([1, 7])).astype(np.int32) for p in pick]
    options = {"conf_type": rng.choice(CONF_TYPES), "iou_threshold": rng.choice([0.0, 0.3, 0.55, 0.9]),
               "weights": rng.integers(1, 4, len(sizes)).tolist(),
               "allows_overflow": bool(rng.integers(2))}  # fmt: skip
    want = reference.weighted_boxes_fusion(boxes, scores, labels, **options)
    same(call(backend, boxes, scores, labels, **options), want)


def test_mixed_dtypes(backend):
    boxes, scores, labels = of_models("mixed", *seen_by(2, 30)).arguments("float32").values()
    boxes = [boxes[0].astype(np.float16), boxes[1]]
    for more in (scores[1], scores[1].astype(np.float64)):
        lists = (boxes, [scores[0], more], labels)
        same(call(backend, *lists), reference.weighted_boxes_fusion(*lists))


def test_averages_above_one_by_hand(backend):
    """A model of weight 1 sees an object twice, one of weight 0.5 does not: 2 x 1 / 1.5 as the paper has it."""
    box = np.float32([[0, 0, 10, 10]])
    for score, overflows, held in ((1.0, 4 / 3, 1.0), (0.9, 1.2, 1.0), (0.5, 2 / 3, 2 / 3), (90.0, 120.0, 90.0)):
        twice, labels = np.float32([score] * 2), np.array([1, 1])
        lists = [box.repeat(2, 0), box[:0]], [twice, twice[:0]], [labels, labels[:0]]
        for allowed, want in ((True, overflows), (False, held)):
            got = call(backend, *lists, weights=[1, 0.5], allows_overflow=allowed)
            np.testing.assert_allclose(got[1], [want], rtol=1e-6)


@pytest.mark.parametrize("conf_type", CONF_TYPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_confidence_above_one(backend, conf_type, dtype):
    """Of scores up to 1, whatever the weights, to the last bit."""
    rng = np.random.default_rng(0)
    for _ in range(15 if backend.name == "emulated-cuda" else 60):
        models, each = rng.integers(1, 5), rng.integers(0, 4, 5)
        boxes = [np.repeat([[0, 0, 10, 10]], n, 0).astype(dtype) for n in each[:models]]
        scores = [rng.choice([1, np.nextafter(dtype(1), dtype(0)), 0.7], len(b)).astype(dtype) for b in boxes]
        weights = rng.choice([0.1, 0.3, 0.7, 1, 3, 1e-3], models).tolist()
        got = call(backend, boxes, scores, [np.zeros(len(b), int) for b in boxes], weights=weights, conf_type=conf_type)
        assert (got[1] <= 1).all(), weights


@given(st.integers(0, 10_000), st.sampled_from(CONF_TYPES), st.sampled_from([0.2, 0.55]))
def test_properties(seed, conf_type, iou_thr):
    rng = np.random.default_rng(seed)
    lists = [of_models(str(seed), *seen_by(3, 8, extent=80.0)).arguments("float64")[name]
             for name in ("boxes_list", "scores_list", "labels_list")]  # fmt: skip
    boxes, scores, labels = boxops.weighted_boxes_fusion(*lists, conf_type=conf_type, iou_threshold=iou_thr)
    assert (np.diff(scores) <= 0).all() and (scores <= 1).all() and (scores > 0).all()
    assert set(labels) == set(np.concatenate(lists[2]))
    everything = np.concatenate(lists[0])
    assert (boxes >= everything.min(axis=0) - 1e-9).all() and (boxes <= everything.max(axis=0) + 1e-9).all()
    order = rng.permutation(3)  # of the models: scores are distinct
    again = boxops.weighted_boxes_fusion(*([part[m] for m in order] for part in lists), conf_type=conf_type,
                                         iou_threshold=iou_thr)  # fmt: skip
    np.testing.assert_allclose(again[1], scores)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("overflow", [False, True])
@pytest.mark.parametrize("conf_type", CONF_TYPES)
@pytest.mark.parametrize("weights", [None, [2, 1, 3]])
def test_ensemble_boxes(conf_type, overflow, weights):
    """It sums boxes in float32; IoUs as near to the threshold as that are not met here. Where it gives an average above
    1 though that is not allowed, ours is 1; everything else is equal."""
    ensemble = pytest.importorskip("ensemble_boxes")
    for seed in range(5):
        arguments = of_models(f"{seed}", *seen_by(3, 80, jitter=1.0, each=2)).arguments("float64")
        boxes = [np.clip(b / 1000, 0, 1) for b in arguments["boxes_list"]]
        rest = (arguments["scores_list"], arguments["labels_list"], weights, 0.55, 0.1, conf_type, overflow)
        got, want = (module.weighted_boxes_fusion(boxes, *rest) for module in (boxops, ensemble))
        assert len(got[1]) == len(want[1])
        if not overflow:
            want = (want[0], np.minimum(want[1], 1), want[2])
        np.testing.assert_allclose(got[1], want[1], rtol=0, atol=1e-6)
        # Ties and scores that differ by its rounding only may come in another order: compare sorted by place.
        got, want = (np.column_stack(result) for result in (got, want))
        got, want = (rows[np.lexsort(np.round(rows[:, [0, 1, 5]], 3).T)] for rows in (got, want))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


LISTS = {
    "its README": (
        [[[0.0, 0.51, 0.81, 0.91], [0.1, 0.31, 0.71, 0.61], [0.01, 0.32, 0.83, 0.93], [0.02, 0.53, 0.11, 0.94]],
         [[0.04, 0.56, 0.84, 0.92], [0.12, 0.33, 0.72, 0.64], [0.38, 0.66, 0.79, 0.95]]],
        [[0.9, 0.8, 0.2, 0.4], [0.5, 0.8, 0.7]],
        [[0, 1, 0, 1], [1, 1, 1]],
    ),
    "a model without boxes": ([[[0.1, 0.1, 0.2, 0.2]], []], [[0.5], []], [[3], []]),
    "no boxes": ([[], []], [[], []], [[], []]),
    "tuples": ([((0, 0, 1, 1), (0, 0, 1, 0.9))], [(1, 0.25)], [(0, 0)]),
    "integers": ([[[0, 0, 1, 1]], [[0, 0, 1, 1]]], [[1], [1]], [[2], [2]]),
    "rows and numbers of NumPy": ([[np.array([0, 0, 0.5, 1])]], [[np.float32(0.5)]], [[np.int8(1)]]),
    "arrays beside lists": ([np.float32([[0, 0, 1, 1]]), [[0, 0, 1, 0.9]]], [[0.5], np.float32([0.75])], [[1], [1]]),
    "arrays beside nothing": ([np.float64([[0, 0, 1, 1]]), []], [np.array([0.5]), []], [np.array([1], np.int16), []]),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lists", LISTS.values(), ids=[*LISTS])
def test_lists(lists):
    """As ensemble-boxes takes them, to NumPy arrays."""
    ensemble = pytest.importorskip("ensemble_boxes")
    for options in ((), (np.arange(1, len(lists[0]) + 1), 0.5, 0.001)):  # weights and thresholds
        got = boxops.weighted_boxes_fusion(*lists, *options)
        want = ensemble.weighted_boxes_fusion(*lists, *options)
        assert [x.shape for x in got] == [(len(want[1]), 4), (len(want[1]),), (len(want[1]),)]
        assert all(isinstance(x, np.ndarray) for x in got) and got[2].dtype.kind == "i"
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g.ravel(), np.ravel(w), atol=1e-6)
        arrays = ([np.asarray(part, dtype).reshape(len(part), *shape) for part in parts]
                  for parts, dtype, shape in zip(lists, ("f8", "f8", "i8"), ((4,), (), ()), strict=True))  # fmt: skip
        same(
            [x.astype(g.dtype) for x, g in zip(boxops.weighted_boxes_fusion(*arrays, *options), got, strict=True)], got
        )


@pytest.mark.parametrize(("name", "value"), [("boxes_list", [[[0, 0, 1]]]), ("boxes_list", [[[0, 0, 1, 1], [0, 1]]]),
                                             ("boxes_list", [[["a"] * 4]]), ("scores_list", [[None]]),
                                             ("scores_list", [[[0.5], [0.1, 0.2]]]), ("labels_list", [["cat"]]),
                                             ("labels_list", [[{}]]), ("labels_list", 7)])  # fmt: skip
def test_wrong_lists(name, value):
    lists = {"boxes_list": [[[0, 0, 1, 1]]], "scores_list": [[0.5]], "labels_list": [[1]], name: value}
    with pytest.raises((ValueError, TypeError), match=rf"^{OP}: expected {name}.* got "):
        boxops.weighted_boxes_fusion(**lists)


def test_lists_and_tensors_do_not_mix():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=f"^{OP}: expected arrays of one kind, got "):
        boxops.weighted_boxes_fusion([torch.zeros(1, 4)], [[0.5]], [[1]])
