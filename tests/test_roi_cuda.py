"""RoI pooling's CUDA kernels at the sizes that their blocks, tiles and tables are cut to.

Align and mean are linear: pooling a RoI is Y f X^T with small matrices Y and X, and its gradient Y^T g X. That is the
opinion that the kernels are held to here, in float64.
"""

import backends
import numpy as np
import pytest

from boxops.reference import roi as reference

CHOICES = [
    pytest.param(b, id=b.name, marks=[pytest.mark.gpu] if b is backends.CUDA else [])
    for b in (backends.EMULATED, backends.CUDA)
]


@pytest.fixture(params=CHOICES)
def kernels(request):
    request.param.require()
    return Torch() if request.param is backends.CUDA else Emulated()


class Emulated:
    """The operators of the emulated module, backward ones too."""

    def __call__(self, op, *args):
        from cuda_emulator import DeviceArray, module, to_host

        def moved(a):
            return [moved(x) for x in a] if isinstance(a, list) else DeviceArray(a) if isinstance(a, np.ndarray) else a

        out = getattr(module(), op)(*map(moved, args))
        return tuple(map(to_host, out)) if isinstance(out, tuple) else to_host(out)


class Torch:
    def __call__(self, op, *args):
        import torch

        import boxops.torch_ops  # noqa: F401  (its operators)

        def moved(a):
            if isinstance(a, list):
                return [moved(x) for x in a]
            return torch.from_numpy(a).cuda() if isinstance(a, np.ndarray) else a

        out = getattr(torch.ops.boxops, op)(*map(moved, args))
        return tuple(o.cpu().numpy() for o in out) if isinstance(out, tuple) else out.cpu().numpy()


def random_rois(rng, count, images, height, width, scale=1.0):
    """Small and large ones, some hanging over the edges, some inverted, in any order of images."""
    centre = rng.uniform([-4, -4], [width + 4, height + 4], (count, 2))
    size = np.exp(rng.uniform(np.log(0.3), np.log(1.5 * max(height, width)), (count, 2)))
    size[::11] *= -0.2
    corners = np.concatenate([centre - size / 2, centre + size / 2], 1) / scale
    return np.concatenate([rng.integers(0, images, (count, 1)), corners], 1).astype(np.float32)


def matrices(box, size, extents, scale, sampling_ratio, aligned):
    """Y [PH, H] and X [PW, W], the weights of the samples of each bin over their number."""
    x1, y1, x2, y2 = box
    out, total = [], 1
    for lo, hi, bins, extent in ((y1, y2, size[0], extents[0]), (x1, x2, size[1], extents[1])):
        samples, count = reference._samples(lo, hi, lo.dtype.type(scale), bins, sampling_ratio, aligned, extent)
        m = np.zeros((bins, extent))
        for p, (low, high, weight) in enumerate(samples):
            np.add.at(m[p], low, 1.0 - weight.astype(float))
            np.add.at(m[p], high, weight.astype(float))
        out.append(m)
        total *= count
    return out[0] / max(total, 1), out[1]


def mean_matrices(box, size, extents, scale, *_):
    x1, y1, x2, y2 = box
    out = []
    for lo, hi, bins, extent in ((y1, y2, size[0], extents[0]), (x1, x2, size[1], extents[1])):
        m = np.zeros((bins, extent))
        ranges = reference._ranges(lo, hi, lo.dtype.type(scale), bins, max(extent - 1, 0), False)
        for p, pixels in enumerate(ranges):
            m[p, pixels] = 1 / max(pixels.stop - pixels.start, 1)
        out.append(m)
    return out


def linear(weights, rois, size, features, grad, options, sensitive):
    """The pooled features, and the gradients of `grad`, in float64."""
    _, channels, height, width = features.shape
    bins = size[0] * size[1]
    out, gradients = np.zeros(grad.shape), np.zeros(features.shape)
    for k, roi in enumerate(rois):
        if not 0 <= roi[0] < len(features):
            continue
        y, x = weights(roi[1:].astype(compute(features)), size, (height, width), *options)
        if sensitive:
            f = features[int(roi[0])].reshape(channels // bins, *size, height, width)
            out[k] = np.einsum("ph,cpqhw,qw->cpq", y, f, x, optimize=True)
            g = np.einsum("ph,cpq,qw->cpqhw", y, grad[k], x, optimize=True)
            gradients[int(roi[0])] += g.reshape(channels, height, width)
        else:
            out[k] = y @ features[int(roi[0])] @ x.T
            gradients[int(roi[0])] += y.T @ grad[k] @ x
    return out, gradients


def compute(array):
    return np.float64 if array.dtype == np.float64 else np.float32


def channels_last(array):
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def close(got, want, dtype, terms=1.0):
    """Sums in another order: a few roundings of the largest sum; float16 rounds once more, when it is stored."""
    eps = {np.float64: 1e-14, np.float32: 4e-6, np.float16: 1e-3}[dtype]
    np.testing.assert_allclose(
        got.astype(float), want, rtol=eps, atol=eps * terms * max(1.0, np.abs(want).max(initial=0))
    )


# (images, channels, height, width), rois, bins, sampling ratio, aligned, scale
ALIGN = {
    "one of everything": ((1, 1, 1, 1), 1, (1, 1), 2, False, 1.0),
    "one tile": ((1, 32, 8, 8), 9, (7, 7), 2, True, 1.0),
    "tiles cut at every side": ((2, 33, 17, 9), 13, (7, 7), 2, False, 0.25),
    "channels of a wider block": ((1, 70, 9, 10), 5, (3, 3), 2, False, 1.0),
    "more RoIs than a block has threads": ((2, 2, 12, 12), 600, (2, 2), 2, True, 0.5),
    "pieces: 28 x 28 bins": ((1, 5, 19, 23), 6, (28, 28), 2, False, 1.0),
    "pieces: one long row": ((1, 4, 9, 33), 5, (1, 70), 1, False, 1.0),
    "pieces: one long column": ((1, 4, 33, 9), 5, (70, 1), 1, True, 1.0),
    "more bins than the table holds": ((1, 2, 9, 9), 3, (200, 57), 1, False, 1.0),
    "more pixels than the table holds": ((1, 2, 20, 300), 4, (3, 3), 0, False, 1.0),
    "more samples than the table holds": ((1, 3, 9, 9), 3, (2, 2), 300, False, 1.0),
    "adaptive": ((2, 5, 30, 20), 15, (7, 5), -1, True, 0.5),
    "65 channels, 65 bins": ((1, 65, 11, 13), 4, (5, 13), 2, False, 1.0),
}


FEW = ("tiles cut at every side", "pieces: 28 x 28 bins", "more pixels than the table holds", "65 channels, 65 bins")
BY_DTYPE = [(n, np.float32) for n in ALIGN] + [(n, d) for d in (np.float64, np.float16) for n in FEW]


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize(("name", "dtype"), BY_DTYPE, ids=lambda x: getattr(x, "__name__", x))
def test_roi_align(kernels, name, layout, dtype):
    shape, count, size, ratio, aligned, scale = ALIGN[name]
    rng = np.random.default_rng(1)
    features = layout(rng.standard_normal(shape).astype(dtype))
    rois = random_rois(rng, count, shape[0], *shape[2:], scale)
    grad = rng.standard_normal((count, shape[1], *size)).astype(dtype)
    out, gradients = linear(matrices, rois, size, features, grad, (scale, ratio, aligned), False)
    close(kernels("roi_align", features, rois, *size, scale, ratio, aligned), out, dtype)
    if layout is np.ascontiguousarray:
        got = kernels("roi_align_backward", grad, rois, shape[0], *shape[2:], scale, ratio, aligned)
        close(got, gradients, dtype, 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize(
    ("shape", "count", "size", "ratio"),
    [
        ((1, 1, 8, 8), 1, (1, 1), 2),
        ((2, 4 * 6, 17, 9), 13, (2, 3), 2),
        ((1, 33 * 4, 9, 10), 300, (2, 2), 0),
        ((1, 2 * 49, 20, 20), 5, (7, 7), -1),
    ],
)
def test_position_sensitive(kernels, shape, count, size, ratio, dtype):
    rng = np.random.default_rng(2)
    features = rng.standard_normal(shape).astype(dtype)
    rois = random_rois(rng, count, shape[0], *shape[2:], 0.5)
    grad = rng.standard_normal((count, shape[1] // (size[0] * size[1]), *size)).astype(dtype)
    out, gradients = linear(matrices, rois, size, features, grad, (0.5, ratio, True), True)
    close(kernels("ps_roi_align", features, rois, *size, 0.5, ratio), out, dtype)
    close(kernels("ps_roi_align_backward", grad, rois, shape[0], *shape[2:], 0.5, ratio), gradients, dtype, 4)
    out, gradients = linear(mean_matrices, rois, size, features, grad, (0.5,), True)
    close(kernels("ps_roi_pool", features, rois, *size, 0.5), out, dtype)
    close(kernels("ps_roi_pool_backward", grad, rois, shape[0], *shape[2:], 0.5), gradients, dtype, 4)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last], ids=["NCHW", "channels_last"])
@pytest.mark.parametrize(("name", "dtype"), BY_DTYPE, ids=lambda x: getattr(x, "__name__", x))
def test_roi_pool(kernels, name, layout, dtype):
    shape, count, size, _, _, scale = ALIGN[name]
    rng = np.random.default_rng(3)
    features = layout(rng.integers(0, 9, shape).astype(dtype))  # with ties
    features[:, :, ::5] = np.nan
    rois = random_rois(rng, count, shape[0], *shape[2:], scale)
    got, argmax = kernels("roi_pool_with_argmax", features, rois, *size, scale)
    want = reference.roi_pool(features, rois, size, scale)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(kernels("roi_pool", features, rois, *size, scale), want)

    flat = features.reshape(*shape[:2], -1)
    gradients, grad = np.zeros(flat.shape), rng.standard_normal(want.shape).astype(dtype)
    for k, c, p, q in np.ndindex(want.shape):
        image, at = int(rois[k, 0]), argmax[k, c, p, q]
        if at >= 0:
            np.testing.assert_array_equal(flat[image, c, at], want[k, c, p, q])
            gradients[image, c, at] += grad[k, c, p, q]
    got = kernels("roi_pool_backward", grad, argmax, rois, shape[0], *shape[2:], scale)
    close(got, gradients.reshape(shape), dtype, 4)


def test_argmax_is_the_first_maximum(kernels):
    features = np.zeros((1, 5, 6, 7), np.float32)
    features[0, 1, 2:4, 3:5] = 1
    features[0, 2, 4, 2], features[0, 2, 5, 5] = np.nan, np.nan
    features[0, 3] = -np.inf
    for layout in (np.ascontiguousarray, channels_last):
        rois = np.array([[0, 0, 0, 6, 5], [0, 20, 20, 30, 30]], np.float32)
        _, argmax = kernels("roi_pool_with_argmax", layout(features), rois, 1, 1, 1.0)
        np.testing.assert_array_equal(argmax.reshape(2, 5), [[0, 2 * 7 + 3, 4 * 7 + 2, 0, 0], [-1] * 5])


@pytest.mark.parametrize("layout", [np.ascontiguousarray, channels_last], ids=["NCHW", "channels_last"])
def test_levels(kernels, layout):
    rng = np.random.default_rng(4)
    scales, sizes = [0.25, 0.125, 0.0625, 0.03125], [(40, 48), (20, 24), (10, 12), (5, 6)]
    features = [layout(rng.standard_normal((2, 36, *s)).astype(np.float32)) for s in sizes]
    rois = np.abs(random_rois(rng, 40, 2, 40, 48, 0.25))
    rois[:, 3:] = rois[:, 1:3] + np.exp(rng.uniform(3, 7, (40, 2)))
    size, grad = (7, 7), rng.standard_normal((40, 36, 7, 7)).astype(np.float32)
    side = np.sqrt((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2]))
    level = np.clip(np.floor(4 + np.log2(side / 224) + 1e-6), 2, 5).astype(int) - 2
    assert len(set(level)) == 4
    want, gradients = np.zeros(grad.shape), []
    for i, (f, scale) in enumerate(zip(features, scales, strict=True)):
        out, g = linear(matrices, rois[level == i], size, f, grad[level == i], (scale, 2, False), False)
        want[level == i] = out
        gradients.append(g.ravel())
    close(kernels("multiscale_roi_align", features, rois, *size, scales, 2, False, 224.0, 4), want, np.float32)
    got = kernels("multiscale_roi_align_backward", grad, rois, 2, [h for h, _ in sizes], [w for _, w in sizes],
                  scales, 2, False, 224.0, 4)  # fmt: skip
    close(got, np.concatenate(gradients), np.float32, 4)


NONSENSE = np.array(
    [
        [0, np.nan, 1, 5, 6], [0, 1, 1, np.nan, 6], [0, -np.inf, 0, np.inf, 9], [0, np.inf, 0, np.inf, 9],
        [0, -1e30, -1e30, 1e30, 1e30], [0, 1e9, 1e9, 1e9, 1e9], [0, -1e9, 2, 1e9, 5], [0, 3, 3, 3, 3], [0, 9, 9, 2, 2],
        [7, 1, 1, 5, 5], [-1, 1, 1, 5, 5], [np.nan, 1, 1, 5, 5], [np.inf, 1, 1, 5, 5], [1e30, 1, 1, 5, 5],
        [0, -3e38, 0, 3e38, 4],
    ],
    np.float32,
)  # fmt: skip


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_nonsense(kernels, ratio, aligned):
    """Boxes and images that are none: nothing is read out of bounds, nothing takes for ever, the good RoI is right."""
    rng = np.random.default_rng(5)
    rois = np.concatenate([NONSENSE, np.array([[0, 2, 2, 9, 8]], np.float32)])
    real = (rois[:, 0] >= 0) & (rois[:, 0] < 1)
    for size, channels in (((3, 3), 9), ((2, 2), 8)):
        features = rng.standard_normal((1, channels, 11, 12)).astype(np.float32)
        grad = rng.standard_normal((len(rois), channels, *size)).astype(np.float32)
        out = kernels("roi_align", features, rois, *size, 1.0, ratio, aligned)
        np.testing.assert_array_equal(out[~real], 0)
        with np.errstate(all="ignore"):
            want, gradients = linear(matrices, rois, size, features, grad, (1.0, ratio, aligned), False)
        close(out, want, np.float32)
        np.testing.assert_array_equal(
            out, kernels("roi_align", channels_last(features), rois, *size, 1.0, ratio, aligned)
        )
        close(kernels("roi_align_backward", grad, rois, 1, 11, 12, 1.0, ratio, aligned), gradients, np.float32, 4)
        got, argmax = kernels("roi_pool_with_argmax", features, rois, *size, 1.0)
        np.testing.assert_array_equal(got[~real], 0)
        np.testing.assert_array_equal(argmax[~real], -1)
        argmax[0] = 2**31 - 1  # not from roi_pool: must not be followed
        argmax[-1] = -(2**31)
        kernels("roi_pool_backward", grad, argmax, rois, 1, 11, 12, 1.0)
        pooled = kernels("ps_roi_pool", features, rois, *size, 1.0)
        np.testing.assert_array_equal(pooled[~real], 0)
        kernels("ps_roi_pool_backward", np.ones_like(pooled), rois, 1, 11, 12, 1.0)


@pytest.mark.parametrize("op", ["roi_align", "ps_roi_align", "ps_roi_pool"])
def test_nothing_there(kernels, op):
    """No RoIs, no images, no channels, no rows."""
    options = {"roi_align": (1.0, 2, False), "ps_roi_align": (1.0, 2), "ps_roi_pool": (1.0,)}[op]
    some, none = np.array([[0, 1, 1, 4, 4]], np.float32), np.zeros((0, 5), np.float32)
    for shape, rois in (((1, 4, 5, 5), none), ((0, 4, 5, 5), none), ((1, 0, 5, 5), some), ((1, 4, 0, 5), some),
                        ((0, 4, 5, 5), some)):  # fmt: skip
        out = kernels(op, np.ones(shape, np.float32), rois, 2, 2, *options)
        assert out.shape == (len(rois), shape[1] if op == "roi_align" else shape[1] // 4, 2, 2)
        np.testing.assert_array_equal(out, 0)
        got = kernels(f"{op}_backward", out, rois, shape[0], *shape[2:], *options)
        assert got.shape == shape
        np.testing.assert_array_equal(got, 0)


def test_more_rois_than_are_ranked(kernels):
    """Beyond 2048 they are sorted."""
    rng = np.random.default_rng(7)
    features = np.zeros((2, 1, 5, 9), np.float32)
    rois, grad = random_rois(rng, 2100, 2, 5, 9), rng.standard_normal((2100, 1, 1, 1)).astype(np.float32)
    _, gradients = linear(matrices, rois, (1, 1), features, grad, (1.0, 1, True), False)
    close(kernels("roi_align_backward", grad, rois, 2, 5, 9, 1.0, 1, True), gradients, np.float32, 4)


# (images, channels, height, width), RoIs, dtypes
ALL = np.float32, np.float64, np.float16
CROWDS = {
    "as many RoIs as a part has": ((1, 3, 12, 12), 8, ALL),
    "one more": ((1, 3, 12, 12), 9, ALL),
    "one tile": ((1, 33, 8, 8), 70, ALL),
    "more images than have RoIs": ((3, 2, 17, 17), 40, ALL),
    "more RoIs than a block has threads": ((1, 2, 16, 16), 300, [np.float32]),
    "longer parts: 768 groups of channels": ((1, 768 * 32, 7, 7), 18, [np.float32]),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, d) for n, c in CROWDS.items() for d in c[2]], ids=lambda x: getattr(x, "__name__", x)
)
def test_crowd(kernels, name, dtype, monkeypatch):
    """RoIs at one place: their tiles are cut into parts, which are added in one order, whichever is done last."""
    shape, count, _ = CROWDS[name]
    rng = np.random.default_rng(8)
    rois = np.array([[shape[0] - 1, 3, 3, 11, 9]]) + np.concatenate([np.zeros((count, 1)), rng.random((count, 4))], 1)
    rois = rois.astype(compute(np.zeros(0, dtype)))
    rois[::7, 0] = 0
    size = (1, 1) if shape[1] > 100 else (3, 2)
    grad = rng.standard_normal((count, shape[1], *size)).astype(dtype)
    _, gradients = linear(matrices, rois, size, np.zeros(shape, dtype), grad, (1.0, 2, True), False)
    args = "roi_align_backward", grad, rois, shape[0], *shape[2:], 1.0, 2, True
    got = kernels(*args)
    close(got, gradients, dtype, 4)
    monkeypatch.setenv("BOXOPS_EMULATOR_SEED", "2")  # another order of blocks
    np.testing.assert_array_equal(got, kernels(*args))


def test_rois_that_touch_nothing(kernels):
    """They are in the lists of no tile."""
    rois = np.tile(np.array([[0, 40, 3, 50, 9]], np.float32), (20, 1))
    grad = np.ones((20, 3, 2, 2), np.float32)
    np.testing.assert_array_equal(kernels("roi_align_backward", grad, rois, 1, 20, 20, 1.0, 2, True), 0)


def test_infinite_features(kernels):
    """A pixel counts in the bins whose samples touch it, with weight 0 too, and in no others."""
    features = np.ones((1, 4, 12, 12), np.float32)
    features[0, :, 6, 6] = np.inf
    rois = np.array([[0, 0, 0, 11.7, 11.7], [0, 5.2, 5.2, 5.9, 5.9], [0, 0, 0, 5.5, 5.5]], np.float32)
    for layout in (np.ascontiguousarray, channels_last):
        out = kernels("roi_align", layout(features), rois, 3, 3, 1.0, 2, True)
        np.testing.assert_array_equal(out, reference.roi_align(features, rois, 3, 1.0, 2, True))


def test_equal_bits(kernels):
    """The same RoIs twice, and among others that lie elsewhere, give the same bits: no order of threads matters."""
    rng = np.random.default_rng(6)
    rois, grad = random_rois(rng, 50, 1, 20, 20), rng.standard_normal((50, 40, 7, 7)).astype(np.float32)
    args = (1, 20, 20, 1.0, 2, True)
    first = kernels("roi_align_backward", grad, rois, *args)
    np.testing.assert_array_equal(first, kernels("roi_align_backward", grad, rois, *args))
    elsewhere = np.concatenate([np.tile(np.array([[0, 500, 500, 510, 510]], np.float32), (50, 1)), rois])
    grads = np.concatenate([np.ones_like(grad), grad])
    np.testing.assert_array_equal(first, kernels("roi_align_backward", grads, elsewhere, *args))
