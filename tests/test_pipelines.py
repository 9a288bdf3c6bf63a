"""generate_proposals and detect: the same boxes on every backend, and torchvision's."""

import backends
import cases
import numpy as np
import pytest


def close(got, want):
    """Integers to the bit. Decoding takes exp, whose last bit is the library's, so a coordinate may differ by a few
    roundings of the largest number in its sum; and the sigmoid takes exp too."""
    if want.dtype.kind == "i" or want.size == 0:
        return np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(got, want, rtol=0, atol=8 * np.finfo(want.dtype).eps * np.abs(want).max())


@pytest.mark.parametrize("dtype", cases.FLOATS)
def test_proposals(backend, dtype):
    backends.check_cases(backend, "generate_proposals", dtype, close)


@pytest.mark.parametrize("dtype", cases.FLOATS + cases.INTEGERS)
def test_detect(backend, dtype):
    backends.check_cases(backend, "detect", dtype)
