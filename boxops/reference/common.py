"""What the families share: one box or many, as columns x1, y1, x2, y2 in the compute type."""

import functools

import numpy as np

quiet = np.errstate(all="ignore")  # NaN and inf are inputs like any other


def elementwise(op):
    """Of an op on [..., 4]: a single box is computed as a row of one, since NumPy 1 makes float64 of 0-d float32."""

    def row(value):
        return np.asarray(value)[None] if np.ndim(value) == 1 else value

    @quiet
    @functools.wraps(op)
    def on_rows(*args, **options):
        if any(np.ndim(value) > 1 for value in (*args, *options.values())):
            return op(*args, **options)
        result = op(*map(row, args), **{name: row(value) for name, value in options.items()})
        return result[0] if np.ndim(result) else result

    return on_rows


def by_falling_score(scores):
    # Stable: ties go to the lower index. NumPy sorts NaN to the end, and -0.0 with +0.0. Of integers, ~ falls exactly.
    scores = np.asarray(scores)
    return np.argsort(~scores if scores.dtype.kind in "iu" else -compute(scores), kind="stable")


def kept_greedily(boxes, scores, threshold, overlap):
    """Indices by falling score of the columns `boxes` that overlap no kept one by more than the threshold."""
    left, keep = by_falling_score(scores), []
    while left.size:
        best, rest = left[0], left[1:]
        keep.append(best)
        left = rest[~(overlap(boxes[:, best], boxes[:, rest]) > boxes.dtype.type(threshold))]
    return np.array(keep, dtype=np.int64)


def kept_in_groups(nms, boxes, scores, idxs, threshold):
    kept = np.zeros(len(scores), dtype=bool)
    for group in np.unique(idxs):
        members = np.flatnonzero(idxs == group)
        kept[members[nms(boxes[members], scores[members], threshold)]] = True
    order = by_falling_score(scores)
    return order[kept[order]]


def compute_type(*arrays):
    """float64 where an array is float64 or holds integers of 32 bits or more, which float32 does not; else float32."""
    wide = ("float64", "int32", "uint32", "int64", "uint64")
    return np.dtype(np.float64 if any(np.asarray(array).dtype.name in wide for array in arrays) else np.float32)


def compute(values, *beside):
    """The values in the compute type of theirs and of the arrays beside them."""
    return np.asarray(values).astype(compute_type(values, *beside))


def to_columns(boxes, fmt="xyxy", *beside):
    """[..., 4] -> [4, ...] in the compute type; a box with any NaN becomes NaN throughout."""
    xyxy = np.stack(to_xyxy(np.moveaxis(compute(boxes, *beside), -1, 0), fmt))
    return np.where(np.isnan(xyxy).any(axis=0), np.nan, xyxy)


def to_pairs(boxes1, boxes2, fmt, paired):
    a, b = to_columns(boxes1, fmt, boxes2), to_columns(boxes2, fmt, boxes1)
    return (a, b) if paired else (a[..., :, None], b[..., None, :])


def to_xyxy(columns, fmt):
    if fmt == "xyxy":
        return columns
    x, y, w, h = columns
    if fmt == "xywh":
        return x, y, x + w, y + h
    if fmt == "cxcywh":
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    raise ValueError(fmt)


def from_xyxy(columns, fmt):
    x1, y1, x2, y2 = columns
    if fmt == "xyxy":
        return columns
    if fmt == "xywh":
        return x1, y1, x2 - x1, y2 - y1
    if fmt == "cxcywh":
        return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    raise ValueError(fmt)


def extent_of(lo, hi):
    return np.fmax(hi - lo, 0)  # inverted and NaN give 0


def area_of(box):
    x1, y1, x2, y2 = box
    return np.where(np.isnan(x1), np.nan, extent_of(x1, x2) * extent_of(y1, y2))


def overlap_of(a, b):
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    return (
        extent_of(np.maximum(ax1, bx1), np.minimum(ax2, bx2)),
        extent_of(np.maximum(ay1, by1), np.minimum(ay2, by2)),
    )


def hull_of(a, b):
    """Width and height of the smallest box around both."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    return (
        extent_of(np.minimum(ax1, bx1), np.maximum(ax2, bx2)),
        extent_of(np.minimum(ay1, by1), np.maximum(ay2, by2)),
    )


def intersection_of(a, b):
    width, height = overlap_of(a, b)
    return width * height


def union_of(a, b):
    return (area_of(a) + area_of(b)) - intersection_of(a, b)


def shrunk_where_huge(sum_of):
    """Of a measure (a, b, *epsilons, unit=1): pairs of finite coordinates, but for which `sum_of(a, b)` overflows, are
    measured on coordinates times 2^-66 (float64: 2^-514), which is exact; what eps is added to shrinks by `unit`."""

    def decorate(measure):
        @functools.wraps(measure)
        def guarded(a, b, *eps, **named):
            value, shrink = measure(a, b, *eps, **named), SHRINK[a.dtype.name]
            huge = ~(sum_of(a, b) < np.inf) & np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
            if not huge.any():
                return value
            return np.where(huge, measure(a * shrink, b * shrink, *eps, **named, unit=shrink * shrink), value)

        return guarded

    return decorate


SHRINK = {"float32": np.float32(2.0**-66), "float64": np.float64(2.0**-514)}


def areas_of(a, b):
    return area_of(a) + area_of(b)


def areas_and_hull_of(a, b):
    width, height = hull_of(a, b)
    return areas_of(a, b) + width * height


def squared_distance_of(a, b):
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    dx = (ax1 + ax2) / 2 - (bx1 + bx2) / 2
    dy = (ay1 + ay2) / 2 - (by1 + by2) / 2
    return dx * dx + dy * dy


def areas_diagonal_and_distance_of(a, b):
    width, height = hull_of(a, b)
    return areas_of(a, b) + ((width * width + height * height) + squared_distance_of(a, b))


@shrunk_where_huge(areas_of)
def iou_of(a, b, eps=0, unit=1):
    return plain_iou_of(a, b, eps, unit)


@shrunk_where_huge(lambda a, b: area_of(b))
def ioa_of(a, b, unit=1):
    inter, area = intersection_of(a, b), area_of(b)
    return np.where((area > 0) & (area < np.inf), inter / area, 0)


def plain_iou_of(a, b, eps, unit):
    union = union_of(a, b)
    return np.where(union > 0, intersection_of(a, b) / (union + scaled(eps, unit, union)), 0)


def scaled(eps, unit, like):
    return like.dtype.type(eps) * like.dtype.type(unit)


def penalty_of(amount, whole):
    """amount / whole; 0 unless whole > 0, but a NaN amount stays NaN."""
    return amount / np.where(whole > 0, whole, np.inf)


@shrunk_where_huge(areas_and_hull_of)
def giou_of(a, b, iou_eps, eps, unit=1):
    width, height = hull_of(a, b)
    hull = width * height
    penalty = penalty_of(hull - union_of(a, b), hull + scaled(eps, unit, hull))
    return plain_iou_of(a, b, iou_eps, unit) - penalty


@shrunk_where_huge(areas_diagonal_and_distance_of)
def diou_of(a, b, iou_eps, eps, unit=1):
    width, height = hull_of(a, b)
    diagonal = width * width + height * height
    penalty = penalty_of(squared_distance_of(a, b), diagonal + scaled(eps, unit, diagonal))
    return plain_iou_of(a, b, iou_eps, unit) - penalty


@shrunk_where_huge(areas_diagonal_and_distance_of)
def ciou_of(a, b, iou_eps, eps, unit=1):
    difference = angle_of(b) - angle_of(a)
    v = (4 / np.pi**2) * (difference * difference)
    alpha = penalty_of(v, ((1 - plain_iou_of(a, b, iou_eps, unit)) + v) + eps)
    return diou_of.__wrapped__(a, b, iou_eps, eps, unit) - alpha * v


def angle_of(box):
    x1, y1, x2, y2 = box
    return atan2_of(extent_of(x1, x2), extent_of(y1, y2))


@quiet
def atan2_of(y, x):
    """The angle of (x, y), both >= 0, step by step as csrc/core/common/atan.h computes it: the same bits."""
    T = y.dtype.type
    low, high = np.minimum(y, x), np.maximum(y, x)
    q = np.where(low < high, low / high, (high > 0).astype(T))
    z = q * q
    if np.float32 == T:
        tail, rest = _polynomial(z, *_ATAN_TAIL[np.float32]), T(-4.37113882867379e-08)
    else:
        z5, parts = ((z * z) * (z * z)) * z, np.split(np.array(_ATAN_TAIL[np.float64]), 4)
        tail, rest = _polynomial(z, *parts[3]), T(6.123233995736766e-17)
        for part in parts[2::-1]:
            tail = _polynomial(z, *part) + z5 * tail
    a = q + (q * z) * tail
    return np.where(y > x, T(np.pi / 2) - (a - rest), a)


# fmt: off
_ATAN_TAIL = {
    np.float32: (-0.333332986, 0.199985489, -0.142642424, 0.109521873, -0.0840345472, 0.0579576567, -0.0311779026,
                 0.0109146331, -0.00179362716),
    np.float64: (-0.33333333333333071, 0.19999999999951451, -0.1428571428257461, 0.11111111007013584,
                 -0.09090907002797749, 0.076922798372968823, -0.066664040430076787, 0.05880527736417978,
                 -0.052535182361587808, 0.047223212311727207, -0.042191765713442755, 0.0366418658069309,
                 -0.029903791713291203, 0.021984776386201017, -0.013900491841271404, 0.0071964575570703003,
                 -0.002884896219675298, 0.00083131439686500168, -0.00015215933090531657, 1.3224929159792481e-05),
}
# fmt: on


@quiet
def exp_of(x):
    """e^x step by step as csrc/core/common/exp_log.h computes it: the same bits."""
    T = x.dtype.type
    single = np.float32 == T
    low, high, ln2_hi, ln2_lo = (
        (-104.5, 89.0, 6.9314575195e-01, 1.4286067653e-06)
        if single
        else (-746.0, 710.0, 6.93147180369123816490e-01, 1.90821492927058770002e-10)
    )
    x = np.clip(x, T(low), T(high))
    n = np.rint(x * T(1.44269504088896338700))
    r = (x - n * T(ln2_hi)) - n * T(ln2_lo)
    if single:
        tail = _polynomial(r, 0.5, 0.166665767, 0.0416665542, 0.00836323288, 0.00139262508)
    else:
        r4 = (r * r) * (r * r)
        middle = (0.0013888888888883711, 0.00019841269875002279, 2.4801587325677461e-05, 2.7557255170000888e-06)
        tops = (2.7557273478718582e-07, 2.5105312729622103e-08, 2.0914755325893202e-09)
        tail = _polynomial(r, 0.5, 0.16666666666666671, 0.041666666666666671, 0.0083333333333260838) + r4 * (
            _polynomial(r, *middle) + r4 * _polynomial(r, *tops)
        )
    y = T(1) + (r + (r * r) * tail)
    n = np.nan_to_num(n).astype(np.int64)
    return np.ldexp(np.ldexp(y, n // 2), n - n // 2)


def _polynomial(x, *coefficients):
    value = x.dtype.type(coefficients[-1])
    for c in coefficients[-2::-1]:
        value = x.dtype.type(c) + x * value
    return value
