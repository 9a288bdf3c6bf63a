"""box_area, box_convert, clip_boxes_to_image, remove_small_boxes."""

import backends
import cases
import numpy as np
import pytest
from box_sets import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops

OPS = ("box_area", "box_convert", "clip_boxes_to_image", "remove_small_boxes")
OPTIONS = {
    "box_area": {},
    "box_convert": {"in_fmt": "cxcywh", "out_fmt": "xywh"},
    "clip_boxes_to_image": {"size": (300, 400)},
    "remove_small_boxes": {"min_size": 90},
}
any_boxes = arrays(np.float32, st.tuples(st.integers(0, 9), st.just(4)), elements=st.floats(width=32))


@pytest.mark.parametrize("op", OPS)
def test_layouts(backend, op):
    boxes = random_boxes(np.random.default_rng(1), 21).astype(np.float32)
    backends.check_layouts(backend, op, {"boxes": boxes, **OPTIONS[op]})


def run(backend, op, boxes, *options, dtype=np.float32):
    boxes = backend.to_array(np.array(boxes, dtype))
    return backend.to_numpy(getattr(backend.ops, op)(boxes, *options))


def test_area_clamps_and_keeps_nan(backend):
    boxes = [[0, 0, 2, 3], [2, 0, 0, 3], [2, 3, 0, 0], [1, 1, 1, 5], [np.nan, 0, 1, 1], [0, 0, 1, np.nan]]
    np.testing.assert_array_equal(run(backend, "box_area", boxes), [6, 0, 0, 0, np.nan, np.nan])


def test_area_of_integers_does_not_wrap(backend):
    assert run(backend, "box_area", [[0, 0, 255, 255]], dtype=np.uint8) == 65025
    assert run(backend, "box_area", [[-128, -128, 127, 127]], dtype=np.int8) == 65025
    assert run(backend, "box_area", [[5, 5, 3, 3]], dtype=np.uint8) == 0


def test_convert_rounds_once(backend):
    # 2049 is no float16, and rounds to 2048: the centre must be taken before rounding, the side not from the centre.
    got = run(backend, "box_convert", [[2047, 0, 2, 3]], "xywh", "cxcywh", dtype=np.float16)
    np.testing.assert_array_equal(got, np.array([[2048, 1.5, 2, 3]], np.float16))
    assert got.dtype == np.float16


def test_convert_copies(backend):
    boxes = backend.to_array(np.array([[0, 0, 1, 1]], np.float32))
    converted = backend.ops.box_convert(boxes, "xyxy", "xyxy")
    converted[0] = 7
    assert backend.to_numpy(boxes).max() == 1


def test_remove_small_at_the_limit(backend):
    size = np.float32(0.3)
    sides = np.array([size, np.nextafter(size, np.float32(0)), np.nextafter(size, np.float32(1)), np.nan], np.float32)
    boxes = np.array([[0, 0, w, h] for w in sides for h in sides], np.float32)
    np.testing.assert_array_equal(run(backend, "remove_small_boxes", boxes, 0.3), [0, 2, 8, 10])


@pytest.mark.parametrize("count", [1023, 1024, 1025, 20_003])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_remove_small_of_many(backend, count, share):
    """Around the rounds of a block of the CUDA kernels, and over several blocks."""
    large = np.random.default_rng(count).random(count) < share
    boxes = np.stack([0 * large, 0 * large, 5 + 10 * large, 12 + 0 * large], axis=1).astype(np.float32)
    np.testing.assert_array_equal(run(backend, "remove_small_boxes", boxes, 11.0), np.flatnonzero(large))


@given(any_boxes, st.integers(0, 100), st.integers(0, 100))
def test_clipped_boxes_lie_inside(boxes, height, width):
    clipped = boxops.clip_boxes_to_image(boxes, (height, width))
    inside = (clipped >= 0) & (clipped <= np.array([width, height, width, height]))
    assert (inside | np.isnan(boxes)).all()
    np.testing.assert_array_equal(boxops.clip_boxes_to_image(clipped, (height, width)), clipped)


@given(arrays(np.float64, (5, 4), elements=st.integers(-1000, 1000)), st.permutations(cases.FORMATS))
def test_convert_there_and_back(boxes, formats):
    a, b, c = formats
    through = boxops.box_convert(boxops.box_convert(boxes, a, b), b, c)
    np.testing.assert_array_equal(boxops.box_convert(through, c, a), boxes)


@given(any_boxes, st.floats(0, 100))
def test_small_boxes_are_the_complement(boxes, size):
    with np.errstate(all="ignore"):
        small = ~(boxes[:, 2:] - boxes[:, :2] >= np.float32(size)).all(axis=1)
    np.testing.assert_array_equal(boxops.remove_small_boxes(boxes, size), np.flatnonzero(~small))


@pytest.mark.parametrize("op", OPS)
def test_torchvision(torchvision, op):
    import torch

    boxes = torch.from_numpy(random_boxes(np.random.default_rng(2), 200))
    got, want = (getattr(module, op)(boxes, **OPTIONS[op]) for module in (boxops, torchvision))
    torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-12)
