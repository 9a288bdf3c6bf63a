"""match_max_iou, match_greedy and match_greedy_matrix: the same matches on every backend."""

import backends
import cases
import numpy as np
import pytest
from box_sets import random_boxes
from cases.matching import CROWD, WRONG_OFFSETS, grid_anchors, ragged
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops import reference

OPS = ("match_max_iou", "match_greedy", "match_greedy_matrix")


@pytest.mark.parametrize("dtype", cases.FLOATS + cases.INTEGERS)
@pytest.mark.parametrize("op", OPS[:2])
def test_reference(backend, op, dtype):
    backends.check_cases(backend, op, dtype)


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_reference_matrix(backend, dtype):
    backends.check_cases(backend, "match_greedy_matrix", dtype)
