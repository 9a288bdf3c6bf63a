"""torch.func's transforms of every op, of one another, of modules, and under torch.compile."""

import warnings
from functools import partial

import numpy as np
import pytest

import boxops

torch = pytest.importorskip("torch")
from cases import calls, tensors  # noqa: E402
from test_derivatives import CONSTANT, FLOATING, SMOOTH, floats_of, noise, squares  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap  # noqa: E402


@pytest.fixture
def no_slow_vmap():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "There is a performance drop")  # torch has no rule for an operator
        yield


@pytest.mark.parametrize("op", FLOATING)
def test_torch_func_of_every_op(device, op, no_slow_vmap):
    """grad, vjp and vmap(grad) are what backward gives; of a constant too."""
    call, points = floats_of(device, op)
    loss = squares(call)
    if op == "rotated_box_iou":
        with pytest.raises(RuntimeError, match="expected no request for a gradient"):
            grad(loss)(*points)
        return
    leaves = [point.clone().requires_grad_() for point in points]
    (want,) = torch.autograd.grad(loss(*leaves), leaves[:1])
    torch.testing.assert_close(grad(loss)(*points), want)
    torch.testing.assert_close(vjp(loss, *points)[1](want.new_ones(()))[0], want)
    more = 0.0 if op in CONSTANT else 0.25  # of constants the number of results may hang on it
    batch = [torch.stack([point, point + more]) for point in points]
    want = torch.stack([grad(loss)(*some) for some in zip(*batch, strict=True)])
    torch.testing.assert_close(vmap(grad(loss))(*batch), want)
    if op in SMOOTH:
        torch.testing.assert_close(grad(lambda *some: vmap(loss)(*some).sum())(*batch), want)
        direction = noise(points)
        _, slope = jvp(loss, tuple(points), tuple(direction))
        torch.testing.assert_close(linearize(loss, *points)[1](*direction), slope)


def boxes_and_others():
    boxes = tensors("cpu", 5)[0].double()
    return boxes, boxes.roll(1, 0) + 3.3


def of_one(boxes, others):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 2, 6, 6)))
    roi = torch.tensor([[0.0, 1, 1, 4, 5]])
    return {
        "box_area": (lambda b: boxops.box_area(b, "cxcywh"), boxes),
        "clip_boxes_to_image": (lambda b: boxops.clip_boxes_to_image(b, (40, 50)), boxes),
        "box_iou": (lambda b: boxops.box_iou(b, others), boxes),
        "encode_boxes": (lambda b: boxops.encode_boxes(b, others), boxes),
        "decode_boxes": (lambda b: boxops.decode_boxes(b / 50, others, image_size=(60, 70)), boxes),
        "roi_align": (lambda x: boxops.roi_align(x, roi, 2), features),
        "roi_pool": (lambda x: boxops.roi_pool(x, roi, 2), features),
    }


@pytest.mark.parametrize("op", of_one(*boxes_and_others()))
def test_jacobians(op):
    function, point = of_one(*boxes_and_others())[op]
    torch.testing.assert_close(jacfwd(function)(point), jacrev(function)(point))
    batch = torch.stack([point, point * 1.01, point + 0.3])
    want = torch.stack([jacrev(function)(one) for one in batch])
    for jacobian in (jacfwd, jacrev):
        torch.testing.assert_close(vmap(jacobian(function))(batch), want)


SECOND = {"hessian": hessian, "jacrev^2": lambda f: jacrev(jacrev(f)), "jacfwd^2": lambda f: jacfwd(jacfwd(f)),
          "jacrev of jacfwd": lambda f: jacrev(jacfwd(f)), "jacfwd of jacrev": lambda f: jacfwd(jacrev(f))}  # fmt: skip


@pytest.mark.parametrize("way", SECOND)
@pytest.mark.parametrize("op", of_one(*boxes_and_others()))
def test_second_derivatives_are_computed_or_raise(op, way):
    function, point = of_one(*boxes_and_others())[op]

    def loss(x):
        return (function(x) ** 2).sum()

    try:
        second = SECOND[way](loss)(point).reshape(point.numel(), -1)
    except RuntimeError as error:
        assert "expected one derivative at most" in str(error)
        assert op not in ("box_area", "clip_boxes_to_image")
        return
    step = torch.randn(point.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ahead, behind = (grad(loss)(point + sign * 1e-6 * step) for sign in (1, -1))
    torch.testing.assert_close((second @ step.flatten()).view_as(point), (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-5)


# vmap


WITH_OFFSETS = ("match_max_iou", "detr_cost")


@pytest.mark.parametrize("op", calls("cpu"))
def test_vmap_of_every_op(device, op, no_slow_vmap):
    function, arguments = calls(device)[op]
    batch = [a if op in WITH_OFFSETS and not a.is_floating_point() else torch.stack([a, a.flip(0)]) for a in arguments]
    dims = tuple(None if b is a else 0 for a, b in zip(arguments, batch, strict=True))
    want = [function(*(b if d is None else b[i] for b, d in zip(batch, dims, strict=True))) for i in range(2)]
    want = torch.utils._pytree.tree_map(lambda *some: torch.stack(some), *want)
    torch.testing.assert_close(vmap(function, dims)(*batch), want, rtol=0, atol=0)


def test_vmap_with_results_of_several_sizes(device):
    boxes = torch.tensor([[[0.0, 0, 1, 1], [0, 0, 1, 1]], [[0, 0, 1, 1], [5, 5, 6, 6]]], device=device)
    with pytest.raises(RuntimeError, match=r"^nms: expected results of one shape under vmap, got \[1\] and \[2\]"):
        vmap(partial(boxops.nms, iou_threshold=0.5))(boxes, boxes[..., 0])


# In programs


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.linear = torch.nn.Conv2d(2, 3, 3), torch.nn.Linear(12, 4)

    def forward(self, images, rois):
        return self.linear(boxops.roi_align(self.convolution(images), rois, 2, aligned=True).flatten(1))


def test_gradients_of_a_module_per_sample(device):
    torch.manual_seed(0)
    head = Head().double().to(device)
    weights = {name: p.detach() for name, p in head.named_parameters()}
    images = torch.randn(3, 2, 9, 9, device=device).double()
    rois = torch.tensor([[[0.0, 1, 1, 5, 6], [0, 0, 2, 6, 6]]] * 3, device=device).double() + torch.arange(
        3, device=device
    ).view(3, 1, 1) * torch.tensor([0.0, 0.5, 0, 0.5, 0], device=device)
    truth = boxops.box_convert(rois[..., 1:] + 1, "xyxy", "cxcywh")

    def loss(weights, image, rois, truth):
        boxes = boxops.decode_boxes(functional_call(head, weights, (image[None], rois)), rois[:, 1:])
        matches, _ = boxops.match_max_iou(boxes, boxops.box_convert(truth, "cxcywh", "xyxy"), 0.0)
        return boxops.generalized_box_iou_loss(boxes, boxops.box_convert(truth[matches], "cxcywh", "xyxy"), "sum")

    got = vmap(grad(loss), (None, 0, 0, 0))(weights, images, rois, truth)
    for i in range(3):
        head.zero_grad()
        loss(dict(head.named_parameters()), images[i], rois[i], truth[i]).backward()
        for name, p in head.named_parameters():
            torch.testing.assert_close(got[name][i], p.grad)


def test_compile_of_transforms(device):
    boxes = tensors(device, 6)[0].double()

    def loss(b):
        _, ious = boxops.match_max_iou(b, b + 2, 0.5)
        return (boxops.box_iou(b, b.detach() + 3).sum(-1) * ious).sum() + boxops.box_area(b).sum()

    def slope(b):
        return jvp(lambda b: boxops.generalized_box_iou(b, b.flip(0)) + boxops.box_area(b), (b,), (b,))[1]

    def dual(b):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(boxops.box_area(forward_ad.make_dual(b, b)) + b.sum(-1)).tangent

    batch = torch.stack([boxes, boxes * 1.1])
    for function, point in ((grad(loss), boxes), (vmap(grad(loss)), batch), (slope, boxes), (dual, boxes)):
        for backend in ("aot_eager", "eager") if function is slope else ("aot_eager",):
            torch._dynamo.reset()
            compiled = torch.compile(function, fullgraph=True, backend=backend)
            torch.testing.assert_close(compiled(point), function(point))


def test_autocast_of_transforms(device):
    boxes = tensors(device)[0]
    with torch.autocast(device, dtype=torch.bfloat16):
        low = grad(lambda b: boxops.box_iou(b, boxes + 1).sum())(boxes.bfloat16())
    want = grad(lambda b: boxops.box_iou(b, boxes + 1).sum())(boxes.bfloat16().float())
    torch.testing.assert_close(low, want.bfloat16())
