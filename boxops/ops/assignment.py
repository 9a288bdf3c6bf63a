"""Minimum cost assignment, and the costs that DETR matches queries with."""

from __future__ import annotations

from typing import Any, TypeVar

from boxops.ops.backend import backend

Array = TypeVar("Array")


def linear_sum_assignment(cost: Array, maximize: bool = False, *, offsets: Array | None = None) -> tuple[Array, Array]:
    """Assigns rows to columns at the least total cost: the Hungarian problem, exactly, one or many at once.

    As ``scipy.optimize.linear_sum_assignment``. On CUDA, problems are solved side by side and nothing waits.

    Args:
        cost: ``[n, m]``, a batch ``[B, n, m]``, or with ``offsets`` a ragged batch ``[R, m]``; any real dtype and strides.
            Computed in float64. A cost of +inf forbids the pair (-inf when maximizing).
        maximize: look for the greatest total instead.
        offsets: int64 ``[B + 1]``, rising from 0 to R: problem b has the rows from ``offsets[b]`` to ``offsets[b + 1]``.

    Returns:
        row_ind, col_ind: int64 ``[k]`` or ``[B, k]`` with k = min(n, m), rows rising: row ``row_ind[i]`` takes column
        ``col_ind[i]``. With ``offsets`` both are ``[R]``: ``row_ind`` is 0, 1, ..., R - 1, and ``col_ind`` the column of
        each row, -1 for the rows that are left where a problem has more rows than columns.

        Of several optimal assignments all devices choose the same one, which need not be scipy's.

    Raises:
        ValueError: the shape is wrong, the dtype is not real, or offsets do not fit. On the CPU also for costs that are
            NaN or infinite the wrong way, and for a problem without a finite assignment; on CUDA, where the host would
            have to wait for this, such a problem has ``col_ind`` -1 throughout (and ``row_ind`` 0, 1, ..., k - 1), and
            offsets that fall make every problem such.
        TypeError: cost and offsets are not arrays of one kind.

    Source: Crouse, On implementing 2D rectangular assignment algorithms, IEEE TAES 2016, section II; Jonker, Volgenant,
    A shortest augmenting path algorithm for dense and sparse linear assignment problems, Computing 1987.
    """
    arrays: tuple[Any, ...] = (cost,) if offsets is None else (cost, offsets)
    ops = backend("linear_sum_assignment", *arrays)
    return ops.linear_sum_assignment(cost, bool(maximize), offsets)
