"""soft_nms: the same boxes and the same scores to the bit on every backend."""

import backends
import numpy as np
import pytest
from box_sets import GROUPS, random_boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops.reference.common import exp_of


def test_layouts(backend):
    rng = np.random.default_rng(1)
    arguments = {"boxes": random_boxes(rng, 40, 100.0).astype(np.float32), "scores": rng.random(40, np.float32)}
    backends.check_layouts(backend, "soft_nms", {**arguments, "idxs": rng.integers(0, 3, 40)})


def call(backend, *arrays, **options):
    options = {name: backend.to_array(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}
    result = backend.ops.soft_nms(*(backend.to_array(np.asarray(array)) for array in arrays), **options)
    return tuple(map(backend.to_numpy, result))


def column(*widths):
    """Boxes that share their left lower corner: the IoU of two is the ratio of their widths."""
    return np.array([[0, 0, width, 1] for width in widths], np.float32)


def test_by_hand(backend):
    boxes, scores = column(4, 2, 1), np.array([0.75, 1.0, 0.5], np.float32)
    indices, decayed = call(backend, boxes, scores, method="linear", iou_threshold=0.25)
    # The second is taken; the others have IoU 0.5 with it, and 0.25 with each other, which is not over the threshold.
    np.testing.assert_array_equal(indices, [1, 0, 2])
    np.testing.assert_array_equal(decayed, np.float32([1, 0.375, 0.25]))
    indices, decayed = call(backend, boxes, scores, sigma=0.5)
    once = np.exp(-0.25 / 0.5)
    np.testing.assert_array_equal(indices, [1, 0, 2])
    np.testing.assert_allclose(decayed, [1, 0.75 * once, 0.5 * once * np.exp(-0.0625 / 0.5)], rtol=1e-6)


def test_scores_at_the_threshold_go(backend):
    boxes, scores = column(1, 2), np.array([1, 0.5], np.float32)
    below = float(np.nextafter(np.float32(0.25), np.float32(0)))
    for score_threshold, want in ((0.25, [0]), (below, [0, 1])):
        keep = call(backend, boxes, scores, iou_threshold=0.3, method="linear", score_threshold=score_threshold)[0]
        np.testing.assert_array_equal(keep, want)
    np.testing.assert_array_equal(call(backend, boxes, scores, score_threshold=1.0)[0], [])


def test_nan_scores_are_never_taken(backend):
    scores = np.array([np.nan, 0.5, np.nan, -np.inf, np.inf], np.float32)
    keep, decayed = call(backend, column(1, 0, 0, 0, 0), scores, score_threshold=-np.inf)
    np.testing.assert_array_equal(keep, [4, 1])
    np.testing.assert_array_equal(decayed, np.float32([np.inf, 0.5]))


def test_zeros_keep_their_sign(backend):
    scores = np.array([-0.0, 0.0, -0.0], np.float32)
    keep, decayed = call(backend, column(0, 0, 0), scores, score_threshold=-1.0)
    np.testing.assert_array_equal(keep, [0, 1, 2])
    np.testing.assert_array_equal(np.signbit(decayed), [True, False, True])


def test_float64_scores_make_it_float64(backend):
    boxes, scores = column(3, 1), np.array([1, 1 - 1e-12])
    _, decayed = call(backend, boxes, scores, method="linear")
    assert decayed.dtype == np.float64
    np.testing.assert_array_equal(decayed, [1, (1 - 1e-12) * (1 - 1 / 3)])


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("method", ["linear", "gaussian"])
def test_all_sorts_of_crowds(backend, method, seed):
    """What tiles, blocks and their hulls could get wrong: sizes over decades, ties, several blocks."""
    rng = np.random.default_rng(seed)
    count, decades = rng.integers(2, 1300 if seed % 4 == 0 else 300), rng.choice([0, 1, 3])
    side = 10.0 ** rng.uniform(-decades / 2, decades / 2, (count, 2)) * rng.uniform(1, 100, 2)
    corner = rng.normal(0, 10.0 ** rng.uniform(1, 3), (count, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).astype(rng.choice(["float32", "float64"]))
    scores = (rng.integers(-3, 9, count) / 8 if rng.random() < 0.5 else rng.random(count)).astype(boxes.dtype)
    options = {"method": method, "iou_threshold": 0.2, "score_threshold": float(rng.choice([0.001, 0.3, -1.0])),
               "sigma": float(rng.choice([0.1, 0.5, 3]))}  # fmt: skip
    if rng.random() < 0.5:
        options["idxs"] = GROUPS[rng.choice(["3 groups", "negative int32"])](rng, count)
    got, want = call(backend, boxes, scores, **options), boxops.reference.soft_nms(boxes, scores, **options)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)


# What the scores of many that hang together are: that of a box by its place tells which block of a cluster offers it.
HANGING = {
    "random": lambda rng, n: rng.random(n),
    "falling": lambda rng, n: np.linspace(1, 0.1, n),
    "ties": lambda rng, n: rng.integers(1, 4, n) / 4,
    "of one block": lambda rng, n: np.where(np.arange(n) // 32 % 8 == 3, 1, 0.5) - np.arange(n) / 1e4,
    "below 0": lambda rng, n: rng.uniform(-0.01, 0.5, n),
}


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("scores", HANGING)
def test_many_that_hang_together(backend, method, scores):
    """More than a block takes step by step, and beside them a few that are alone."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([random_boxes(rng, 1100, 250.0), random_boxes(rng, 20, 2000.0) + 1000]).astype(np.float32)
    values = HANGING[scores](rng, len(boxes)).astype(np.float32)
    options = {"method": method, "score_threshold": -1.0 if scores == "below 0" else 0.05}
    got, want = call(backend, boxes, values, **options), boxops.reference.soft_nms(boxes, values, **options)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)


integral = arrays(np.float32, st.tuples(st.integers(0, 12), st.just(4)), elements=st.integers(-3, 6))


@given(integral, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 99), st.sampled_from(["linear", "gaussian"]))
def test_properties(boxes, threshold, seed, method):
    rng = np.random.default_rng(seed)
    scores, ids = rng.random(len(boxes), np.float32), rng.integers(0, 3, len(boxes))
    keep, decayed = boxops.soft_nms(boxes, scores, threshold, method=method, score_threshold=0.05, idxs=ids)
    assert len(set(keep.tolist())) == len(keep)
    assert (np.diff(decayed) <= 0).all()
    assert (decayed > 0.05).all() and (decayed <= scores[keep]).all()
    # Groups do not meet: each alone gives the same scores.
    of = dict(zip(keep.tolist(), decayed.tolist(), strict=True))
    for i in np.unique(ids):
        members = np.flatnonzero(ids == i)
        some, alone = boxops.soft_nms(boxes[members], scores[members], threshold, method=method, score_threshold=0.05)
        assert dict(zip(members[some].tolist(), alone.tolist(), strict=True)) == {
            k: v for k, v in of.items() if ids[k] == i
        }
    shuffle = rng.permutation(len(boxes))
    again = boxops.soft_nms(boxes[shuffle], scores[shuffle], threshold, method=method, score_threshold=0.05,
                            idxs=ids[shuffle])  # fmt: skip
    if len(set(decayed.tolist())) == len(decayed):
        np.testing.assert_array_equal(shuffle[again[0]], keep)


def test_the_reference_s_exp():
    x = -np.concatenate([np.linspace(0, 110, 100_001), np.geomspace(1e-30, 760, 10_001)])
    for dtype in ("float32", "float64"):
        y = x.astype(dtype)
        np.testing.assert_array_max_ulp(exp_of(y), np.exp(y.astype(np.longdouble)).astype(dtype), 2, dtype)


@pytest.mark.parametrize(("method", "number"), [("linear", 1), ("gaussian", 2)])
def test_ensemble_boxes(method, number):
    ensemble = pytest.importorskip("ensemble_boxes.ensemble_boxes_nms")
    rng = np.random.default_rng(5)
    boxes, scores = random_boxes(rng, 400, 500.0) / 1000, rng.random(400)
    keep = ensemble.cpu_soft_nms_float(boxes.copy(), scores.copy(), 0.3, 0.5, 0.05, number)
    # It returns the boxes in an order of its own: taken or not is what agrees.
    got, _ = boxops.soft_nms(boxes, scores, 0.3, method=method, score_threshold=0.05)
    assert set(got.tolist()) == set(keep.tolist())
