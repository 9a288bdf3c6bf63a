"""multibox_anchors, grid_anchors, cell_anchors."""

import backends
import numpy as np
import pytest
from cases.anchors import PYRAMID
from hypothesis import given
from hypothesis import strategies as st

import boxops
from boxops import reference

OPS = {
    "multibox_anchors": {"grid_size": (4, 6), "sizes": (0.5, 0.3), "aspect_ratios": (1, 2)},
    "grid_anchors": PYRAMID,
    "cell_anchors": {"grid_size": (4, 6), "priors": ((10, 13), (16, 30)), "stride": 8},
}
positive = st.floats(0.01, 100)


@pytest.mark.parametrize("op", OPS)
def test_layouts(backend, op):
    backends.check_layouts(backend, op, {"like": np.zeros((3, 4), np.float32), **OPS[op]})


@pytest.mark.parametrize("op", OPS)
def test_without_like_numpy_float32(op):
    got, want = getattr(boxops, op)(**OPS[op]), getattr(reference, op)(**OPS[op])
    assert isinstance(got, np.ndarray) and got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def test_order_of_multibox(backend):
    """(s1, r1), (s2, r1), (s1, r2) around each pixel's middle; the aspect ratio holds in pixels."""
    like = backend.to_array(np.zeros(0, np.float64))
    got = backend.to_numpy(backend.ops.multibox_anchors((2, 4), (0.5, 0.25), (1, 0.25), normalized=False, like=like))
    half = np.array([[0.5, 0.5], [0.25, 0.25], [1, 0.25]])
    centre = np.array([[x + 0.5, y + 0.5] for y in range(2) for x in range(4)])[:, None]
    np.testing.assert_array_equal(got, np.concatenate([centre - half, centre + half], axis=-1).reshape(-1, 4))
    got = backend.to_numpy(backend.ops.multibox_anchors((2, 4), (0.5, 0.25), (1, 0.25), like=like)).reshape(2, 4, 3, 4)
    np.testing.assert_array_equal(got[1, 2, 2], [(2.5 - 1) / 4, (1.5 - 0.25) / 2, (2.5 + 1) / 4, (1.5 + 0.25) / 2])


def test_order_of_cells(backend):
    like = backend.to_array(np.zeros(0, np.float32))
    got = backend.to_numpy(backend.ops.cell_anchors((1, 2), ((4, 2), (8, 8)), (10, 20), like=like))
    np.testing.assert_array_equal(got, [[8, 4, 12, 6], [6, 1, 14, 9], [28, 4, 32, 6], [26, 1, 34, 9]])


def generator(torchvision, sizes, ratios):
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    return AnchorGenerator(sizes, ratios)


def anchors_of(torch, generator, image, grids, dtype):
    from torchvision.models.detection.image_list import ImageList

    images = ImageList(torch.empty(1, 0, *image), [image])
    return generator(images, [torch.empty(1, 1, *grid, dtype=dtype) for grid in grids])[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torchvision(torchvision, device, dtype):
    import torch

    dtype = getattr(torch, dtype)
    for image, shape in (((800, 1333), 4), ((333, 217), 3), ((641, 64), 8)):
        grids = [(-(-image[0] // 2**i // shape), -(-image[1] // 2**i // shape)) for i in range(5)]
        for sizes, ratios in (
            (PYRAMID["sizes"], PYRAMID["aspect_ratios"]),
            ([(31.7, 45, 1.0)] * 5, [(0.13, 1.0, 3.7)] * 5),
            ([(1, 3, 5, 7)] * 5, [(0.25, 1.0, 4.0)] * 5),
        ):
            want = anchors_of(torch, generator(torchvision, tuple(sizes), tuple(ratios)), image, grids, dtype)
            like = torch.empty(0, dtype=dtype, device=device)
            got = boxops.grid_anchors(image, grids, sizes, ratios, like=like)
            assert torch.equal(got.cpu(), want)


@given(st.lists(positive, min_size=1, max_size=4), st.lists(st.floats(0.1, 10), min_size=1, max_size=4))
def test_torchvision_base_anchors(sizes, ratios):
    torch = pytest.importorskip("torch")
    try:
        want = generator(None, (tuple(sizes),), (tuple(ratios),)).cell_anchors[0]
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    got = boxops.grid_anchors((8, 8), [(1, 1)], [sizes], [ratios], like=torch.empty(0))
    assert torch.equal(got, want)


@pytest.mark.parametrize("normalized", [True, False])
def test_book(device, normalized):
    """Dive into Deep Learning's multibox_prior, as printed."""
    import torch

    height, width, sizes, ratios = 29, 41, (0.75, 0.5, 0.25), (1, 2, 0.5)
    size, ratio = torch.tensor(sizes, dtype=torch.float64), 1 / torch.tensor(ratios, dtype=torch.float64)
    shift_y, shift_x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width,
                                      indexing="ij")  # fmt: skip
    shift_y, shift_x = shift_y.reshape(-1), shift_x.reshape(-1)
    w = torch.cat((size * ratio[0].sqrt(), sizes[0] * ratio[1:].sqrt())) * height / width
    h = torch.cat((size / ratio[0].sqrt(), sizes[0] / ratio[1:].sqrt()))
    want = torch.stack((shift_x, shift_y, shift_x, shift_y), dim=1).repeat_interleave(5, dim=0)
    want = want + torch.stack((-w, -h, w, h)).T.repeat(height * width, 1) / 2
    if not normalized:
        want = want * torch.tensor([width, height, width, height])
    like = torch.empty(0, dtype=torch.float64, device=device)
    got = boxops.multibox_anchors((height, width), sizes, ratios, normalized=normalized, like=like)
    torch.testing.assert_close(got.cpu(), want, rtol=1e-6, atol=1e-6)  # the book's centres are float32


def test_default_boxes_of_ssd(torchvision):
    """SSD's generator gives the same centres, and sizes in other places."""
    import torch
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.image_list import ImageList

    boxes = DefaultBoxGenerator([[2]], scales=[0.2, 0.4], steps=[8])
    images = ImageList(torch.empty(1, 3, 32, 32), [(32, 32)])
    want = boxes(images, [torch.empty(1, 1, 4, 4)])[0].reshape(16, 4, 4)
    priors = [((w * 32).item(), (h * 32).item()) for w, h in boxes._wh_pairs[0]]
    got = boxops.cell_anchors((4, 4), priors, 8, like=torch.empty(0)).reshape(16, 4, 4)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)


@given(st.integers(0, 9), st.integers(0, 9), st.lists(positive, min_size=1, max_size=3), positive)
def test_multibox_sizes(height, width, sizes, ratio):
    boxes = boxops.multibox_anchors((height, width), sizes, (ratio, 1), normalized=False, like=np.zeros(0))
    assert boxes.shape == (height * width * (len(sizes) + 1), 4)
    w, h = (boxes[:, 2:] - boxes[:, :2]).reshape(height * width, len(sizes) + 1, 2).transpose(2, 0, 1)
    np.testing.assert_allclose(h / w, np.broadcast_to([ratio] * len(sizes) + [1], w.shape), rtol=1e-9)
    np.testing.assert_allclose(np.sqrt(w * h) / max(height, 1), np.broadcast_to([*sizes, sizes[0]], w.shape), rtol=1e-9)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 64), st.integers(1, 64))
def test_levels_follow_each_other(height, width, y, x):
    sizes, ratios = ((8, 16), (32,)), ((1, 2), (0.5, 1, 2))
    grids, strides = [(height, width), (3, 2)], [(y, x), 7]
    together = boxops.grid_anchors((9, 9), grids, sizes, ratios, strides=strides)
    alone = [boxops.grid_anchors((9, 9), [g], [s], [r], strides=[t])
             for g, s, r, t in zip(grids, sizes, ratios, strides, strict=True)]  # fmt: skip
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_threads_change_nothing(device):
    import torch

    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(boxops.multibox_anchors((301, 207), (0.5,), (1, 2), like=torch.empty(0, device=device)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_nothing_to_differentiate(device):
    import torch

    like = torch.zeros(1, 2, 3, 4, device=device, requires_grad=True)
    for op, arguments in OPS.items():
        assert not getattr(boxops, op)(**arguments, like=like).requires_grad


def test_compile_with_dynamic_shapes(device):
    """A pyramid whose sizes change compiles once."""
    import torch

    def anchors(images, *maps):
        return boxops.grid_anchors(
            images.shape[-2:], [m.shape[-2:] for m in maps], ((8, 16), (32,)), ((1, 2),) * 2, like=maps[0]
        )

    torch._dynamo.reset()
    compiled = torch.compile(anchors, fullgraph=True, dynamic=True, backend="aot_eager")
    for h, w in ((32, 40), (48, 64), (80, 56)):
        shapes = ((h, w), (h // 4, w // 4), (h // 8, w // 8))
        images, *maps = (torch.zeros(1, 2, *shape, device=device) for shape in shapes)
        assert torch.equal(compiled(images, *maps), anchors(images, *maps))
