"""The L1 cost of all boxes with all boxes."""

import numpy as np

from boxops.reference.common import compute, quiet


@quiet
def box_l1_cost(boxes1, boxes2):
    a = np.moveaxis(compute(boxes1, boxes2), -1, 0)[..., :, None]
    b = np.moveaxis(compute(boxes2, boxes1), -1, 0)[..., None, :]
    dx1, dy1, dx2, dy2 = (np.abs(one - other) for one, other in zip(a, b, strict=True))
    return dx1 + dy1 + dx2 + dy2
