"""Rotated boxes: IoU to the bit of the reference, exact against shapely, and NMS by it."""

import backends
import cases
import numpy as np
import pytest
from cases.rotated import BOXES, rotated
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops import reference

OPS = ("rotated_box_iou", "rotated_nms", "batched_rotated_nms")


@pytest.mark.parametrize("dtype", cases.FLOATS + cases.INTEGERS)
@pytest.mark.parametrize("op", OPS)
def test_reference(backend, op, dtype):
    backends.check_cases(backend, op, dtype)
