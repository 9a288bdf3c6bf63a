"""RoI pooling: the reference's values on every backend, and gradients against torchvision and finite differences."""

import backends
import cases
import numpy as np
import pytest
from cases.roi import ALIGN, OPS, ROIS, TOLERANCE, features, random_rois
from hypothesis import given
from hypothesis import strategies as st

import boxops
from boxops import reference

EVERY = (*OPS, "multiscale_roi_align")


def ordinary(op, rng=None, n=2, k=30):
    rng = rng or np.random.default_rng(1)
    made = {"boxes": random_rois(rng, k, n).astype(np.float32), "output_size": (3, 2)}
    if op == "multiscale_roi_align":
        maps = [features(rng, n, 6, 16 >> i, 20 >> i).astype(np.float32) for i in range(3)]
        return {"features": maps, **made, "scales": [1.0, 0.5, 0.25], "canonical_scale": 6, "canonical_level": 1}
    return {"input": features(rng, n, 6, 9, 11).astype(np.float32), **made, "spatial_scale": 0.5}


@pytest.mark.parametrize("op", EVERY)
def test_layouts(backend, op):
    backends.check_layouts(backend, op, ordinary(op))


@pytest.mark.parametrize("channels", [3, 16, 40])
@pytest.mark.parametrize("op", EVERY)
def test_channels_last(backend, op, channels):
    made = ordinary(op)
    rng = np.random.default_rng(0)
    name = "features" if op.startswith("multi") else "input"
    maps = [features(rng, 2, 6 * channels, 16 >> i, 20 >> i).astype(np.float32) for i in range(3)]
    last = [m.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) for m in maps]
    if name == "input":
        maps, last = maps[0], last[0]
    got, want = (backend.to_numpy(backend.run(op, {**made, name: m})) for m in (last, maps))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    assert got.flags.c_contiguous


def test_lecture(backend):
    """Two regions of a 4 x 4 map, pooled to 2 x 2."""
    numbers = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    rois = np.array([[0, 0, 0, 2, 2], [0, 0, 1, 3, 3]], np.float32)
    got = backend.run("roi_pool", {"input": numbers, "boxes": rois, "output_size": 2})
    np.testing.assert_array_equal(backend.to_numpy(got), [[[[5, 6], [9, 10]]], [[[9, 11], [13, 15]]]])


def test_align_of_a_plane(backend):
    """Bilinear samples of a linear function are exact: a bin is the function's value at its centre."""
    y, x = np.mgrid[:20, :30].astype(np.float64)
    rois = np.array([[0, 3.25, 2.5, 17.25, 13], [0, 8, 4, 9, 5]])
    arguments = {"input": (2 * y - 3 * x + 1)[None, None], "boxes": rois, "output_size": (3, 7)}
    for ratio in (-1, 1, 2, 5):
        got = backend.run("roi_align", {**arguments, "aligned": True, "sampling_ratio": ratio})
        for pooled, (_, x1, y1, x2, y2) in zip(backend.to_numpy(got)[:, 0], rois, strict=True):
            cy = y1 - 0.5 + (np.arange(3) + 0.5)[:, None] * (y2 - y1) / 3
            cx = x1 - 0.5 + (np.arange(7) + 0.5) * (x2 - x1) / 7
            np.testing.assert_allclose(pooled, 2 * cy - 3 * cx + 1, rtol=1e-12)


@pytest.mark.parametrize("op", EVERY)
def test_image_indices_on_the_cpu(op):
    for backend in (backends.NUMPY, backends.TORCH):
        backend.require()
        inside, whole = "image indices in [0, 2)", "image indices that are whole numbers"
        for image, words in ((5, f"{inside}, got 5"), (-1, f"{inside}, got -1"), (2, f"{inside}, got 2"),
                             (1e30, f"{inside}, got 1e+30"), (-0.4, f"{whole}, got -0.4"), (0.5, f"{whole}, got 0.5"),
                             (np.nan, f"{whole}, got nan"), (-np.nan, f"{whole}, got nan"),
                             (np.inf, f"{whole}, got inf")):  # fmt: skip
            made = ordinary(op, k=5)
            made["boxes"][3, 0] = image
            with pytest.raises((ValueError, RuntimeError)) as error:
                backend.run(op, made)
            assert str(error.value) == f"{op}: expected {words} at 3"


@pytest.mark.parametrize("op", EVERY)
def test_image_indices_on_the_device_give_zeros(op):
    backend = backends.EMULATED
    backend.require()
    made = ordinary(op, k=9)
    want = backend.run(op, made)
    for image in (5, -1, 2, -0.4, 0.5, 1.0000001, np.nan, np.inf, -np.inf, 1e30):
        made["boxes"][3:5, 0] = image
        got = backend.run(op, made)
        assert not got[3:5].any()
        np.testing.assert_array_equal(np.delete(got, [3, 4], 0), np.delete(want, [3, 4], 0))


def test_level_rule_is_torchvisions_at_powers_of_two(backend):
    """A box of the canonical scale belongs to its level, not to the one below, in float32 too."""
    side = np.array([55.9, 56, 111.9, 112, 223.9, 224, 447.9, 448, 900], np.float32)
    rois = side[:, None] * np.array([0, 0, 0, 1, 1], np.float32)
    maps = [np.full((1, 1, 4, 4), level, np.float32) for level in range(4)]
    arguments = {"features": maps, "boxes": rois, "output_size": 1, "scales": [1 / 4, 1 / 8, 1 / 16, 1 / 32]}
    one = {"sampling_ratio": 1, "canonical_scale": 224, "canonical_level": 4}
    for m in maps:
        m[:] += 1
    small = {**arguments, "boxes": rois}
    got = backend.to_numpy(backend.run("multiscale_roi_align", {**small, **one}))[:, 0, 0, 0]
    inside = got > 0  # centres of the largest boxes lie outside of these small maps
    np.testing.assert_array_equal(got[inside], np.array([1, 1, 1, 2, 2, 3, 3, 4, 4])[inside])


# Gradients


def leaves(op, dtype="float64", device="cpu", **more):
    import torch

    made = ordinary(op, **more)
    boxes = torch.from_numpy(made.pop("boxes")).to(device, torch.float64 if dtype == "float64" else torch.float32)
    name = "features" if op.startswith("multi") else "input"
    maps = made.pop(name)
    listed = maps if isinstance(maps, list) else [maps]
    tensors = [torch.from_numpy(m).to(device, getattr(torch, dtype)).requires_grad_() for m in listed]

    def call(*maps):
        return getattr(boxops, op)(list(maps) if name == "features" else maps[0], boxes, **made)

    return call, tensors


@pytest.mark.parametrize("op", EVERY)
def test_gradcheck(device, op):
    import torch

    call, maps = leaves(op, device=device, k=4, n=1)
    for m in maps:  # few pixels
        m.data = m.data[:, :, :5, :6].contiguous() if op.startswith("ps") else m.data[:, :2, :5, :6].contiguous()
    assert torch.autograd.gradcheck(call, maps, fast_mode=True)


@pytest.mark.parametrize("op", EVERY)
def test_no_second_derivative(device, op):
    import torch

    call, maps = leaves(op, device=device)
    out = call(*maps)
    grad = torch.autograd.grad(out, maps, torch.ones_like(out).requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="expected one derivative at most"):
        grad[0].sum().backward()


@pytest.mark.parametrize("name", ["degenerate", "border", "nan and inf", "huge"])
@pytest.mark.parametrize("op", OPS)
def test_forward_mode(device, op, name):
    """Of RoIs without pixels too: what the features' move changes, and nothing where the image is not read."""
    import torch

    rng = np.random.default_rng(0)
    x, step = (torch.from_numpy(rng.normal(size=(2, 6, 9, 11))).to(device) for _ in range(2))
    rois = torch.from_numpy(ROIS[name](rng, 2, "float64")).to(device)

    def call(x):
        return getattr(boxops, op)(x, rois, (3, 2), 0.5)

    out, moved = torch.func.jvp(call, (x,), (step,))
    assert torch.equal(out, call(x))
    torch.testing.assert_close(moved, (call(x + 1e-6 * step) - call(x - 1e-6 * step)) / 2e-6, rtol=1e-6, atol=1e-6)
    low = torch.func.jvp(call, (x.half(),), (step.half(),))[1]
    assert low.dtype == torch.float16 and low.shape == moved.shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("op", EVERY)
def test_gradients_of_low_precision(device, op, dtype):
    """Summed in float32 and rounded once: the float64 gradient of the same values, rounded."""
    import torch

    call, maps = leaves(op, dtype, device)
    out = call(*maps)
    grad = torch.randn(out.shape, device=device).to(out.dtype)
    got = torch.autograd.grad(out, maps, grad)
    exact_call, _ = leaves(op, "float64", device)
    exact = [m.detach().double().requires_grad_() for m in maps]
    want = torch.autograd.grad(exact_call(*exact), exact, grad.double())
    for g, w, m in zip(got, want, maps, strict=True):
        assert g.dtype == m.dtype
        assert g.shape == m.shape
        torch.testing.assert_close(g.double(), w, rtol=TOLERANCE[dtype], atol=2 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels", [2, 40])
def test_gradient_of_a_large_map(torchvision, channels, dtype):
    """Larger than the bands of rows that a thread sums up at a time."""
    import torch

    shape = (2, channels, 500, 300) if channels == 2 else (1, channels, 130, 90)
    x = torch.randn(shape).to(getattr(torch, dtype)).requires_grad_()
    boxes = torch.from_numpy(random_rois(np.random.default_rng(0), 40, shape[0], shape[2], (1.0, 200.0))).float()
    grad = torch.randn(40, channels, 5, 4).to(x.dtype)
    (got,) = torch.autograd.grad(boxops.roi_align(x, boxes, (5, 4), 1.0, 2), x, grad)
    wide = x.detach().float().requires_grad_()
    (want,) = torch.autograd.grad(torchvision.roi_align(wide, boxes, (5, 4), 1.0, 2), wide, grad.float())
    torch.testing.assert_close(got.float(), want, rtol=TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("channels", [6, 42])
@pytest.mark.parametrize("op", EVERY)
def test_same_bits_for_any_number_of_threads(op, channels):
    torch = pytest.importorskip("torch")
    call, maps = leaves(op, "float32", k=300)
    maps = [m.detach().repeat(1, channels // 6, 3, 3).requires_grad_() for m in maps]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            out = call(*maps)
            results.append([out, *torch.autograd.grad(out, maps, torch.ones_like(out) / 3)])
    finally:
        torch.set_num_threads(before)
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("op", EVERY)
def test_autocast(device, op):
    """Features stay in low precision beside float32 boxes."""
    import torch

    call, maps = leaves(op, "bfloat16", device)
    with torch.autocast(device, dtype=torch.bfloat16):
        got = call(*maps)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, call(*maps), rtol=0, atol=0)


def test_gradient_goes_to_the_first_maximum(device):
    import torch

    numbers = torch.tensor([[1.0, 3, 3], [3, 2, 0], [0, 0, 0]], device=device).reshape(1, 1, 3, 3).requires_grad_()
    boxops.roi_pool(numbers, torch.tensor([[0.0, 0, 0, 2, 2]], device=device), 1).backward()
    assert numbers.grad.flatten().nonzero().tolist() == [[1]]


def backward_of(op, made, out_shape, grad, binding):
    """The operator's backward through the NumPy binding, or the emulated one."""
    n, _, h, w = made["input"].shape
    scale = made["spatial_scale"]
    rest = {"roi_align": (2, False), "ps_roi_align": (2,)}.get(op, ())
    if op == "roi_pool":
        _, argmax = binding.roi_pool_with_argmax(made["input"], made["boxes"], *out_shape[2:], scale)
        return binding.roi_pool_backward(grad, argmax, made["boxes"], n, h, w, scale)
    return getattr(binding, f"{op}_backward")(grad, made["boxes"], n, h, w, scale, *rest)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("op", OPS)
def test_backward_is_the_transpose(op, dtype):
    """For every RoI set of the cases, on the CPU and in the emulator: <grad, op(x)> = <backward(grad), x>."""
    from boxops import _numpy_ops

    rng = np.random.default_rng(0)
    for name, rois in cases.roi.ROIS.items():
        x = features(rng, 3, 20 if not op.startswith("ps") else 30, 9, 11)
        made = {"input": (x := x.astype(dtype)), "boxes": rois(rng, 3, dtype).astype(dtype), "spatial_scale": 0.5}
        more = {"sampling_ratio": 2} if op in ALIGN else {}
        wide = made["input"].astype("float64" if dtype == "float64" else "float32")  # what the kernels compute in
        out = getattr(reference, op)(**{**made, "input": wide}, output_size=(3, 2), **more)
        grad = rng.normal(size=out.shape).astype(dtype)
        got = backward_of(op, made, out.shape, grad, _numpy_ops)
        assert got.dtype == dtype
        scale = np.abs(grad.astype(np.float64) * out).sum() + 1
        difference = (grad.astype(np.float64) * out).sum() - (got.astype(np.float64) * x).sum()
        assert abs(difference) < {"float64": 1e-12, "float32": 1e-4, "float16": 2e-2}[dtype] * scale, name
        if (emulated := emulator()) is not None:
            arrays = [emulated.on_device(a) for a in (made["input"], made["boxes"], grad)]
            on_device = {"input": arrays[0], "boxes": arrays[1], "spatial_scale": 0.5}
            again = emulated.to_host(backward_of(op, on_device, out.shape, arrays[2], emulated.module))
            tolerance = TOLERANCE[dtype] * 4
            np.testing.assert_allclose(again, got, rtol=tolerance, atol=tolerance, err_msg=name)


def emulator():
    try:
        import cuda_emulator
    except ImportError:
        return None
    import types

    module = cuda_emulator.module()
    return module and types.SimpleNamespace(
        module=module, on_device=cuda_emulator.DeviceArray, to_host=cuda_emulator.to_host
    )


# Second opinion


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", OPS)
def test_torchvision(torchvision, op, dtype, layout):
    import torch

    rng = np.random.default_rng(0)
    tolerance = {"rtol": 0, "atol": 0} if op == "roi_pool" else {"rtol": 2e-5, "atol": 2e-5}
    ways = {"roi_align": [(r, a) for r in (-1, 1, 2, 3) for a in (False, True)], "ps_roi_align": [(-1,), (2,), (3,)]}
    for k, bins, (h, w), c in ((40, (7, 7), (20, 31), 3), (70, (2, 3), (25, 20), 20), (3, (1, 1), (5, 5), 40)):
        x = torch.from_numpy(features(rng, 2, c * bins[0] * bins[1] if op.startswith("ps") else c, h, w))
        x = x.to(getattr(torch, dtype))
        x = x.to(memory_format=torch.channels_last) if layout == "channels_last" else x
        boxes = torch.from_numpy(random_rois(rng, k, 2, 2.0 * max(h, w), (0.5, 2.0 * h))).to(x.dtype)
        for way in ways.get(op, [()]):
            ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
            got = getattr(boxops, op)(ours, boxes, bins, 0.5, *way)
            want = getattr(torchvision, op)(theirs, boxes, bins, 0.5, *way)
            torch.testing.assert_close(got, want, **tolerance)
            grad = torch.randn_like(want)
            got.backward(grad)
            want.backward(grad)
            if op == "ps_roi_pool":
                continue  # its backward gives a share to the last row and column, which its forward does not read
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_torchvision_levels(torchvision):
    import torch

    rng = np.random.default_rng(0)
    maps = {str(i): torch.randn(2, 5, 64 >> i, 96 >> i).requires_grad_() for i in range(4)}
    boxes = [torch.from_numpy(random_rois(rng, 60, 1, 300.0, (4.0, 400.0))[:, 1:].clip(0)).float() for _ in range(2)]
    boxes[0][:3] = torch.tensor([[0.0, 0, 112, 112], [5, 5, 229, 229], [0, 0, 56, 56]])
    pool = torchvision.MultiScaleRoIAlign([*maps], 7, 2)
    want = pool(maps, boxes, [(256, 384)] * 2)
    mine = [m.detach().clone().requires_grad_() for m in maps.values()]
    got = boxops.multiscale_roi_align(mine, boxes, 7, pool.scales, 2)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(want)
    got.backward(grad)
    want.backward(grad)
    for m, theirs in zip(mine, maps.values(), strict=True):
        torch.testing.assert_close(m.grad, theirs.grad, rtol=1e-4, atol=1e-4)


# Properties

coordinates = st.one_of(st.floats(-20, 40, width=32), st.integers(-40, 80).map(lambda i: i / 2), st.floats(width=32))


@given(st.lists(st.tuples(*[coordinates] * 4), min_size=1, max_size=4), st.integers(-1, 3), st.sampled_from(OPS))
def test_no_box_leaves_the_range_of_the_features(boxes, ratio, op):
    """Means and maxima of values in [1, 2], or zeros from outside; and what the reference says."""
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 2, (1, 12, 7, 8)).astype(np.float32)
    rois = np.array([(0, *box) for box in boxes], np.float32)
    more = {"sampling_ratio": ratio} if op in ALIGN else {}
    got = getattr(boxops, op)(x, rois, (3, 2), 0.5, **more)
    assert (got >= 0).all()
    assert (got <= 2 + 1e-5).all()
    compare = cases.COMPARE.get(op, cases.equal)
    compare(got, getattr(reference, op)(x, rois, (3, 2), 0.5, **more), "float32", more)
