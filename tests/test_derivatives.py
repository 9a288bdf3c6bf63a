"""Derivatives of every operator in both modes, by autograd, dual numbers and torch.func, and torch.vmap of all."""

import warnings
from functools import partial

import numpy as np
import pytest

import boxops

torch = pytest.importorskip("torch")
from test_torch_integration import calls, registered, samples, tensors  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap  # noqa: E402

ROI = ("roi_align", "multiscale_roi_align", "ps_roi_align", "roi_pool", "roi_pool_with_argmax", "ps_roi_pool")
DIFFERENTIABLE = {"box_area", "box_convert", "clip_boxes", "encode_boxes", "decode_boxes", "iou", *ROI}
ANCHORS = {"multibox_anchors", "grid_anchors", "cell_anchors"}  # their derivative by `like` is 0
REFUSED = "expected (tensors without tangents|boxes without tangents|one derivative at most)"


def flat(tree, of=lambda tensor: tensor.is_floating_point()):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor) and of(leaf)]


def of_floats(function, arguments, moved=lambda tensor: True):
    """The function's floating results as a function of its floating arguments, in float64, and these arguments."""
    arguments = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda t: t.detach().double() if t.is_floating_point() else t, arguments
    )
    leaves, spec = torch.utils._pytree.tree_flatten([*arguments])
    places = [i for i, x in enumerate(leaves) if isinstance(x, torch.Tensor) and x.is_floating_point() and moved(x)]

    def call(*floats):
        filled = list(leaves)
        for i, x in zip(places, floats, strict=True):
            filled[i] = x
        return flat(function(*torch.utils._pytree.tree_unflatten(filled, spec)))

    return call, [leaves[i] for i in places]


def not_boxes_of(op):
    """RoIs are constants to reverse mode, and have no tangents."""
    return (lambda tensor: tensor.dim() == 4) if "roi" in op and "backward" not in op else (lambda tensor: True)


def noise(tensors):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.device) for t in tensors]


def check_tangents(op, call, points, smooth=True):
    """Along a direction: forward mode is reverse mode, and the difference quotient."""
    step = noise(points)
    out, moved = jvp(call, tuple(points), tuple(step))
    torch.testing.assert_close(out, call(*points), rtol=0, atol=0)
    weights = noise(out)
    leaves = [point.clone().requires_grad_() for point in points]
    total = sum((o * w).sum() for o, w in zip(call(*leaves), weights, strict=True))
    grads = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(leaves)
    reverse = sum((g * s).sum() for g, s in zip(grads, step, strict=True) if g is not None)
    forward = sum((m * w).sum() for m, w in zip(moved, weights, strict=True))
    torch.testing.assert_close(forward, torch.as_tensor(reverse).to(forward), rtol=1e-9, atol=1e-9)
    if smooth:
        h = 1e-6
        ahead, behind = (call(*(p + sign * h * s for p, s in zip(points, step, strict=True))) for sign in (1, -1))
        quotient = [(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)]
        torch.testing.assert_close(moved, quotient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op", registered())
def test_forward_mode_of_every_operator(device, op):
    """It is computed, raises, or there is nothing floating to derive."""
    for arguments in samples(device)[op]:
        ciou = op == "iou" and arguments[2] == 4  # its alpha counts as a constant
        call, points = of_floats(getattr(torch.ops.boxops, op).default, arguments, not_boxes_of(op))
        if not points or not call(*points):
            continue
        if op in DIFFERENTIABLE | ANCHORS:
            check_tangents(op, call, points, smooth=not ciou)
        else:
            with pytest.raises(RuntimeError, match=REFUSED):
                jvp(call, tuple(points), tuple(noise(points)))


FLOATING = [op for op, (function, arguments) in calls("cpu").items() if flat(arguments) and flat(function(*arguments))]
CONSTANT = {"detect", "generate_proposals", "soft_nms", "weighted_boxes_fusion", "detr_cost", "match_max_iou"}
CONSTANT |= {"match_greedy", "match_greedy_matrix", *ANCHORS}
SMOOTH = sorted({*FLOATING} - CONSTANT - {"rotated_box_iou"})


def floats_of(device, op):
    return of_floats(*calls(device)[op], not_boxes_of(op))


def squares(call):
    """A loss, in which something else than the op has a gradient too."""
    return lambda *floats: sum(out.square().sum() for out in call(*floats)) + floats[0].sum()


@pytest.fixture
def no_slow_vmap():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "There is a performance drop")  # torch has no rule for an operator
        yield


@pytest.mark.parametrize("op", SMOOTH)
def test_gradcheck_in_both_modes(device, op):
    call, points = floats_of(device, op)
    leaves = [point.clone().requires_grad_() for point in points]
    lists = op == "multiscale_roi_align"  # which gradcheck's old vmap cannot batch
    batched = {"check_batched_grad": True, "check_batched_forward_grad": not lists}
    if op.startswith("complete"):
        call = squares(call)  # against reverse mode alone
        check_tangents(op, lambda *x: [call(*x)], points, smooth=False)
        return
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True, check_forward_ad=True, **batched)


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


@pytest.mark.parametrize("op", [*sorted(CONSTANT - ANCHORS), "rotated_box_iou"])
def test_a_tangent_without_derivative_raises(device, op):
    call, points = floats_of(device, op)
    with pytest.raises(RuntimeError, match=f"^{op}: expected tensors without tangents .*detach"):
        jvp(call, tuple(points), tuple(points))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=f"^{op}: expected tensors without tangents"):
        call(*points[:-1], forward_ad.make_dual(points[-1], points[-1]))
    out, tangents = jvp(lambda *floats: call(*(x.detach() for x in floats)), tuple(points), tuple(points))
    torch.testing.assert_close(out, call(*points))
    assert not any(tangent.any() for tangent in tangents)


@pytest.mark.parametrize("op", [op for op in calls("cpu") if "roi" in op])
def test_tangents_of_rois_raise(device, op):
    call, points = of_floats(*calls(device)[op], lambda tensor: tensor.dim() == 2)
    with pytest.raises(RuntimeError, match=f"^{op}: expected boxes without tangents"):
        jvp(call, tuple(points), tuple(points))


def test_integer_results_of_dual_tensors(device):
    boxes, scores = tensors(device)
    masks = scores[:, None, None].expand(-1, 5, 5)
    with forward_ad.dual_level():
        dual, dual_scores, dual_masks = (forward_ad.make_dual(t, t) for t in (boxes, scores, masks.clone()))
        for got, want in (
            (boxops.nms(dual, dual_scores, 0.5), boxops.nms(boxes, scores, 0.5)),
            (boxops.remove_small_boxes(dual, 20.0), boxops.remove_small_boxes(boxes, 20.0)),
            (boxops.mine_hard_negatives(dual_scores, -torch.ones_like(scores).long(), min_negatives=9),
             boxops.mine_hard_negatives(scores, -torch.ones_like(scores).long(), min_negatives=9)),
            (boxops.paste_masks(dual_masks, dual, (99, 99), threshold=0.5),
             boxops.paste_masks(masks, boxes, (99, 99), threshold=0.5)),
        ):  # fmt: skip
            assert torch.equal(got, want) and want.any()


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("which", [(True, False), (False, True), (True, True)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dual_numbers(device, which, dtype, paired):
    """Tangents on either side, broadcast boxes, and the dtype of the result."""
    boxes = tensors(device, 6, lead=(3,))[0]
    boxes1, boxes2 = (boxes[:, :1] if paired else boxes).to(dtype), (boxes[0] + 3).to(dtype)
    tangents = [b.flip(-1) if has else None for b, has in zip((boxes1, boxes2), which, strict=True)]

    def moved(dtype):
        with forward_ad.dual_level():
            duals = [
                b.to(dtype) if t is None else forward_ad.make_dual(b.to(dtype), t.to(dtype))
                for b, t in zip((boxes1, boxes2), tangents, strict=True)
            ]
            out, tangent = forward_ad.unpack_dual(boxops.generalized_box_iou(*duals, paired=paired))
        assert out.dtype == tangent.dtype and out.shape == tangent.shape
        return tangent

    assert moved(dtype).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(moved(dtype).double(), moved(torch.float64), rtol=1e-5, atol=1e-6)


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
        "decode_boxes": (lambda b: boxops.decode_boxes(b / 50, others, size=(60, 70)), boxes),
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


def test_reverse_mode_of_a_tangent(device):
    boxes = tensors(device, 5)[0].double().requires_grad_()
    step = boxes.detach().flip(0)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(boxes, step)
        slope = forward_ad.unpack_dual(boxops.box_area(dual)).tangent.sum()
        iou = forward_ad.unpack_dual(boxops.box_iou(dual, dual)).tangent.sum()
    (got,) = torch.autograd.grad(slope, boxes)
    (want,) = torch.autograd.grad(
        torch.func.jvp(lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]), (boxes,), (step,))[1].sum(), boxes
    )
    torch.testing.assert_close(got, want)
    with pytest.raises(RuntimeError, match=r"^box_iou: expected one derivative at most"):
        torch.autograd.grad(iou, boxes)


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


# At the limits of clamps: the rule of torch's clamp since 2.14, which passes nothing from the limit on


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
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(point), function(point))


def test_autocast_of_transforms(device):
    boxes = tensors(device)[0]
    with torch.autocast(device, dtype=torch.bfloat16):
        low = grad(lambda b: boxops.box_iou(b, boxes + 1).sum())(boxes.bfloat16())
    want = grad(lambda b: boxops.box_iou(b, boxes + 1).sum())(boxes.bfloat16().float())
    torch.testing.assert_close(low, want.bfloat16())


# At the limits of clamps, where nothing passes: the rule of torch's clamp since 2.14


def gradient(function, values, device):
    leaf = torch.tensor(values, dtype=torch.float64, device=device, requires_grad=True)
    (backward,) = torch.autograd.grad(function(leaf).sum(), leaf)
    columns = jacfwd(lambda x: function(x).sum())(leaf.detach())
    torch.testing.assert_close(columns, backward, rtol=0, atol=0)
    return backward


NAN, INF = float("nan"), float("inf")


def test_gradient_at_the_limits_of_a_clip(device):
    boxes = [[0.0, 0, 7, 5], [-1, 1, 6.5, 6], [7, 5, 8, 4], [NAN, 2, 3, 5], [1e-9, 5 - 1e-9, -INF, INF]]
    inside = torch.tensor([[0.0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.float64)
    got = gradient(lambda b: boxops.clip_boxes_to_image(b, (5, 7)), boxes, device)
    torch.testing.assert_close(got.cpu(), inside, rtol=0, atol=0)
    if gradient(lambda x: x.clamp(0, 1), [0.0, 1.0], device).sum() == 0:
        clamp = lambda b: torch.stack([b[:, 0::2].clamp(0, 7), b[:, 1::2].clamp(0, 5)], -1)  # noqa: E731
        torch.testing.assert_close(got, gradient(clamp, boxes, device), rtol=0, atol=0)


@pytest.mark.parametrize("fmt", ["xyxy", "xywh"])
def test_gradient_of_an_area_without_a_side(device, fmt):
    """The area of a side at 0 has the slope 0, by the other side too; the least side has one."""
    sides = torch.tensor([[0.0, 3], [2, 0], [0, 0], [-1, 3], [1e-9, 3], [2, 3]], dtype=torch.float64)
    boxes = torch.cat([torch.zeros(6, 2), sides], -1).double()
    got = gradient(lambda b: boxops.box_area(b, fmt), boxes.tolist(), device)[:, 2:].cpu()
    want = torch.tensor([[0.0, 0], [0, 0], [0, 0], [0, 0], [3, 1e-9], [3, 2]], dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_gradient_at_the_limits_of_decoding(device):
    anchors = torch.tensor([[0.0, 0, 4, 4]], device=device).double()
    got = gradient(lambda c: boxops.decode_boxes(c, anchors, clip=2)[..., 2:], [[0, 0, 2.0, 2 - 1e-9]], device)
    assert got[0, 2] == 0 and got[0, 3] > 1
    codes = torch.zeros(1, 4, device=device).double()
    got = gradient(lambda a: boxops.decode_boxes(codes, a, size=(5, 4)), [[0.0, 1, 4, 4]], device)
    torch.testing.assert_close(got.cpu(), torch.tensor([[0.0, 1, 0, 1]]).double())
