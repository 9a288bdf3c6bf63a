"""match_max_iou, match_greedy and match_greedy_matrix: the same matches on every backend."""

import backends
import numpy as np
import pytest
from box_sets import random_boxes
from cases.matching import CROWD, WRONG_OFFSETS, grid_anchors, ragged
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops import reference

ON_BOXES = ("match_max_iou", "match_greedy")


@pytest.mark.parametrize("op", [*ON_BOXES, "match_greedy_matrix"])
def test_layouts(backend, op):
    rng = np.random.default_rng(1)
    anchors, boxes, ignored = (random_boxes(rng, n, **CROWD).astype(np.float32) for n in ((2, 40), 7, 9))
    batch = {"anchors": anchors, "gt_boxes": boxes, "offsets": ragged(3, 4)}
    backends.check_layouts(backend, op, {
        "match_max_iou": {**batch, "high": 0.5, "ignore_boxes": ignored, "ignore_offsets": ragged(5, 4)},
        "match_greedy": {**batch, "iou_threshold": 0.5},
        "match_greedy_matrix": {"iou": rng.random((2, 30, 20), np.float32)},
    }[op])  # fmt: skip


def call(backend, op, *arguments, **options):
    given = backend.converted({str(i): value for i, value in enumerate(arguments)})
    result = getattr(backend.ops, op)(*given.values(), **backend.converted(options))
    return tuple(map(backend.to_numpy, result))


def check(backend, op, *arguments, **options):
    results = call(backend, op, *arguments, **options), getattr(reference, op)(*arguments, **options)
    for got, want in zip(*results, strict=True):
        np.testing.assert_array_equal(got, want)


def widths(*values):
    """Boxes that share their left lower corner: the IoU of two is the ratio of their widths."""
    return np.array([[0, 0, width, 1] for width in values], np.float32)


def test_lecture_example(backend):
    """Nine anchors, four boxes: (2, 3), then (7, 1), (5, 4), (9, 2), counted from 1. The largest entries left and right
    of each step lie in rows and columns already struck."""
    iou = np.full((9, 4), 0.05, np.float32)
    iou[1] = 0.30, 0.88, 0.96, 0.90
    iou[6] = 0.85, 0.10, 0.86, 0.84
    iou[4] = 0.10, 0.12, 0.94, 0.71
    iou[8] = 0.60, 0.55, 0.20, 0.62
    iou[0] = 0.02, 0.50, 0.11, 0.03
    iou[3, 1] = 0.52
    matches, ious = call(backend, "match_greedy_matrix", iou)
    np.testing.assert_array_equal(matches, [-1, 2, -1, -1, 3, -1, 0, -1, 1])
    np.testing.assert_array_equal(ious[[1, 6, 4, 8]], np.float32([0.96, 0.85, 0.71, 0.55]))
    np.testing.assert_array_equal(ious[[0, 3, 2]], np.float32([0.50, 0.52, 0.05]))
    matches, _ = call(backend, "match_greedy_matrix", iou, iou_threshold=0.5)
    np.testing.assert_array_equal(matches, [1, 2, -1, 1, 3, -1, 0, -1, 1])


def test_thresholds_include_their_value(backend):
    anchors, box = widths(10, 7, 5, 3, 2), widths(10)
    matches, ious = call(backend, "match_max_iou", anchors, box, high=0.7, low=0.3)
    np.testing.assert_array_equal(matches, [0, 0, -2, -2, -1])
    np.testing.assert_array_equal(ious, np.float32([1, 0.7, 0.5, 0.3, 0.2]))
    matches, _ = call(backend, "match_greedy", anchors, box, iou_threshold=0.7)
    np.testing.assert_array_equal(matches, [0, 0, -1, -1, -1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("toward", [0, 1])
def test_thresholds_are_rounded_once_to_the_compute_type(backend, dtype, toward):
    anchors, box = widths(1, 7).astype(dtype), widths(10).astype(dtype)
    exact = dtype(7) / dtype(10)
    high = float(np.nextafter(exact, dtype(toward)))
    matches, _ = call(backend, "match_max_iou", anchors, box, high=high, low=0.1)
    np.testing.assert_array_equal(matches, [-2, -2 if toward else 0])
    matches, _ = call(backend, "match_max_iou", anchors, box, high=float(exact) + 1e-20, low=0.1 + 1e-20)
    np.testing.assert_array_equal(matches, [-2, 0])


def test_low_quality(backend):
    """Ties of a box's largest IoU are all matched, each to its own best box."""
    anchors = np.array([[0, 0, 4, 1], [6, 0, 10, 1], [20, 0, 24, 1], [40, 0, 41, 1]], np.float32)
    boxes = np.array([[0, 0, 10, 1], [20, 0, 30, 1], [22, 0, 25, 1]], np.float32)
    matches, ious = call(backend, "match_max_iou", anchors, boxes, high=0.7, low=0.3, allow_low_quality=True)
    np.testing.assert_array_equal(matches, [0, 0, 1, -1])
    np.testing.assert_array_equal(ious, np.float32([0.4, 0.4, 0.4, 0]))
    lonely = np.concatenate([boxes, boxes[:1] + 1000])  # overlaps nothing: all anchors share its largest IoU, 0
    matches, _ = call(backend, "match_max_iou", anchors, lonely, high=0.7, low=0.3, allow_low_quality=True)
    np.testing.assert_array_equal(matches, [0, 0, 1, 0])


def test_ignore_is_greater_not_equal(backend):
    anchors, crowd, none = widths(10, 16, 20), widths(8), np.zeros((0, 4), np.float32)
    for threshold, want in ((0.4, [-2, -2, -1]), (0.5, [-2, -1, -1]), (0.39, [-2, -2, -2]), (0.8, [-1] * 3)):
        options = {"high": 0.5, "ignore_boxes": crowd, "ignore_threshold": threshold}
        np.testing.assert_array_equal(call(backend, "match_max_iou", anchors, none, **options)[0], want)
    matches, _ = call(backend, "match_max_iou", anchors, widths(20), high=0.7, low=0.6, ignore_boxes=crowd)
    np.testing.assert_array_equal(matches, [-2, 0, 0])  # of the matched, none is ignored


def test_boxes_without_overlap_take_the_first_free_anchors(backend):
    anchors = np.concatenate([widths(10), widths(5) + 100, widths(3, 4)])
    boxes = np.concatenate([widths(9) + 500, widths(10), widths(9) + 700])
    matches, ious = call(backend, "match_greedy", anchors, boxes)
    np.testing.assert_array_equal(matches, [1, 0, 2, -1])
    np.testing.assert_array_equal(ious, np.float32([1, 0, 0, 0.4]))


@pytest.mark.parametrize("seed", range(8))
def test_many_tiles_and_chunks(backend, seed):
    """Crowds in which boxes compete for anchors, on grids, over several tiles and images."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 25, rng.integers(1, 4))
    boxes = random_boxes(rng, int(counts.sum()), 200.0, (10.0, 90.0))
    boxes = np.round(np.repeat(boxes, 1 + seed % 2, axis=0) / 8) * 8
    anchors = grid_anchors(13) if seed % 3 else random_boxes(rng, 1500, 200.0, (5.0, 90.0))
    offsets = ragged(*counts * (1 + seed % 2))
    check(backend, "match_max_iou", anchors, boxes, 0.6, 0.4, bool(seed % 4), offsets=offsets)
    check(backend, "match_greedy", anchors, boxes, (None, 0.5)[seed % 2], offsets=offsets)


@pytest.mark.parametrize("stretch", [(1, 1), (2**-10, 1), (1, 2**20)])
@pytest.mark.parametrize("empty", [False, True])
def test_boxes_near_few_anchors(backend, empty, stretch):
    """Anchors that meet few boxes, each its own, at whole numbers: sides coincide and IoUs tie. Empty boxes, inverted
    ones and NaN are among many others."""
    rng = np.random.default_rng(0)
    anchors, boxes = (np.round(random_boxes(rng, n, 640.0, (4.0, 60.0))) for n in (1100, 150))
    boxes[1::9] = anchors[rng.integers(0, len(anchors), len(boxes[1::9]))]
    if empty:
        boxes[0::20, 2] = boxes[0::20, 0]
        boxes[2::20] = boxes[2::20][:, [2, 3, 0, 1]]
        boxes[3::20, rng.integers(0, 4, 8)] = np.nan
    anchors, boxes = ((some * np.tile(stretch, 2)).astype(np.float32) for some in (anchors, boxes))
    for low_quality in (False, True):
        check(backend, "match_max_iou", anchors, boxes, 0.5, 0.3, low_quality)
    check(backend, "match_greedy", anchors, boxes, 0.3)


def test_areas_at_the_bounds_of_a_quick_division(backend):
    """Sides over many powers of 2: areas, intersections and quotients from among the smallest numbers to huge ones."""
    rng = np.random.default_rng(0)
    anchors, boxes = (
        np.concatenate([np.zeros((n, 2)), np.exp2(rng.uniform(-40, 40, (n, 2)))], 1).astype(np.float32)
        for n in (300, 80)
    )
    boxes[40:, 2:] = np.exp2(rng.uniform(-32, -28, (40, 2)))
    anchors[200:] = np.repeat(boxes, 2, axis=0)[60:160] * np.float32(1.5)
    for low_quality in (False, True):
        check(backend, "match_max_iou", anchors, boxes, 0.6, 0.4, low_quality)
    check(backend, "match_greedy", anchors, boxes, 0.5)


@pytest.mark.parametrize(
    "boxes", [np.repeat([[40.0, 40, 80, 80]], 600, axis=0), random_boxes(np.random.default_rng(0), 600) + 3000]
)
def test_hundreds_of_boxes_that_want_the_same_anchor(boxes):
    anchors = random_boxes(np.random.default_rng(1), 2000, **CROWD)
    for order in (anchors, anchors[:500]):
        check(backends.NUMPY, "match_greedy", order, boxes, 0.5)
        check(backends.NUMPY, "match_max_iou", order, boxes, 0.5, 0.3, True)


@pytest.mark.parametrize("op", ON_BOXES)
@pytest.mark.parametrize(("offsets", "words"), WRONG_OFFSETS)
def test_wrong_offsets(op, offsets, words):
    more = (0.5,) if op == "match_max_iou" else ()
    with pytest.raises(ValueError, match=f"^{op}: expected {words}$"):
        getattr(boxops, op)(np.zeros((5, 4)), np.zeros((3, 4)), *more, offsets=np.array(offsets))


@pytest.mark.parametrize("offsets", [[0, 5, 2, 5], [3, 1, 5, 0], [-9, 9, 3, 2**62], [5, 5, 5, 5], [0, 2, 2, 3]])
def test_offsets_on_the_device_are_not_believed(backend, offsets):
    if backend in (backends.NUMPY, backends.TORCH):
        pytest.skip("the CPU looks at them")
    rng = np.random.default_rng(0)
    anchors, boxes = random_boxes(rng, 300, **CROWD), random_boxes(rng, 5, **CROWD)
    rising = np.maximum.accumulate(np.clip(offsets, 0, 5))
    for got, want in zip(call(backend, "match_greedy", anchors, boxes, 0.5, offsets=np.array(offsets)),
                         reference.match_greedy(anchors, boxes, 0.5, offsets=rising), strict=True):  # fmt: skip
        np.testing.assert_array_equal(got, want)
    call(backend, "match_max_iou", anchors, boxes, 0.5, 0.3, True, offsets=np.array(offsets))


# Properties

places = st.integers(0, 10)
integral = arrays(np.float32, st.tuples(st.integers(0, 7), st.just(4)), elements=st.integers(0, 6))
anything = arrays(np.float32, st.tuples(st.integers(0, 7), st.just(4)), elements=st.floats(width=32))
thresholds = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0])


@given(integral | anything, integral | anything, thresholds, thresholds, st.booleans())
def test_any_boxes(anchors, boxes, one, other, low_quality):
    high, low = max(one, other), min(one, other)
    check(backends.NUMPY, "match_max_iou", anchors, boxes, high, low, low_quality, ignore_boxes=boxes[::-1])
    check(backends.NUMPY, "match_greedy", anchors, boxes, one)


@given(integral, integral)
def test_greedy_on_boxes_is_greedy_on_their_matrix(anchors, boxes):
    iou = boxops.box_iou(anchors, boxes)
    for got, want in zip(boxops.match_greedy(anchors, boxes), boxops.match_greedy_matrix(iou), strict=True):
        np.testing.assert_array_equal(got, want)


@given(arrays(np.float32, st.tuples(places, places), elements=st.sampled_from([0, 0.25, 0.5, 1, np.nan, -1, -np.inf])))
def test_greedy_is_one_to_one_and_leaves_no_better_pair(iou):
    matches, ious = boxops.match_greedy_matrix(iou)
    matched = matches[matches >= 0]
    assert len(matched) == len(set(matched.tolist())) == min(iou.shape)
    value = np.where(np.isnan(iou), -np.inf, iou)
    of_anchor = np.where(matches >= 0, ious, -np.inf)
    of_box = np.full(iou.shape[1], -np.inf)
    of_box[matched] = ious[matches >= 0]
    assert (value <= np.maximum(of_anchor[:, None], of_box[None])).all()


# Second opinions


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("kind", ["random", "grid", "lonely box"])
def test_torchvision_matcher(torchvision, kind, low_quality):
    import torch
    from torchvision.models.detection._utils import Matcher

    rng = np.random.default_rng(2)
    anchors = grid_anchors(20) if kind == "grid" else random_boxes(rng, 3000)
    boxes = np.round(random_boxes(rng, 30, 300.0) / 8) * 8 + 5000 * (np.arange(30) == 9)[:, None] * (
        kind == "lonely box"
    )
    anchors, boxes = torch.from_numpy(anchors).float(), torch.from_numpy(boxes).float()
    matches, ious = boxops.match_max_iou(anchors, boxes, 0.5, 0.3, low_quality)
    quality = torchvision.box_iou(boxes, anchors)
    torch.testing.assert_close(matches, Matcher(0.5, 0.3, low_quality)(quality), rtol=0, atol=0)
    torch.testing.assert_close(ious, quality.max(0).values, rtol=0, atol=0)


@pytest.mark.parametrize("count", [3, 40])
def test_plain_loop(count):
    """The bipartite rule as the lecture writes it: argmax, then strike row and column."""
    rng = np.random.default_rng(count)
    anchors, boxes = random_boxes(rng, 900, **CROWD), random_boxes(rng, count, **CROWD)
    iou = boxops.box_iou(anchors, boxes)
    want, left = np.full(len(anchors), -1), iou.copy()
    for _ in boxes:
        row, column = divmod(left.argmax(), count)
        want[row], left[row], left[:, column] = column, -1, -1
    np.testing.assert_array_equal(boxops.match_greedy(anchors, boxes)[0], want)
    np.testing.assert_array_equal(boxops.match_greedy_matrix(iou)[0], want)


def test_result_does_not_depend_on_threads():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    anchors, boxes = (torch.from_numpy(random_boxes(rng, n)) for n in (20_000, 40))
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append((boxops.match_max_iou(anchors, boxes, 0.7, 0.3, True), boxops.match_greedy(anchors, boxes)))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_no_gradient():
    torch = pytest.importorskip("torch")
    anchors, boxes = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True), torch.tensor([[0.0, 0, 2, 1]])
    for result in (boxops.match_max_iou(anchors, boxes, 0.5), boxops.match_greedy(anchors, boxes)):
        assert not any(array.requires_grad for array in result)
