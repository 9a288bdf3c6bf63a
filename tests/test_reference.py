"""Every case of every op, on every backend and dtype, gives what the reference gives."""

import backends
import cases
import pytest

EVERY = [
    (op, dtype)
    for op in cases.CASES
    for dtype in (*cases.FLOATS, *cases.INTEGERS)
    if any(dtype in case.dtypes for case in cases.CASES[op])
]


@pytest.mark.parametrize(("op", "dtype"), EVERY)
def test_reference(backend, op, dtype):
    backends.check_cases(backend, op, dtype)
