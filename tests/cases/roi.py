"""Cases of RoI pooling."""

from functools import partial

import numpy as np

from cases.case import FLOATS, Case, zeros

OPS = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
ALIGN = ("roi_align", "ps_roi_align", "multiscale_roi_align")  # long sums and products: within a tolerance
KEEP_DTYPE = {*OPS, "multiscale_roi_align"}


def random_rois(rng, count, images, extent=24.0, sides=(0.5, 12.0)):
    """[count, 5], the images in no order; some boxes reach beyond [0, extent]."""
    corner = rng.uniform(-0.2 * extent, extent, (count, 2))
    return with_images(rng, np.concatenate([corner, corner + rng.uniform(*sides, (count, 2))], axis=1), images)


def with_images(rng, boxes, images):
    return np.concatenate([rng.integers(0, max(images, 1), (len(boxes), 1)).astype(float), boxes], axis=1)


def features(rng, *shape):
    return rng.normal(size=shape)


def halves(rng, images):
    """Coordinates at whole and half pixels, where rounding and bilinear weights turn over."""
    boxes = rng.integers(-4, 40, (60, 4)) / 2.0
    return with_images(rng, boxes, images)


def degenerate(rng, images):
    rois = random_rois(rng, 42, images)
    rois[0::6, 3] = rois[0::6, 1]  # no width
    rois[1::6, 4] = rois[1::6, 2]  # no height
    rois[2::6, 3:] = rois[2::6, 1:3]  # a point
    rois[3::6] = rois[3::6][:, [0, 3, 2, 1, 4]]  # inverted in x
    rois[4::6] = rois[4::6][:, [0, 3, 4, 1, 2]]  # inverted in both
    return rois


def sprinkled(rng, images, *values):
    rois = random_rois(rng, 40, images)
    odd = rng.random((40, 4)) < 0.25
    odd[:3] = True
    rois[:, 1:] = np.where(odd, rng.choice(values, (40, 4)), rois[:, 1:])
    return rois


def outside(rng, images):
    """On the border and just beyond it, on every side."""
    edges = np.array([-30, -1.01, -1, -0.99, -0.5, 0, 8, 8.5, 8.99, 9, 9.01, 40])
    low, high = rng.choice(edges, (2, 50, 2))
    return with_images(rng, np.concatenate([np.minimum(low, high), np.maximum(low, high)], axis=1), images)


HUGE = {"float16": 6e4}  # else 1e30

# Name -> (generator, images, dtype) -> RoIs on features of 9 x 11 pixels, at scale 1/2.
ROIS = {
    "random": lambda rng, n, dtype: random_rois(rng, 30, n),
    "small": lambda rng, n, dtype: random_rois(rng, 30, n, sides=(0.01, 1.0)),
    "all of the image": lambda rng, n, dtype: with_images(rng, np.tile([0.0, 0, 22, 18], (9, 1)), n),
    "larger than the image": lambda rng, n, dtype: with_images(rng, rng.uniform(10, 90, (9, 4)) * [-1, -1, 1, 1], n),
    "halves": lambda rng, n, dtype: halves(rng, n),
    "degenerate": lambda rng, n, dtype: degenerate(rng, n),
    "border": lambda rng, n, dtype: outside(rng, n),
    "nan": lambda rng, n, dtype: sprinkled(rng, n, np.nan),
    "inf": lambda rng, n, dtype: sprinkled(rng, n, np.inf, -np.inf),
    "nan and inf": lambda rng, n, dtype: sprinkled(rng, n, np.nan, np.inf, -np.inf, 0.0),
    "huge": lambda rng, n, dtype: sprinkled(rng, n, HUGE.get(dtype, 1e30), -HUGE.get(dtype, 1e30)),
    "far": lambda rng, n, dtype: sprinkled(rng, n, 3e4, -3e4, 6e4),
    "same image": lambda rng, n, dtype: random_rois(rng, 30, 1),
}


def case(op, name, shape, rois, output_size=(3, 2), fixed=(), make_features=features, **more):
    """`shape`: of the features, with C per bin where the op is position-sensitive."""
    size = (output_size, output_size) if isinstance(output_size, int) else output_size

    def make(rng, dtype):
        n, c, h, w = shape
        channels = c * size[0] * size[1] if op.startswith("ps") else c
        return {
            "input": make_features(rng, n, channels, h, w),
            "boxes": rois(rng, n, dtype),
            "output_size": output_size,
            "spatial_scale": 0.5,
            **more,
        }

    return Case(name, make, FLOATS, fixed)


def counted(count):
    return lambda rng, n, dtype: random_rois(rng, count, n)


def listed(*counts):
    def make(rng, n, dtype):
        return [random_rois(rng, count, 1)[:, 1:] for count in counts]

    return make


def as_float32(rois):
    return lambda rng, n, dtype: rois(rng, n, dtype).astype(np.float32)


def with_values(rng, *shape, values):
    return np.where(rng.random(shape) < 0.2, rng.choice(values, shape), rng.normal(size=shape))


def constant(rng, *shape):
    """Ties everywhere."""
    return rng.integers(-1, 2, shape).astype(float)


def pooled(op):
    of = partial(case, op)
    sampled = op.endswith("align")
    ways = [{}, {"sampling_ratio": 1}, {"sampling_ratio": 2}, {"sampling_ratio": 3}, {"sampling_ratio": 0}]
    if op == "roi_align":
        ways = [{**way, "aligned": aligned} for way in ways for aligned in (False, True)]
    ways = ways if sampled else [{}]
    for i, (name, rois) in enumerate(ROIS.items()):
        for way in ways[i % 2 :: 2] if name in ("random", "halves", "degenerate", "border") else [ways[i % len(ways)]]:
            yield of(f"{name} {way}", (3, 5, 9, 11), rois, **way)
    for channels in (1, 2, 4, 15, 16, 17, 32, 33, 70):
        yield of(f"{channels} channels", (2, channels, 6, 7), counted(5), 2)
    for count in (0, 1, 2, 65, 200):
        yield of(f"{count} RoIs", (2, 3, 8, 8), counted(count), (2, 1))
    for size in (1, 7, (1, 9), (9, 1), (2, 33), (20, 18)):
        yield of(f"{size} bins", (2, 2, 10, 12), counted(4), size)
    for height, width in ((1, 1), (1, 9), (9, 1), (2, 2), (40, 30), (3, 130)):
        yield of(f"{height} x {width} pixels", (1, 2, height, width), counted(12))
    # Far apart, so that copying each RoI's pixels beats copying all between them.
    apart = {"sampling_ratio": 3} if sampled else {}
    yield of("few and far apart", (1, 20, 40, 60), lambda rng, n, dtype: random_rois(rng, 5, n, 90.0, (2, 9)), **apart)
    for shape in ((2, 0, 5, 5), (2, 2, 0, 5), (2, 2, 5, 0)):
        yield of(f"features {shape}", shape, counted(6))
    yield of("no images", (0, 2, 5, 5), counted(0))
    yield of("a list of no images", (0, 2, 5, 5), listed(), fixed=("boxes",))
    yield of("lists", (4, 3, 9, 11), listed(5, 0, 1, 7))
    yield of("empty lists", (2, 3, 9, 11), listed(0, 0))
    yield of("many images", (40, 2, 4, 5), counted(60), 2)
    yield of("float32 boxes", (2, 5, 9, 11), as_float32(counted(20)), fixed=("boxes",))
    yield of("float64 boxes", (2, 5, 9, 11), counted(20), fixed=("boxes",))
    yield of("nan features", (2, 6, 9, 11), counted(20), make_features=partial(with_values, values=[np.nan]))
    odd = partial(with_values, values=[np.nan, np.inf, -np.inf])
    yield of("nan and inf features", (2, 6, 9, 11), counted(20), make_features=odd)
    for way in ({"sampling_ratio": 1}, {"sampling_ratio": 2}) if sampled else ():  # on pixels, and between two
        yield of(f"nan and inf features {way}", (2, 6, 9, 11), ROIS["halves"], make_features=odd, **way)
    if op == "roi_pool":
        yield of("ties", (2, 6, 9, 11), counted(20), make_features=constant)


def pyramid(name, shapes, boxes, scales, fixed=(), **more):
    def make(rng, dtype):
        return {
            "features": [features(rng, *shape) for shape in shapes],
            "boxes": boxes(rng, shapes[0][0], dtype),
            "output_size": more.get("output_size", (3, 2)),
            "scales": scales,
            **more,
        }

    return Case(name, make, FLOATS, fixed)


def spread(count):
    """RoIs of all sizes from 4 to 1000 pixels."""

    def make(rng, n, dtype):
        corner = rng.uniform(-5, 200, (count, 2))
        return with_images(rng, np.concatenate([corner, corner + 2 ** rng.uniform(2, 10, (count, 2))], axis=1), n)

    return make


def at_the_levels(rng, n, dtype):
    """Squares on and about the sides where the level changes."""
    side = 2.0 ** np.arange(3, 11)[:, None] * 0.875 * (1 + np.array([-1e-2, -1e-3, -2e-6, 0, 1e-6, 1e-3]))
    return with_images(rng, side.reshape(-1, 1) * [0, 0, 1, 1], n)


def levels(count, images=2, channels=3, base=32):
    return [(images, channels, max(base >> i, 1), max(base * 5 // 4 >> i, 1)) for i in range(count)]


def multiscale():
    for count in (1, 2, 4, 5, 8):
        yield pyramid(f"{count} levels", levels(count), spread(40), [2.0 ** -(2 + i) for i in range(count)])
    four = levels(4), [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    yield pyramid("at the levels", four[0], at_the_levels, four[1])
    yield pyramid("at other levels", four[0], at_the_levels, four[1], canonical_scale=28, canonical_level=3)
    yield pyramid("adaptive", four[0], spread(12), four[1], sampling_ratio=-1, aligned=True)
    yield pyramid("aligned", four[0], spread(30), four[1], aligned=True, output_size=7)
    yield pyramid("levels left out", levels(3), spread(60), [1 / 4, 1 / 16, 1 / 40])
    yield pyramid("40 channels", levels(3, channels=40, base=12), spread(20), [1 / 4, 1 / 8, 1 / 16])
    yield pyramid("lists", four[0], lambda rng, n, dtype: [spread(c)(rng, 1, dtype)[:, 1:] for c in (7, 0)], four[1])
    yield pyramid("float32 boxes", four[0], as_float32(spread(20)), four[1], fixed=("boxes",))
    for name in ("nan and inf", "huge", "degenerate"):
        yield pyramid(name, four[0], ROIS[name], four[1])
    yield pyramid("no RoIs", four[0], spread(0), four[1])
    yield pyramid("no images", levels(2, images=0), spread(0), [1 / 4, 1 / 8])
    yield pyramid("no channels", levels(2, channels=0), spread(3), [1 / 4, 1 / 8])
    yield pyramid("a level without pixels", [(2, 3, 8, 8), (2, 3, 0, 4)], spread(20), [1 / 4, 1 / 8])


CASES = {**{op: list(pooled(op)) for op in OPS}, "multiscale_roi_align": list(multiscale())}


# Bad calls


ONE = {"input": zeros(2, 4, 5, 5), "boxes": zeros(3, 5), "output_size": 2}
TWO = {
    "features": [zeros(2, 4, 8, 8), zeros(2, 4, 4, 4)],
    "boxes": zeros(3, 5),
    "output_size": 2,
    "scales": [0.5, 0.25],
}
NUMBERS, SIZE = "sampling_ratio as an integer", "output_size as an integer or (height, width)"


def wrong_values():
    for op in OPS:
        yield op, {**ONE, "input": zeros(2, 5, 5)}, "input of shape [N, C, H, W], got [2, 5, 5]"
        yield op, {**ONE, "input": zeros(2, 4, 5, 5, dtype=np.int32)}, "input of a floating type, got int32"
        yield op, {**ONE, "input": zeros(2, 4, 5, 5, dtype=bool)}, "input of a real number type, got bool"
        yield op, {**ONE, "boxes": zeros(3, 4)}, "boxes of shape [K, 5], got [3, 4]"
        yield op, {**ONE, "boxes": zeros(5)}, "boxes of shape [K, 5], got [5]"
        yield op, {**ONE, "boxes": zeros(3, 5, dtype=np.int64)}, "boxes of a floating type, got int64"
        yield op, {**ONE, "boxes": [zeros(3, 4)]}, "boxes of 2 images, got 1"
        yield op, {**ONE, "boxes": [zeros(3, 4), zeros(2, 4, dtype=bool)]}, "boxes of a real number type, got bool"
        yield op, {**ONE, "boxes": [zeros(3, 4, dtype=np.int32)] * 2}, "boxes of a floating type, got int32"
        yield op, {**ONE, "boxes": [zeros(3, 4), zeros(4)]}, "boxes of shape [L, 4], got [4] for image 1"
        yield op, {**ONE, "boxes": [zeros(3, 4), zeros(2, 5)]}, "boxes of shape [L, 4], got [2, 5] for image 1"
        yield op, {**ONE, "output_size": 0}, "output_size from 1 to 32768, got (0, 0)"
        yield op, {**ONE, "output_size": (2, -1)}, "output_size from 1 to 32768, got (2, -1)"
        yield op, {**ONE, "output_size": (2**40, 2)}, f"output_size from 1 to 32768, got ({2**40}, 2)"
        for scale in (0, -1, np.inf, np.nan):
            yield op, {**ONE, "spatial_scale": scale}, f"spatial_scale > 0 and finite, got {scale}"
        if op.startswith("ps"):
            words = "channels divisible by the number of bins, 9, got 4"
            yield op, {**ONE, "output_size": 3}, words
    for op, ok in (("roi_align", ONE), ("ps_roi_align", ONE), ("multiscale_roi_align", TWO)):
        yield op, {**ok, "sampling_ratio": 4097}, "sampling_ratio <= 4096, got 4097"
    op = "multiscale_roi_align"
    low, other = zeros(2, 4, 4, 4, dtype=np.float64), zeros(2, 3, 4, 4)
    yield op, {**TWO, "features": [zeros(2, 4, 8, 8), low]}, "features of one dtype, got float32 and float64"
    yield op, {**TWO, "features": [zeros(2, 4, 8, 8), other]}, "features of shape [2, 4, H, W], got [2, 3, 4, 4]"
    yield op, {**TWO, "features": [zeros(2, 4, 8, 8)] * 9}, "from 1 to 8 features, got 9"
    yield op, {**TWO, "scales": [0.5]}, "a scale for each of 2 features, got 1"
    yield op, {**TWO, "scales": [0.5, 0.5]}, "scales that fall from level to level, got 0.5 after 0.5"
    yield op, {**TWO, "scales": [np.inf, 0.5]}, "scales > 0 and finite, got inf"
    yield op, {**TWO, "canonical_scale": 0}, "canonical_scale > 0 and finite, got 0"
    yield op, {**TWO, "boxes": zeros(3, 4)}, "boxes of shape [K, 5], got [3, 4]"


def wrong_types():
    for op in OPS:
        yield op, {**ONE, "output_size": 2.5}, f"{SIZE}, got 2.5"
        yield op, {**ONE, "output_size": (1, 2, 3)}, f"{SIZE}, got (1, 2, 3)"
        yield op, {**ONE, "output_size": None}, f"{SIZE}, got None"
        yield op, {**ONE, "spatial_scale": "1"}, "spatial_scale as a number, got str"
    yield "roi_align", {**ONE, "sampling_ratio": 1.5}, f"{NUMBERS}, got float"
    yield "ps_roi_align", {**ONE, "sampling_ratio": None}, f"{NUMBERS}, got NoneType"
    op = "multiscale_roi_align"
    yield op, {**TWO, "features": []}, "features as a list of arrays, got an empty list"
    yield op, {**TWO, "scales": 0.5}, "scales as numbers in a list or tuple, got float"
    yield op, {**TWO, "scales": [0.5, None]}, "scales as a number, got NoneType"
    yield op, {**TWO, "canonical_level": 4.5}, "canonical_level as an integer, got float"


WRONG_VALUES = list(wrong_values())
WRONG_TYPES = list(wrong_types())


# For torch's own tools


_FEATURES = {"input": zeros(1, 4, 5, 5), "boxes": zeros(2, 5)}
_BINS = {"output_size": (2, 2), "spatial_scale": 0.5}
NUMBERS = {
    "roi_align": [(_FEATURES, {**_BINS, "sampling_ratio": 2})],
    "ps_roi_align": [(_FEATURES, {**_BINS, "sampling_ratio": 2})],
    "roi_pool": [(_FEATURES, _BINS)],
    "ps_roi_pool": [(_FEATURES, _BINS)],
    "multiscale_roi_align": [
        (
            {"features": [zeros(1, 4, 8, 8), zeros(1, 4, 4, 4)], "boxes": zeros(2, 5)},
            {
                "output_size": 2,
                "scales": [0.5, 0.25],
                "sampling_ratio": 2,
                "canonical_scale": 224.0,
                "canonical_level": 4,
            },
        )
    ],
}
NEGATIVE = {"sampling_ratio", "canonical_level"}  # numbers that may be below 0
DIFFERENTIABLE = {*NUMBERS, "roi_pool_with_argmax"}


# A kernel sums the products of weights in another order than the reference, which adds sample by sample: some dozen
# roundings of values near 1. Low precision then rounds the result, to a neighbour where it falls on the edge.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}


def close(got, want, dtype, arguments):
    np.testing.assert_allclose(got, want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


COMPARE = dict.fromkeys(("roi_align", "ps_roi_align", "ps_roi_pool", "multiscale_roi_align"), close)


def _tensors(device):
    import torch

    rng = np.random.default_rng(0)
    maps = [torch.from_numpy(features(rng, 2, 8, 9 >> i, 11 >> i)).float().to(device) for i in range(2)]
    return maps, torch.from_numpy(random_rois(rng, 7, 2)).float().to(device)


def samples(device):
    import torch

    maps, boxes = _tensors(device)
    input, leaf = maps[0], maps[0].double().requires_grad_()
    corners = [boxes[:3, 1:].double(), boxes[3:, 1:]]
    grad, per_bin = torch.ones(7, 8, 4, 2, device=device), torch.ones(7, 1, 4, 2, device=device)
    argmax = torch.zeros(7, 8, 4, 2, device=device, dtype=torch.int32)
    lasting = ([0.5, 0.25], 2, False, 224.0, 4)
    return {
        "boxes_to_rois": [(leaf, corners, "roi_align"), (input.half(), corners[1:] * 2, "ps_roi_pool")],
        "roi_align": [
            (leaf, boxes, 4, 2, 0.5, 2, True),
            (input.bfloat16(), boxes, 4, 2, 0.5, -1, False),
        ],
        "roi_align_backward": [(grad, boxes, 2, 9, 11, 0.5, 2, True)],
        "multiscale_roi_align": [
            (maps, boxes, 4, 2, *lasting),
            ([m.double().requires_grad_() for m in maps], boxes, 4, 2, *lasting),
        ],
        "multiscale_roi_align_backward": [(grad, boxes, 2, [9, 4], [11, 5], *lasting)],
        "ps_roi_align": [(leaf, boxes, 4, 2, 0.5, 2), (input.half(), boxes, 2, 2, 0.5, -1)],
        "ps_roi_align_backward": [(per_bin, boxes, 2, 9, 11, 0.5, 2)],
        "roi_pool": [(input, boxes, 4, 2, 0.5)],
        "roi_pool_with_argmax": [(leaf, boxes, 4, 2, 0.5), (input.half(), boxes, 4, 2, 0.5)],
        "roi_pool_backward": [(grad, argmax, boxes, 2, 9, 11, 0.5)],
        "ps_roi_pool": [(leaf, boxes, 4, 2, 0.5), (input.half(), boxes, 2, 2, 0.5)],
        "ps_roi_pool_backward": [(per_bin, boxes, 2, 9, 11, 0.5)],
    }


def calls(device):
    import torch

    import boxops

    maps, boxes = _tensors(device)
    listed = [torch.stack([*boxes[:3, 1:]]), torch.stack([*boxes[3:, 1:]])]
    return {
        "roi_align": (lambda x, b: boxops.roi_align(x, b, (4, 2), 0.5, 2), (maps[0], boxes)),
        "roi_pool": (lambda x, b, c: boxops.roi_pool(x, [b, c], (4, 2), 0.5), (maps[0], *listed)),
        "ps_roi_align": (lambda x, b: boxops.ps_roi_align(x, b, (4, 2), 0.5), (maps[0], boxes)),
        "ps_roi_pool": (lambda x, b: boxops.ps_roi_pool(x, b, (4, 2), 0.5), (maps[0], boxes)),
        "multiscale_roi_align": (
            lambda x, y, b: boxops.multiscale_roi_align([x, y], b, (4, 2), [0.5, 0.25]),
            (*maps, boxes),
        ),
    }
