"""NMS on the CPU changes its way with what it meets: lists, grids, stretches. Every way gives the same answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boxops
from boxops import reference

LISTED, BLOCK, VERY_MANY = 1024, 64, 1 << 19  # csrc/core/nms: kListed, kBlock, kVeryMany


def around(rng, n, objects, jitter, extent=1000.0):
    """n boxes about objects of all sizes, off by a part of the object's sides."""
    corner, size = rng.uniform(0, extent, (objects, 2)), rng.uniform(8, 200, (objects, 2))
    pick = rng.integers(0, objects, n)
    boxes = np.concatenate([corner, corner + size], axis=1)[pick]
    return boxes + rng.normal(0, jitter, (n, 4)) * np.tile(size, 2)[pick]


def apart(n, side=10.0):
    """n boxes of which no two meet."""
    corner = np.stack(np.divmod(np.arange(n), 64), axis=1) * (2 * side)
    return np.concatenate([corner, corner + side], axis=1)


def check(boxes, scores, threshold, max_output=None):
    want = reference.nms(boxes, scores, threshold)
    np.testing.assert_array_equal(boxops.nms(boxes, scores, threshold), want)
    if max_output is not None:
        indices, counts = boxops.nms_padded(boxes[None], scores[None], threshold, max_output)
        np.testing.assert_array_equal(indices[0, : counts[0]], want[:max_output])
        assert counts[0] == min(max_output, len(want)) and (indices[0, counts[0] :] == -1).all()


sizes = st.sampled_from([1, 2, *(k * BLOCK + d for k in (1, 2, 5) for d in (-1, 0, 1)), LISTED + 1, 1500])
dtypes, seeds = st.sampled_from(["float32", "float64"]), st.integers(0, 2**32 - 1)
strange = st.sampled_from([None, None, None, np.nan, np.inf, -1.0, 0.0, 1e-25, 1e17, 3e18, 3e37])


@settings(max_examples=60, deadline=None)
@given(sizes, st.sampled_from([1, 3, 60, 5000]), st.sampled_from([0.0, 0.02, 0.12, 0.5]), strange,
       st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), dtypes, seeds)  # fmt: skip
def test_reference_in_every_regime(n, objects, jitter, strange, threshold, dtype, seed):
    """From all suppressed (one object, no jitter) to none (many objects, threshold 1), with boxes of any magnitude."""
    rng = np.random.default_rng(seed)
    boxes, scores = around(rng, n, objects, jitter), rng.choice([rng.random(n), rng.integers(0, 5, n) / 4])
    if strange is not None:
        with np.errstate(invalid="ignore"):
            boxes[rng.random(n) < rng.choice([0.01, 0.3])] *= strange
        scores[rng.random(n) < 0.05] = np.nan
    with np.errstate(over="ignore"):
        boxes = boxes.astype(dtype)
    check(boxes, scores.astype("float32"), threshold, int(rng.choice([0, 1, 7, n // 2, n, n + 3])))


@pytest.mark.parametrize("kept", [LISTED - 1, LISTED, LISTED + 1, LISTED + 16, 2 * LISTED + 1])
def test_where_the_list_becomes_a_grid_and_the_grid_a_larger_one(kept):
    """The last boxes repeat kept ones: each must be found where it lies now. Some are of no cell, being too small."""
    rng = np.random.default_rng(kept)
    boxes = apart(kept)
    boxes[3::97] *= 1e-22  # areas that have lost precision
    again = np.r_[rng.permutation(kept)[:200], 3:kept:97, kept - 20 : kept]
    boxes = np.concatenate([boxes, boxes[again]]).astype(np.float32)
    check(boxes, np.linspace(1, 0, len(boxes), dtype=np.float32), 0.5)


@pytest.mark.parametrize("level", [-30, 40])
def test_levels_that_the_grid_has_not_seen(level):
    """Boxes much smaller and much larger than those that the grid was made of."""
    first, later = apart(LISTED + 5), apart(40) * 2.0**level + 1e6
    boxes = np.concatenate([first, later, later, first[-50:]])
    check(boxes, np.linspace(1, 0, len(boxes)), 0.5)


def test_huge_boxes_beside_a_grid():
    rng = np.random.default_rng(0)
    huge = np.array([[-2e38, -2e38, 2e38, 2e38], [-2e38, -2e38, 2.1e38, 2e38], [-1e25, -1e25, 1e25, 1e25]])
    boxes = rng.permutation(np.concatenate([apart(LISTED + 100), huge, apart(100) + 1, huge])).astype(np.float32)
    for threshold in (0.5, 0.95):
        check(boxes, rng.random(len(boxes), np.float32), threshold)


@pytest.mark.parametrize("max_output", [1, 100, 1500])
def test_the_end_comes_early(max_output):
    rng = np.random.default_rng(max_output)
    boxes = around(rng, 4000, 2000, 0.1).astype(np.float32)
    check(boxes, rng.random(4000, np.float32), 0.5, max_output)


def test_very_many_are_those_of_each_tile():
    """Tiles far apart do not meet, and each is small enough to be taken in turn, without threads."""
    rng = np.random.default_rng(0)
    tiles, n = 8, VERY_MANY // 8 + 40
    away = np.array([1e4, 0, 1e4, 0])
    each = [around(rng, n, [60, 30_000][k % 2], 0.1, 4000.0) + k * away for k in range(tiles)]
    boxes, scores = np.concatenate(each).astype(np.float32), rng.integers(0, 100_000, tiles * n).astype(np.float32)
    assert len(boxes) >= VERY_MANY
    kept = [k * n + boxops.nms(boxes[k * n : (k + 1) * n], scores[k * n : (k + 1) * n], 0.5) for k in range(tiles)]
    kept = np.concatenate(kept)
    want = kept[np.lexsort((kept, -scores[kept]))]
    np.testing.assert_array_equal(boxops.nms(boxes, scores, 0.5), want)


@pytest.mark.parametrize("gap", [1, 100_000])
@pytest.mark.parametrize("size", [1e-18, 1.0, 6.2e18, 6.4e18, 6.6e18])
def test_very_many_with_a_few_that_meet(size, gap):
    """In one stretch or in two: tiny, ordinary, just not huge, one of them huge (from sides of 6.5e18 on), and huge."""
    boxes = apart(VERY_MANY).astype(np.float32)
    scores = np.linspace(1, 0, VERY_MANY, dtype=np.float32)
    first = VERY_MANY - 103_000 + np.arange(0, 40, 2)
    second = first + gap
    boxes[first] = boxes[second] = apart(20, 1.0) * size
    boxes[first if gap > 1 else np.where(np.arange(20) % 2, first, second), 2] += 0.06 * size
    want = np.delete(np.arange(VERY_MANY), second)
    np.testing.assert_array_equal(boxops.nms(boxes, scores, 0.5), want)
    for max_output in (len(want) - 102_000, len(want) - 10, len(want)):
        indices, counts = boxops.nms_padded(boxes[None], scores[None], 0.5, max_output)
        np.testing.assert_array_equal(indices[0, : counts[0]], want[:max_output])


def test_very_many_after_boxes_without_area():
    """Nothing is kept yet where the first stretch is sifted."""
    rng = np.random.default_rng(0)
    boxes = around(rng, VERY_MANY, 3000, 0.1, 4000.0).astype(np.float32)
    scores = np.linspace(1, 0, VERY_MANY, dtype=np.float32)
    none = 20_000
    boxes[:none, 2:] = boxes[:none, :2]
    want = none + boxops.nms(boxes[none:], scores[none:], 0.5)
    np.testing.assert_array_equal(boxops.nms(boxes, scores, 0.5), np.concatenate([np.arange(none), want]))


def test_rotated_beyond_the_list():
    rng = np.random.default_rng(0)
    corners = apart(LISTED + 30)
    angles = rng.uniform(-180, 180, (len(corners), 1))
    boxes = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2], angles], axis=1)
    boxes = np.concatenate([boxes, boxes[-100:], boxes[:20]]).astype(np.float32)
    scores = np.linspace(1, 0, len(boxes), dtype=np.float32)
    np.testing.assert_array_equal(boxops.rotated_nms(boxes, scores, 0.6), reference.rotated_nms(boxes, scores, 0.6))
