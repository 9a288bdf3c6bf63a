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
        return np.arange(cost.shape[0]), _augment(cost)
    rows = _augment(cost.T)
    return np.sort(rows), np.argsort(rows)


def _augment(cost):
    """The column of each row, rows <= columns, by shortest augmenting paths (Crouse 2016, section II)."""
    rows, columns = cost.shape
    u, v = np.zeros(rows), np.zeros(columns)
    row_of, column_of = np.full(columns, -1), np.full(rows, -1)
    for new in range(rows):
        distance, via, is_open = np.full(columns, np.inf), np.full(columns, new), np.full(columns, True)
        row, least = new, 0.0
        while True:
            through = (cost[row] - v) + (least - u[row])
            closer = is_open & (through < distance)
            distance[closer], via[closer] = through[closer], row
            least = distance[is_open].min(initial=np.inf)
            if least == np.inf:
                raise ValueError("linear_sum_assignment: expected a cost matrix with a finite assignment, got none")
            nearest = np.flatnonzero(is_open & (distance == least))
            column = min(nearest, key=lambda j: (row_of[j] >= 0, j))  # ties: a free column, then the lower index
            if row_of[column] < 0:
                break
            is_open[column], row = False, row_of[column]
        change = least - distance[~is_open]
        u[row_of[~is_open]] += change
        v[~is_open] -= change
        u[new] = least
        while column >= 0:
            row_of[column] = row = via[column]
            column, column_of[row] = column_of[row], column
    return column_of


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
