"""encode_boxes, decode_boxes."""

from functools import partial

import backends
import cuda_emulator
import numpy as np
import pytest
from box_sets import BOXES, random_boxes
from cases.codecs import CODINGS, codes
from hypothesis import given
from hypothesis import strategies as st

import boxops


@pytest.mark.parametrize("coding", CODINGS)
def test_layouts(backend, coding):
    rng = np.random.default_rng(1)
    boxes, anchors = (random_boxes(rng, (2, 35)).astype(np.float32) for _ in range(2))
    backends.check_layouts(backend, "encode_boxes", {"boxes": boxes, "anchors": anchors, **CODINGS[coding]})
    numbers = codes(rng, (2, 35)).astype(np.float32)
    backends.check_layouts(backend, "decode_boxes", {"deltas": numbers, "anchors": anchors, **CODINGS[coding]})


emulated = pytest.mark.parametrize("kernels", ["emulated-cuda"], indirect=True)


@pytest.fixture
def kernels():
    return cuda_emulator.module() or pytest.skip("the CUDA emulator is not built")


@emulated
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("coding", ["rcnn", "yolo_v1", "yolo_v2", "yolo_v3"])
def test_cuda_gives_the_bits_of_the_cpu(kernels, coding, dtype):
    """exp and log too, since they are ours; and the gradients, which no NumPy function reaches."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([random_boxes(rng, 257), *(make(rng, dtype) for make in BOXES.values())]).astype(dtype)
    anchors, numbers = rng.permutation(boxes), codes(rng, (len(boxes),), 2.0).astype(dtype)
    grad = codes(rng, (len(boxes),)).astype(dtype)
    options = (coding, [1.0, 2.0, 3.0, 4.0], [8.0, 16.0] if coding != "rcnn" else [])
    for op, arrays, more in (
        ("encode_boxes", (boxes, anchors), ()),
        ("decode_boxes", (numbers, anchors), (4.0, [])),
        ("decode_boxes", (numbers[:, None], anchors[:99]), (np.inf, [480.0, 640.0])),
        ("decode_boxes", (numbers[:70, None], anchors[:99]), (4.0, [*range(140)])),
        ("encode_boxes_backward", (grad, boxes, anchors), (True,)),
        ("encode_boxes_backward", (grad, boxes, anchors[7]), (False,)),
        ("decode_boxes_backward", (grad, numbers, anchors), (4.0, [480.0, 640.0], True)),
        ("decode_boxes_backward", (grad[:99], numbers[:99], anchors[:99]), (4.0, [*range(198)], True)),
        ("decode_boxes_backward", (np.broadcast_to(grad[:1], grad.shape).copy(), numbers, anchors), (4.0, [], False)),
    ):
        want = getattr(kernels, op)(*arrays, *options, *more)
        got = getattr(kernels, op)(*map(cuda_emulator.DeviceArray, arrays), *options, *more)
        for g, w in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, want)), strict=True):
            np.testing.assert_array_equal(cuda_emulator.to_host(g), w)


def ulps_from(got, exact):
    """How many units in the last place `got` is off `exact`, which is of a wider type."""
    with np.errstate(all="ignore"):
        want = exact.astype(got.dtype)
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    got, want, exact = got[finite], want[finite], exact[finite]
    return np.abs((got.astype(exact.dtype) - exact) / np.spacing(np.abs(want)).astype(exact.dtype)).max()


@pytest.mark.parametrize(("dtype", "wider"), [(np.float32, np.float64), (np.float64, np.longdouble)])
def test_exp_and_log_to_the_last_bit_but_one(backend, dtype, wider):
    """Over all exponents. With a unit anchor a code decodes to half its exp, and a box encodes to its side's log."""
    rng, unit = np.random.default_rng(10), np.array([[-0.5, -0.5, 0.5, 0.5]], dtype)
    low, high = np.log(np.finfo(dtype).smallest_subnormal), np.log(np.finfo(dtype).max)
    ends = np.array([low - 2, low - 0.5, low, high, high + 0.5, high + 99, np.inf, -np.inf, 0, -0.0])
    x = np.concatenate([rng.uniform(low, high, 20000), rng.uniform(-1, 1, 20000), ends]).astype(dtype)
    numbers = np.stack([np.zeros_like(x), np.zeros_like(x), x, x], axis=1)
    got = backend.to_numpy(backend.run("decode_boxes", {"deltas": numbers, "anchors": unit, "clip": None}))
    with np.errstate(all="ignore"):
        exact = np.exp(x.astype(wider))
        side = exact.astype(dtype)
    normal = ~(np.abs(exact) < 3 * np.finfo(dtype).tiny)  # halving rounds where numbers are subnormal
    assert ulps_from(2 * got[normal, 2], exact[normal]) < 1.1
    assert (np.abs(2 * got[~normal, 2] - side[~normal]) <= 3 * np.finfo(dtype).smallest_subnormal).all()
    side = side[side / 2 * 2 == side]
    boxes = np.stack([-side, -side, side, side], axis=1) / 2
    got = backend.to_numpy(backend.run("encode_boxes", {"boxes": boxes, "anchors": unit}))
    with np.errstate(all="ignore"):
        assert ulps_from(got[:, 2], np.log(side.astype(wider))) < 1.1


def paired(rng, count, stride=None):
    """Boxes, and anchors; for YOLO the boxes' centres lie well inside their anchors' cells."""
    boxes, anchors = random_boxes(rng, count), random_boxes(rng, count)
    if stride is not None:
        middle = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2
        boxes += np.tile(rng.uniform(-0.45, 0.45, (count, 2)) * np.broadcast_to(stride, 2)[::-1] - middle, 2)
    return boxes, anchors


@pytest.mark.parametrize("coding", CODINGS)
def test_there_and_back(backend, coding):
    options = CODINGS[coding]
    arrays = [backend.to_array(array) for array in paired(np.random.default_rng(2), 500, options.get("stride"))]
    encoded = backend.ops.encode_boxes(*arrays, **options)
    if backend.name == "emulated-cuda":
        encoded = np.asarray(encoded)
    decoded = backend.ops.decode_boxes(encoded, arrays[1], **options)
    np.testing.assert_allclose(backend.to_numpy(decoded), backend.to_numpy(arrays[0]), rtol=1e-12, atol=1e-9)


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 4), min_size=1, max_size=20), st.sampled_from([*CODINGS]))
def test_back_and_there(numbers, coding):
    numbers = np.array(numbers)
    if coding == "yolo_v1":
        numbers = np.abs(numbers) + 0.01
        numbers[:, :2] %= 1
    anchors = np.array([[10.0, 20, 50, 40]])
    decoded = boxops.decode_boxes(numbers, anchors, **CODINGS[coding])
    np.testing.assert_allclose(boxops.encode_boxes(decoded, anchors, **CODINGS[coding]), numbers, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0), (0.3, 7.0, 1.7, 0.9)])
def test_torchvision(torchvision, device, dtype, weights):
    import torch
    from torchvision.models.detection._utils import BoxCoder

    rng, coder = np.random.default_rng(3), BoxCoder(weights)
    boxes, anchors, numbers = (
        torch.from_numpy(array).to(getattr(torch, dtype))
        for array in (random_boxes(rng, 3000), random_boxes(rng, 3000), codes(rng, (3000, 7), 4.0))
    )
    eps = torch.finfo(boxes.dtype).eps
    want = coder.encode_single(boxes, anchors)
    got = boxops.encode_boxes(boxes.to(device), anchors.to(device), weights).cpu()
    assert torch.equal(got[:, :2], want[:, :2])
    torch.testing.assert_close(got, want, rtol=4 * eps, atol=0)
    want = coder.decode_single(numbers.reshape(3000, 28), anchors).reshape(3000, 7, 4)
    got = boxops.decode_boxes(numbers.to(device), anchors[:, None].to(device), weights).cpu()
    torch.testing.assert_close(got, want, rtol=8 * eps, atol=want.abs().max().item() * 4 * eps)
    clipped = boxops.decode_boxes(numbers, anchors[:, None], weights, image_size=(480, 640))
    assert torch.equal(clipped, torchvision.clip_boxes_to_image(boxops.decode_boxes(numbers, anchors[:, None], weights),
                                                                (480, 640)))  # fmt: skip


def darknet_box(x, i, j, prior, lw, lh, w, h):
    """get_yolo_box of darknet's yolo_layer.c after its activation, get_region_box with w = lw and h = lh."""
    sigmoid = 1 / (1 + np.exp(-x[:2]))
    return (i + sigmoid[0]) / lw, (j + sigmoid[1]) / lh, np.exp(x[2]) * prior[0] / w, np.exp(x[3]) * prior[1] / h


@pytest.mark.parametrize(("coding", "unit"), [("yolo_v3", 32), ("yolo_v2", 1)])
def test_darknet(backend, coding, unit):
    """v3's priors are in pixels of the image, v2's in cells."""
    rng = np.random.default_rng(4)
    height, width, priors = 5, 7, np.array([(1.3, 1.7), (3.2, 4.0)]) * unit
    numbers = codes(rng, (height, width, 2))
    anchors = boxops.cell_anchors((height, width), priors.tolist(), unit, like=numbers)
    arguments = {"deltas": numbers.reshape(-1, 4), "anchors": anchors, "coding": coding, "stride": unit}
    got = backend.to_numpy(backend.run("decode_boxes", arguments)).reshape(height, width, 2, 4)
    for j, i, k in np.ndindex(height, width, 2):
        x, y, w, h = darknet_box(numbers[j, i, k], i, j, priors[k], width, height, width * unit, height * unit)
        want = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * np.tile([width * unit, height * unit], 2)
        np.testing.assert_allclose(got[j, i, k], want, rtol=1e-12, atol=1e-10)


def test_first_yolo(backend):
    """A 7 x 7 grid on 448 px: x, y in the cell, the roots of w and h over the image."""
    anchors = boxops.cell_anchors((7, 7), [(448, 448)], 64, like=np.zeros(0))
    box = np.array([[100.0, 120, 212, 344]])  # centre (156, 232) in cell (2, 3)
    at = 3 * 7 + 2
    arguments = {"boxes": box, "anchors": anchors[at : at + 1], "coding": "yolo_v1", "stride": 64}
    got = backend.to_numpy(backend.run("encode_boxes", arguments))
    np.testing.assert_array_equal(got, [[156 / 64 - 2, 232 / 64 - 3, 0.25**0.5, 0.5**0.5]])


def test_ends_of_the_cell(backend):
    """An infinite logit would end a training: the centre is held inside."""
    arguments = {"boxes": np.array([[-1.0, -1, 1, 1], [7, 7, 9, 9], [-99, 3, 1, 5]]),
                 "anchors": np.array([[0.0, 0, 8, 8]]), "coding": "yolo_v2", "stride": 8}  # fmt: skip
    got = backend.to_numpy(backend.run("encode_boxes", arguments))[:, :2]
    end = np.log(1e-6 / (1 - 1e-6))
    np.testing.assert_allclose(got, [[end, end], [-end, -end], [end, 0]], rtol=1e-9, atol=1e-15)


def test_degenerate_anchors_as_torchvision(torchvision):
    import torch
    from torchvision.models.detection._utils import BoxCoder

    anchors = torch.tensor([[5.0, 5, 5, 9], [5, 5, 9, 5], [9, 9, 5, 5], [1, 1, 1, 1]])
    boxes, coder = torch.tensor([[0.0, 0, 10, 10], [7, 7, 7, 7], [5, 5, 5, 9], [1, 1, 1, 1]]), BoxCoder((1.0,) * 4)
    for first in boxes:
        first = first.expand(4, 4)
        torch.testing.assert_close(boxops.encode_boxes(first, anchors), coder.encode_single(first, anchors),
                                   equal_nan=True)  # fmt: skip
        torch.testing.assert_close(boxops.decode_boxes(first, anchors), coder.decode_single(first, anchors))


def test_gradient_of_nothing(device):
    import torch

    inputs = leaves(device, np.zeros((2, 0, 4)), np.zeros((1, 4)))
    got = torch.autograd.grad(boxops.decode_boxes(*inputs).sum(), inputs)
    assert [g.shape for g in got] == [(2, 0, 4), (1, 4)] and not got[1].any()


def leaves(device, *arrays):
    import torch

    return [torch.tensor(array, dtype=torch.float64, device=device, requires_grad=True) for array in arrays]


SHAPES = [((7,), (7,)), ((7, 3), (7, 1)), ((2, 7), (7,)), ((), ()), ((3,), ()), ((), (3,))]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("coding", CODINGS)
def test_gradcheck(device, coding, shapes):
    from torch.autograd import gradcheck

    options, rng = CODINGS[coding], np.random.default_rng(5)
    make = partial(random_boxes, rng, extent=9.0, sides=(2.0, 9.0))
    encode = partial(boxops.encode_boxes, **{**options, **({"stride": (30, 40)} if "stride" in options else {})})
    assert gradcheck(encode, leaves(device, *map(make, shapes)))
    for more in ({}, {"image_size": (9.0, 12.0)}, {"clip": 0.3}):
        decode = partial(boxops.decode_boxes, **options, **more)
        assert gradcheck(decode, leaves(device, codes(rng, shapes[0]), make(shapes[1])))
    if len(shapes[0]) == 2:
        sizes = [(4.0 + i, 12.0 - i) for i in range(shapes[0][0])]
        points = leaves(device, codes(rng, shapes[0]), make(shapes[1]))
        decode = partial(boxops.decode_boxes, **options, image_size=sizes)
        assert gradcheck(decode, points, check_forward_ad=True, check_batched_grad=True)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_gradients_of_torchvision(torchvision, device, weights):
    import torch
    from torchvision.models.detection._utils import BoxCoder

    rng, coder = np.random.default_rng(6), BoxCoder(weights)
    weight = torch.from_numpy(codes(rng, (300,))).to(device)
    for ours, theirs, first in (
        (boxops.encode_boxes, coder.encode_single, random_boxes(rng, 300)),
        (boxops.decode_boxes, coder.decode_single, codes(rng, (300,), 9.0)),  # some are clipped
    ):
        gradients = []
        for function in (lambda a, b, f=ours: f(a, b, weights), theirs):
            inputs = leaves(device, first, random_boxes(np.random.default_rng(7), 300))
            gradients.append(torch.autograd.grad((function(*inputs) * weight).sum(), inputs))
        torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-9)


def test_gradient_at_clips(device):
    """It passes strictly inside only, as of torch's clamp since 2.14; for the log clip and for the image's border."""
    import torch

    numbers, anchors = leaves(device, [[0, 0, 2.0, 2 - 1e-9]], [[0, 0, 4.0, 4.0]])
    (grad,) = torch.autograd.grad(boxops.decode_boxes(numbers, anchors, clip=2)[0, 2:].sum(), numbers)
    assert grad[0, 2] == 0 and grad[0, 3] > 0
    numbers, anchors = leaves(device, np.zeros((3, 4)), [[0, -1, 4, 4], [1e-9, 0, 5, 6], [1, 1, 4 - 1e-9, 5]])
    decoded = boxops.decode_boxes(numbers, anchors, image_size=(5, 4))
    (grad,) = torch.autograd.grad(decoded.sum(), anchors)
    want = torch.tensor([[0.0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(grad.cpu(), want)


def test_gradient_has_the_dtype_of_its_input(device):
    import torch

    anchors = torch.tensor([[0.0, 0, 8, 8]], device=device, requires_grad=True)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        numbers = torch.ones(3, 4, dtype=dtype, device=device, requires_grad=True)
        grads = torch.autograd.grad(boxops.decode_boxes(numbers, anchors).sum(), [numbers, anchors])
        assert [g.dtype for g in grads] == [dtype, torch.float32] and [g.shape for g in grads] == [(3, 4), (1, 4)]


def test_strided_gradient_of_the_output(device):
    """The output's gradient arrives transposed, expanded from one number, or from an odd place in memory."""
    import torch

    def odd(x):
        return torch.as_strided(torch.cat([x.reshape(-1), x.new_ones(1)]), x.shape, x.stride(), 1).sum()

    for transform in (lambda x: (x.T @ x.new_ones(9, 2)).sum(), lambda x: x.sum(), lambda x: x[::2].sum(), odd):
        got, want = [], []
        for kept, function in ((got, boxops.decode_boxes), (want, eager)):
            inputs = leaves(device, codes(np.random.default_rng(8), (9,)), random_boxes(np.random.default_rng(9), 9))
            kept += torch.autograd.grad(transform(function(*inputs)), inputs)
        torch.testing.assert_close(got, want)


def eager(numbers, anchors):
    import torch

    size, centre = anchors[:, 2:] - anchors[:, :2], (anchors[:, 2:] + anchors[:, :2]) / 2
    middle, half = centre + numbers[:, :2] * size, numbers[:, 2:].exp() * size / 2
    return torch.cat([middle - half, middle + half], dim=1)


def test_second_derivative_raises(device):
    import torch

    inputs = leaves(device, np.ones((2, 4)), random_boxes(np.random.default_rng(0), 2))
    (grad,) = torch.autograd.grad(boxops.decode_boxes(*inputs).sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="expected one derivative at most"):
        grad.sum().backward()


def test_vmap_with_several_sizes(device):
    """The mapped dim is not that of the images."""
    import torch
    from torch.func import grad, vmap

    rng, sizes = np.random.default_rng(3), [(9.0, 12.0), (5.0, 30.0), (31.0, 7.0)]
    deltas, anchors = leaves(device, codes(rng, (2, 3, 8)), random_boxes(rng, (2, 8), extent=20.0))
    decode = partial(boxops.decode_boxes, image_size=sizes)
    loss = lambda d, a: decode(d, a).square().sum()  # noqa: E731
    for function in (decode, grad(loss), grad(loss, 1)):
        want = torch.stack([function(d, a) for d, a in zip(deltas, anchors, strict=True)])
        assert torch.equal(vmap(function)(deltas, anchors), want)
        want = torch.stack([function(d, anchors[0]) for d in deltas])
        assert torch.equal(vmap(function, (0, None))(deltas, anchors[0]), want)


@pytest.mark.parametrize("convert", [list, tuple, np.array, "tensor", "tensors"])
def test_sizes_of_images_in_any_form(device, convert):
    import torch

    rng, sizes = np.random.default_rng(3), [(9, 12), (5, 30)]
    deltas, anchors = leaves(device, codes(rng, (2, 8)), random_boxes(rng, (8,), extent=20.0))
    want = torch.stack([boxops.decode_boxes(d, anchors, image_size=s) for d, s in zip(deltas, sizes, strict=True)])
    forms = {"tensor": torch.tensor, "tensors": lambda some: [*map(torch.tensor, some)]}
    got = boxops.decode_boxes(deltas, anchors, image_size=forms.get(convert, convert)(sizes))
    assert torch.equal(got, want) and not torch.equal(got[:1], boxops.decode_boxes(deltas, anchors)[:1])
    for one in ([sizes[1]], torch.tensor(sizes[1]), [torch.tensor([5]), np.array([30])]):
        assert torch.equal(boxops.decode_boxes(deltas, anchors, image_size=one)[1], want[1])


def test_autocast(device):
    import torch

    boxes = torch.from_numpy(random_boxes(np.random.default_rng(0), 30)).float().to(device)
    low = boxes.bfloat16()
    with torch.autocast(device, dtype=torch.bfloat16):
        got = boxops.encode_boxes(boxes, low)
    assert torch.equal(got, boxops.encode_boxes(boxes, low.float()))


def test_compile_backward_with_dynamic_shapes(device):
    import torch

    torch._dynamo.reset()
    ours = partial(boxops.decode_boxes, weights=(10, 10, 5, 5), image_size=(400, 500))
    compiled = torch.compile(ours, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (5, 9):
        results = []
        for function in (compiled, ours):
            rng = np.random.default_rng(count)
            inputs = leaves(device, codes(rng, (count, 3)), random_boxes(rng, (count, 1)))
            results.append(torch.autograd.grad(function(*inputs).sum(), inputs))
        torch.testing.assert_close(*results, rtol=0, atol=0)
