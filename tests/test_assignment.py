"""linear_sum_assignment and detr_cost: the same on every backend, and as scipy and DETR's own matcher have it."""

import backends
import cases
import numpy as np
import pytest


# exp and log differ between backends by a few units in the last place, and the softmax sums in another order.
def close(got, want):
    rtol = 1e-12 if want.dtype == np.float64 else 1e-5
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", cases.FLOATS + cases.INTEGERS)
@pytest.mark.parametrize("op", ["linear_sum_assignment", "detr_cost"])
def test_reference(backend, op, dtype):
    backends.check_cases(backend, op, dtype, *[close] * (op == "detr_cost"))
