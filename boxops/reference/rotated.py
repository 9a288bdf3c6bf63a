"""Rotated boxes [..., 5]: centre x, centre y, width, height, angle in degrees, counter-clockwise with y pointing down.

The overlap is found in the frame of the first box, with the origin at the centre of the second. There the first is a
plain rectangle, and a point is clamped to it coordinate by coordinate. Clamping the second's outline to it leaves the
outline of the overlap, whose area is the sum over the four edges of the integral of the clamped y over the clamped x.
Nothing is decided on the way, so edges that nearly coincide do no harm: the area depends on them continuously.
"""

import numpy as np

from boxops.reference.common import SHRINK, compute, elementwise, kept_greedily, kept_in_groups, quiet


@elementwise
def rotated_box_iou(boxes1, boxes2, *, paired=False):
    a, b = load(boxes1), load(boxes2)
    return iou_of(a, b) if paired else iou_of(a[..., :, None], b[..., None, :])


@quiet
def rotated_nms(boxes, scores, iou_threshold):
    return kept_greedily(load(boxes), scores, iou_threshold, iou_of)


@quiet
def batched_rotated_nms(boxes, scores, idxs, iou_threshold):
    return kept_in_groups(rotated_nms, boxes, scores, idxs, iou_threshold)


def load(boxes):
    """[..., 5] -> [10, ...] in the compute type: centre, half sides, angle in [-45, 45] and its cosine and sine, half
    the sides of the axis-parallel hull, and area. A quarter turn is a swap of the sides. The hull of a box that
    overlaps nothing is -inf wide: one with a number that is NaN or about to overflow, or with an area that is 0 or
    subnormal."""
    cx, cy, width, height, angle = np.moveaxis(compute(boxes), -1, 0)
    limits, most = np.finfo(cx.dtype), np.finfo(cx.dtype).max / 8
    area = larger(width, 0) * larger(height, 0)
    angle = np.fmod(angle, 180)
    angle = np.where(angle > 90, angle - 180, np.where(angle < -90, angle + 180, angle))
    quarter = np.abs(angle) > 45
    angle = np.where(quarter, angle - np.where(angle > 0, 90, -90), angle).astype(cx.dtype)
    a, b = np.where(quarter, height, width) / 2, np.where(quarter, width, height) / 2
    sin, cos = sin_cos(angle)
    hull_x, hull_y = a * cos + b * np.abs(sin), a * np.abs(sin) + b * cos
    box = np.stack([cx, cy, a, b, angle, cos, sin, hull_x, hull_y, area])
    ordinary = (np.abs(cx) <= most) & (np.abs(cy) <= most) & (width <= most) & (height <= most)
    ordinary &= np.isfinite(angle) & (area >= 4 * limits.tiny)
    nothing = np.zeros(10, cx.dtype)
    nothing[7:9] = -np.inf
    return np.where(ordinary, box, nothing.reshape(-1, *[1] * cx.ndim))


def iou_of(first, second):
    iou = plain_iou_of(first, second)
    huge = np.maximum(first[-1], second[-1]) > np.finfo(first.dtype).max / 8  # what is summed may overflow
    return np.where(huge, plain_iou_of(shrunk(first), shrunk(second)), iou) if huge.any() else iou


def shrunk(box):
    """Times a power of two, which is exact."""
    box = box.copy()
    box[[0, 1, 2, 3, 7, 8]] *= SHRINK[box.dtype.name]
    box[-1] = (2 * box[2]) * (2 * box[3])
    return box


def plain_iou_of(first, second):
    inter = intersection_of(first, second)
    union = (first[-1] + second[-1]) - inter
    return np.where(union > 0, inter / union, 0)


def intersection_of(first, second):
    cx1, cy1, a, b, angle1, cos1, sin1, hull_x1, hull_y1, area1 = first
    cx2, cy2, p, q, angle2, _, _, hull_x2, hull_y2, area2 = second
    dx, dy = cx2 - cx1, cy2 - cy1
    hulls_meet = (np.abs(dx) < hull_x1 + hull_x2) & (np.abs(dy) < hull_y1 + hull_y2)

    # The frame of the first box, mirrored such that the second is turned by 0 to 45 degrees from x towards y.
    turn = angle2 - angle1
    quarter = np.abs(turn) > 45
    p, q = np.where(quarter, q, p), np.where(quarter, p, q)
    sin, cos = sin_cos(np.where(quarter, 90 - np.abs(turn), np.abs(turn)))
    u, v = dx * cos1 - dy * sin1, dx * sin1 + dy * cos1
    v = np.where((turn > 0) != quarter, -v, v)

    # Separated along an axis of either: exactly 0.
    ex, ey, fx, fy = p * cos, p * sin, q * sin, q * cos  # half the sides as vectors: (ex, ey) and (-fx, fy)
    meet = hulls_meet & (np.abs(u) < a + (ex + fx)) & (np.abs(v) < b + (ey + fy))
    meet &= np.abs(u * cos + v * sin) < p + (a * cos + b * sin)
    meet &= np.abs(v * cos - u * sin) < q + (a * sin + b * cos)

    slope, steep = sin / cos, cos / larger(sin, np.finfo(sin.dtype).tiny)
    x_limits, y_limits = (-a - u, a - u), (-b - v, b - v)

    def along(x0, y0, x1, y1):
        """Integral of clamped y over clamped x on an edge that rises from left to right, by at most 1 in 1."""
        left, right = clamp(x0, *x_limits), clamp(x1, *x_limits)
        low, high = clamp(y0 + (left - x0) * slope, *y_limits), clamp(y1 - (x1 - right) * slope, *y_limits)
        enter, leave = (clamp(x0 + (limit - y0) * steep, left, right) for limit in y_limits)
        return low * (right - left) + (high - low) * (((right - enter) + (right - leave)) * dtype(0.5))

    def up(x0, y0, x1, y1):
        """The same on an edge that leads upwards in y, and backwards in x by at most 1 in 1."""
        low, high = clamp(y0, *y_limits), clamp(y1, *y_limits)
        first, last = clamp(x0 - (low - y0) * slope, *x_limits), clamp(x1 + (y1 - high) * slope, *x_limits)
        enter, leave = (clamp(y0 + (x0 - limit) * steep, low, high) for limit in x_limits)
        outside = low * (first - clamp(x0, *x_limits)) + high * (clamp(x1, *x_limits) - last)
        return (last - first) * ((enter + leave) * dtype(0.5)) + outside

    dtype = u.dtype.type
    x, y, x_, y_ = ex + fx, ey - fy, fx - ex, -ey - fy  # corners: (x, y), (-x, -y), (x_, y_), (-x_, -y_)
    inter = (along(-x, -y, -x_, -y_) - along(x_, y_, x, y)) + (up(x_, y_, -x, -y) - up(x, y, -x_, -y_))
    # Bounds that the overlap has anyway, and now its rounded value too: NMS leans on them.
    hull_w = smaller((hull_x1 + hull_x2) - np.abs(dx), 2 * smaller(hull_x1, hull_x2))
    hull_h = smaller((hull_y1 + hull_y2) - np.abs(dy), 2 * smaller(hull_y1, hull_y2))
    inter = smaller(smaller(inter, hull_w * hull_h), smaller(area1, area2))
    return np.where(meet & (inter > 0), inter, dtype(0))


# Coefficients of x^3, x^5, ... and x^4, x^6, ... (Cephes for float32, fdlibm for float64).
SINE = {
    "float32": (-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4),
    "float64": (
        -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04,
        2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10,
    ),
}  # fmt: skip
COSINE = {
    "float32": (4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5),
    "float64": (
        4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05,
        -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11,
    ),
}  # fmt: skip


def sin_cos(degrees):
    """Of at most 45 degrees either way. No standard rounds sine and cosine, so every backend computes this."""
    dtype = degrees.dtype.type
    x = degrees * dtype(np.pi / 180)
    square = x * x
    sine, cosine = (horner(table[degrees.dtype.name], square) for table in (SINE, COSINE))
    return x + x * (square * sine), (dtype(1) - dtype(0.5) * square) + (square * square) * cosine


def horner(coefficients, x):
    total = x.dtype.type(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = x * total + x.dtype.type(coefficient)
    return total


# Of these two numbers the second where one is NaN, as on every backend.
def larger(a, b):
    return np.where(a > b, a, b).astype(a.dtype)


def smaller(a, b):
    return np.where(a < b, a, b).astype(a.dtype)


def clamp(x, low, high):
    return smaller(larger(x, low), high)
