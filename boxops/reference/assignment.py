"""Minimum cost assignment, and DETR's matching costs."""

from itertools import pairwise

import numpy as np

from boxops.reference.common import compute_type, giou_of, quiet, to_pairs


def linear_sum_assignment(cost, maximize=False, *, offsets=None, on_invalid="raise"):
    cost = np.asarray(cost).astype(np.float64)
    cost = -cost if maximize else cost
    solve = _solve if on_invalid == "raise" else _solve_or_leave
    if offsets is not None:
        column = np.full(len(cost), -1)
        for begin, end in pairwise(offsets):
            rows, columns = solve(cost[begin:end])
            column[begin + rows] = columns
        return np.arange(len(cost)), column
    if cost.ndim == 2:
        return solve(cost)
    solved = np.zeros((2, len(cost), min(cost.shape[1:])), np.int64)
    for b in range(len(cost)):
        solved[:, b] = solve(cost[b])
    return solved[0], solved[1]


def _solve_or_leave(cost):
    try:
        return _solve(cost)
    except ValueError:
        k = min(cost.shape)
        return np.arange(k), np.full(k, -1)


@quiet
def _solve(cost):
    if np.isnan(cost).any() or (cost == -np.inf).any():
        raise ValueError("linear_sum_assignment: expected costs without NaN or -inf")
    if np.abs(cost[np.isfinite(cost)]).max(initial=0) > 2.0**1000:
        cost = cost * 2.0**-64  # so that no sum overflows
    if cost.shape[0] <= cost.shape[1]:
        return np.arange(cost.shape[0]), _columns(cost)
    rows = _columns(cost.T)
    return np.sort(rows), np.argsort(rows)


TIED_MOVES = 16
NO_ASSIGNMENT = "linear_sum_assignment: expected a cost matrix with a finite assignment, got none"


def _columns(cost):
    """The column of each row, rows <= columns (Jonker and Volgenant 1987)."""
    rows, columns = cost.shape
    # Column reduction: where all columns are taken in the end, their duals may begin anywhere, else they begin at 0.
    v = cost.min(0, initial=np.inf) if rows == columns else np.zeros(columns)
    if (v == np.inf).any():
        raise ValueError(NO_ASSIGNMENT)
    row_of, column_of = np.full(columns, -1), np.full(rows, -1)
    _reduce_rows(cost, v, row_of, column_of)
    for row in range(rows):
        if column_of[row] < 0:
            _augment(cost, v, row_of, column_of, row)
    return column_of


def _nearest(distance, row_of):
    """The column at the least distance. Ties: a free column, then the lower index."""
    least = distance.min(initial=np.inf)
    if least == np.inf:
        raise ValueError(NO_ASSIGNMENT)
    return min(np.flatnonzero(distance == least), key=lambda j: (row_of[j] >= 0, j))


def _reduce_rows(cost, v, row_of, column_of):
    """Augmenting row reduction: a row takes its nearest column and lowers its dual as far as it stays the nearest."""
    steps = 2 * len(cost)
    for row in range(len(cost)):
        lost, moves = -1, 0
        while row >= 0 and steps > 0:
            steps -= 1
            reduced = cost[row] - v
            column = _nearest(reduced, row_of)
            second = np.delete(reduced, column).min(initial=np.inf)
            lowered = v[column] - (second - reduced[column])
            if second < np.inf and lowered < v[column]:
                v[column], moves = lowered, 0
            elif row_of[column] >= 0:  # tied columns, all taken: the next one after that which the row has lost
                if moves == TIED_MOVES:
                    break
                moves += 1
                tied = np.flatnonzero(reduced == reduced[column])
                column = min(tied, key=lambda j: (j <= lost, j))
            column_of[row] = lost = column
            row, row_of[column] = row_of[column], row  # who had the column goes on
            if row >= 0:
                column_of[row] = -1


def _augment(cost, v, row_of, column_of, new):
    """A shortest augmenting path from a row that has no column (Crouse 2016, section II)."""
    columns = len(v)
    distance, via, is_open = np.full(columns, np.inf), np.full(columns, new), np.full(columns, True)
    row, base = new, 0.0
    while True:
        through = (cost[row] - v) + base
        closer = is_open & (through < distance)
        distance[closer], via[closer] = through[closer], row
        column = _nearest(np.where(is_open, distance, np.inf), row_of)
        least = distance[column]
        if row_of[column] < 0:
            break
        is_open[column], row = False, row_of[column]
        base = least - (cost[row, column] - v[column])
    v[~is_open] -= least - distance[~is_open]
    while column >= 0:
        row_of[column] = row = via[column]
        column, column_of[row] = column_of[row], column


@quiet
def detr_cost(
    logits,
    boxes,
    gt_labels,
    gt_boxes,
    offsets,
    *,
    class_weight=1.0,
    box_weight=5.0,
    giou_weight=2.0,
    focal=False,
):
    real = compute_type(logits, boxes, gt_boxes).type
    logits, boxes, gt_boxes = (np.asarray(array).astype(real) for array in (logits, boxes, gt_boxes))
    cost = np.zeros((len(gt_boxes), boxes.shape[1]), real)
    for b in range(len(boxes)):
        own = slice(offsets[b], offsets[b + 1])
        class_cost = (_focal_cost if focal else _softmax_cost)(logits[b])[:, gt_labels[own].astype(np.int64)].T
        box_cost = np.abs(gt_boxes[own, None] - boxes[b]).sum(-1)
        giou = giou_of(*to_pairs(gt_boxes[own], boxes[b], "cxcywh", False), 0, 0)
        cost[own] = (real(box_weight) * box_cost + real(class_weight) * class_cost) - real(giou_weight) * giou
    return cost


def _softmax_cost(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return -(powers / powers.sum(-1, keepdims=True))


def _focal_cost(logits):
    """With p the sigmoid, and 1 - p computed without cancellation."""
    power = np.exp(-np.abs(logits))
    large, small = 1 / (1 + power), power / (1 + power)
    p, rest = np.where(logits >= 0, large, small), np.where(logits >= 0, small, large)
    alpha, eps = logits.dtype.type(0.25), logits.dtype.type(1e-8)
    return alpha * (rest * rest) * -np.log(p + eps) - (1 - alpha) * (p * p) * -np.log(rest + eps)
