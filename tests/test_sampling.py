"""sample_matches and mine_hard_negatives: the same choice on every backend, and the right one."""

import backends
import cases
import numpy as np
import pytest

OPS = ("sample_matches", "mine_hard_negatives")


@pytest.mark.parametrize("dtype", cases.FLOATS)
@pytest.mark.parametrize("op", OPS)
def test_reference(backend, op, dtype):
    backends.check_cases(backend, op, dtype)
