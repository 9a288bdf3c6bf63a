"""The sets of boxes, scores and groups that the cases combine."""

import numpy as np

from boxops import reference


def random_boxes(rng, shape, extent=640.0, sides=(8.0, 200.0)):
    """[*shape, 4]: corners anywhere in [0, extent], sides in between `sides`."""
    corner = rng.uniform(0, extent, (*np.atleast_1d(shape), 2) if shape != () else 2)
    return np.concatenate([corner, corner + rng.uniform(*sides, corner.shape)], axis=-1)


def far_boxes(rng, *shape):
    """Small boxes at whole numbers around 2^25, where float32 knows multiples of 4 only."""
    return np.round(random_boxes(rng, shape, 60.0, (10.0, 40.0))) + 2.0**25


def grid(side):
    """Squares of 10 px that share their edges."""
    corner = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * 10.0
    return np.concatenate([corner, corner + 10], axis=1)


def degenerate(rng):
    boxes = random_boxes(rng, 70)
    boxes[0::7, 2] = boxes[0::7, 0]  # no width
    boxes[1::7, 3] = boxes[1::7, 1]  # no height
    boxes[2::7, 2:] = boxes[2::7, :2]  # a point
    boxes[3::7] = boxes[3::7][:, [2, 1, 0, 3]]  # inverted in x
    boxes[4::7] = boxes[4::7][:, [2, 3, 0, 1]]  # inverted in both
    return np.concatenate([boxes, boxes[:20]])


def sprinkled(rng, *values):
    """A quarter of all coordinates, and all coordinates of a few boxes, are drawn from `values`."""
    boxes = random_boxes(rng, 80, extent=100.0)
    boxes = np.where(rng.random(boxes.shape) < 0.25, rng.choice(values, boxes.shape), boxes)
    boxes[:4] = rng.choice(values, (4, 4))
    return boxes


def mixed_scales(rng):
    huge, tiny = random_boxes(rng, 10, sides=(2e4, 5e4)), random_boxes(rng, 200, sides=(0.01, 3.0))
    return rng.permutation(np.concatenate([huge, tiny, tiny + 0.3]))


def clustered(rng):
    return rng.permutation(np.repeat(random_boxes(rng, 6), 40, axis=0)) + rng.integers(0, 3, (240, 4))


def chain(length):
    """Each box overlaps the next with IoU 2/3 and the next but one with 3/7."""
    left = np.arange(length)[:, None] * np.array([[2.0, 0.0]])
    return np.concatenate([left, left + 10.0], axis=1)


def scaled(float32, float64):
    """Boxes of one size, so large or small that a float32 or float64 area leaves the normal range."""

    def make(rng, dtype):
        return random_boxes(rng, 60, extent=30.0, sides=(1.0, 30.0)) * (float64 if dtype == "float64" else float32)

    return make


def huge(rng, dtype):
    """Of all sizes up to the end of the range, duplicates among them; some pairs overflow only in hull or diagonal."""
    ends, decades = (1.7e308, (0, 152, 154, 155, 250, 307)) if dtype == "float64" else (3e38, (0, 18, 19, 20, 30, 37))
    boxes = random_boxes(rng, 90, extent=6.0, sides=(1.0, 4.0)) - 4
    boxes[60:, :2] = boxes[60:, 2:] - rng.uniform(1e-3, 1e-2, (30, 2))  # small for where they are
    boxes *= 10.0 ** rng.choice(decades, (90, 1))
    boxes[::15, 0], boxes[::15, 2] = -ends, ends  # the width overflows, too
    boxes[::30, 1], boxes[::30, 3] = -ends, ends
    boxes[7::30, 3] = boxes[7::30, 1]
    return rng.permutation(np.concatenate([boxes, boxes[:40]]))


# Name -> (generator, dtype) -> boxes.
BOXES = {
    "none": lambda rng, dtype: np.zeros((0, 4)),
    "one": lambda rng, dtype: random_boxes(rng, 1),
    "random": lambda rng, dtype: random_boxes(rng, 150),
    "crowded": lambda rng, dtype: random_boxes(rng, 300, extent=60.0, sides=(30.0, 80.0)),
    "identical": lambda rng, dtype: np.repeat(random_boxes(rng, 1), 33, axis=0),
    "touching": lambda rng, dtype: grid(9),
    "nested": lambda rng, dtype: np.arange(1.0, 41.0)[:, None] * np.array([[-1.0, -1.0, 1.0, 1.0]]),
    "degenerate": lambda rng, dtype: degenerate(rng),
    "nan": lambda rng, dtype: sprinkled(rng, np.nan),
    "inf": lambda rng, dtype: sprinkled(rng, np.inf, -np.inf),
    "nan, inf and 0": lambda rng, dtype: sprinkled(rng, np.nan, np.inf, -np.inf, 0.0, -0.0),
    "far": lambda rng, dtype: random_boxes(rng, 120) + 1e5,
    "overflow": scaled(1e30, 1e200),
    "edge of overflow": scaled(3e17, 3e152),
    "huge": huge,
    "subnormal areas": scaled(1e-21, 1e-162),
    "subnormal sides": scaled(1e-40, 1e-310),
    "negative": lambda rng, dtype: random_boxes(rng, 150) - 500,
    "mixed scales": lambda rng, dtype: mixed_scales(rng),
    "clustered": lambda rng, dtype: clustered(rng),
    "chain": lambda rng, dtype: chain(500),
}


def integer_boxes(rng, dtype):
    """Small boxes, and boxes over all that the dtype can hold, where integer arithmetic would wrap."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    corner = rng.integers(max(low, -60), 60, (60, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 60, (60, 2))], axis=1).astype(dtype)
    extremes = [[low, low, high, high], [0, 0, high, high], [high, high, low, low], [1, 1, high, high]]
    return np.concatenate([boxes, np.array(extremes, dtype), boxes[:20]])


def threshold_pairs(rng, dtype, threshold, pairs=160):
    """Pairs that touch no other pair. One box of each shrinks or moves away from the other, and stops by turns right
    before and right after the IoU falls to the threshold. Ten more pairs have the IoU 0.1, 0.2, ... as rounded."""
    threshold = np.dtype(dtype).type(threshold)
    corner = np.stack(np.divmod(np.arange(pairs), 10), axis=1) * 800.0
    first = (random_boxes(rng, pairs, 100.0, (50.0, 300.0)) + np.tile(corner, 2)).astype(dtype)
    width, height = (first[:, 2:] - first[:, :2]).T
    near = first.copy()
    near[:, 3] -= height * (1 - threshold) * rng.uniform(0, 0.5, pairs).astype(dtype)
    nothing = np.zeros(pairs)
    away = np.stack([(nothing, nothing, -width, nothing), (width, nothing, width, nothing), (width, height) * 2])
    away = away[np.arange(pairs) // 2 % 3, :, np.arange(pairs)]

    def moved(by):
        return (near + by[:, None] * away).astype(dtype)

    before, after = np.zeros(pairs), np.ones(pairs)
    for _ in range(60):  # bisect until the two are neighbours
        middle = (before + after) / 2
        over = reference.box_iou(first, moved(middle), paired=True) > threshold
        before, after = np.where(over, middle, before), np.where(over, after, middle)
    second = moved(np.where(np.arange(pairs) % 2, before, after))
    tenth = np.arange(1, 11)[:, None]
    whole = tenth * np.array([[40, 0, 40, 0]]) + np.array([[-900, 0, -890, 1]])
    part = whole - np.array([[0, 0, 1, 0]]) * (10 - tenth)
    return np.concatenate([first, whole, second, part]).astype(dtype)


# Name -> (generator, shape) -> scores or group ids.
SCORES = {
    "distinct": lambda rng, shape: (rng.permutation(np.prod(shape)).reshape(shape) + 1) / (np.prod(shape) + 1),
    "tied": lambda rng, shape: rng.integers(0, 4, shape) / 4,
    "nan": lambda rng, shape: np.where(rng.random(shape) < 0.4, np.nan, rng.random(shape)),
    "zero": lambda rng, shape: rng.choice([0.0, -0.0], shape),
    "infinite": lambda rng, shape: rng.choice([np.inf, -np.inf, np.nan, 1.0], shape),
    "constant": lambda rng, shape: np.ones(shape),
}
GROUPS = {
    "3 groups": lambda rng, shape: rng.integers(0, 3, shape),
    "one group": lambda rng, shape: np.full(shape, 7),
    "own groups": lambda rng, shape: rng.permutation(np.prod(shape)).reshape(shape),
    "negative int32": lambda rng, shape: rng.integers(-5, 3, shape).astype(np.int32),
    "far apart int64": lambda rng, shape: rng.choice([-(2**63), -(2**32), 0, 2**32, 2**63 - 1], shape),
}
