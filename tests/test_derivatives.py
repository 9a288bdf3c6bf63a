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


FLOATING = [
    op for op, (function, arguments) in calls("cpu").items() if flat(arguments) and flat(function(*arguments))
]
CONSTANT = {"detect", "generate_proposals", "soft_nms", "weighted_boxes_fusion", "detr_cost", "match_max_iou"}
CONSTANT |= {"match_greedy", "match_greedy_matrix", *ANCHORS}


def test_which_are_constant():
    print(FLOATING)
    raise 1

@pytest.mark.parametrize("op", FLOATING)
def test_torch_func_of_every_op(device, op):
    """grad and vmap(grad): as backward gives it, for constants too."""
    function, arguments = calls(device)[op]
    call, points = of_floats(function, arguments, not_boxes_of(op))

    def loss(*floats):
        return sum(out.square().sum() for out in call(*floats)) + floats[0].sum()

    leaves = [point.clone().requires_grad_() for point in points]
    if op == "rotated_box_iou":
        with pytest.raises(RuntimeError, match="expected no request for a gradient"):
            grad(loss)(*points)
        return
    want = torch.autograd.grad(loss(*leaves), leaves[0])[0]
    torch.testing.assert_close(grad(loss)(*points), want)
    torch.testing.assert_close(vjp(loss, *points)[1](want.new_ones(()))[0], want)
    two = [torch.stack([point, point + 0.25]) for point in points]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it loops over the batch
        got = vmap(grad(loss))(*two)
    want = [grad(loss)(*(t[i] for t in two)) for i in range(2)]
    torch.testing.assert_close(got, torch.stack(want))
