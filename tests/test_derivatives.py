"""Derivatives of every operator, in forward mode as in reverse mode."""

import pytest

import boxops

torch = pytest.importorskip("torch")
from cases import calls, gathered, samples, tensors  # noqa: E402
from test_torch_integration import registered  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.func import jacfwd, jvp  # noqa: E402

DIFFERENTIABLE = gathered("DIFFERENTIABLE")
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
    """It is computed, raises, or there is nothing floating to derive; RoIs are constants to the features."""
    for arguments in samples(device)[op]:
        ciou = op == "complete_box_iou" or "complete_box_iou" in arguments  # its alpha counts as a constant
        call, points = of_floats(getattr(torch.ops.boxops, op).default, arguments, not_boxes_of(op))
        if not points or not call(*points):
            continue
        if op in DIFFERENTIABLE | ANCHORS | {"boxes_to_rois"}:
            check_tangents(op, call, points, smooth=not ciou)
        else:
            with pytest.raises(RuntimeError, match=REFUSED):
                jvp(call, tuple(points), tuple(noise(points)))


FLOATING = [op for op, (function, arguments) in calls("cpu").items() if flat(arguments) and flat(function(*arguments))]
CONSTANT = gathered("CONSTANT") | ANCHORS
SMOOTH = sorted({*FLOATING} - CONSTANT - {"rotated_box_iou"})


def floats_of(device, op):
    return of_floats(*calls(device)[op], not_boxes_of(op))


def squares(call):
    """A loss, in which something else than the op has a gradient too."""
    return lambda *floats: sum(out.square().sum() for out in call(*floats)) + floats[0].sum()


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
    deltas = torch.zeros(1, 4, device=device).double()
    got = gradient(lambda a: boxops.decode_boxes(deltas, a, image_size=(5, 4)), [[0.0, 1, 4, 4]], device)
    torch.testing.assert_close(got.cpu(), torch.tensor([[0.0, 1, 0, 1]]).double())
