"""box_l1_cost."""

import backends
import cases
import numpy as np
import pytest
from box_sets import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops


@pytest.mark.parametrize("dtype", cases.FLOATS + cases.INTEGERS)
def test_reference(backend, dtype):
    backends.check_cases(backend, "box_l1_cost", dtype)


def test_layouts(backend):
    rng = np.random.default_rng(1)
    boxes1, boxes2 = (random_boxes(rng, n).astype(np.float32) for n in (21, 13))
    backends.check_layouts(backend, "box_l1_cost", {"boxes1": boxes1, "boxes2": boxes2})


def test_by_hand(backend):
    boxes1, boxes2 = np.float32([[0, 0, 2, 3], [np.nan, 0, 1, 1]]), np.float32([[0, 0, 2, 3], [1, -1, 5, 1]])
    cost = backend.to_numpy(backend.ops.box_l1_cost(backend.to_array(boxes1), backend.to_array(boxes2)))
    np.testing.assert_array_equal(cost, [[0, 1 + 1 + 3 + 2], [np.nan, np.nan]])


some = arrays(np.float32, st.tuples(st.integers(0, 9), st.just(4)), elements=st.integers(-99, 99))


@given(some, some)
def test_is_a_distance(boxes1, boxes2):
    cost = boxops.box_l1_cost(boxes1, boxes2)
    np.testing.assert_array_equal(cost, np.abs(boxes1[:, None] - boxes2).sum(-1))
    np.testing.assert_array_equal(cost, boxops.box_l1_cost(boxes2, boxes1).T)


def test_torch_cdist():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    boxes1, boxes2 = (torch.from_numpy(random_boxes(rng, n)) for n in (30, 20))
    torch.testing.assert_close(boxops.box_l1_cost(boxes1, boxes2), torch.cdist(boxes1, boxes2, p=1))
