"""Gradients of the IoU family, against finite differences, torch's own, and torchvision's."""

import cases
import numpy as np
import pytest
from box_sets import BOXES, random_boxes

import boxops

torch = pytest.importorskip("torch")
from torch.autograd import gradcheck  # noqa: E402

SMOOTH = [op for op in cases.PAIRWISE if op != "complete_box_iou"]  # CIoU counts its alpha as a constant
VALID = ("one", "random", "crowded", "identical", "touching", "nested", "negative", "clustered", "far")


def leaf(array, device="cpu", dtype=torch.float64):
    return torch.tensor(np.asarray(array), dtype=dtype, device=device, requires_grad=True)


def random_leaves(device, shape1=(5,), shape2=(6,)):
    return [
        leaf(random_boxes(np.random.default_rng(i), s, 50.0, (20.0, 60.0)), device)
        for i, s in enumerate((shape1, shape2))
    ]


def eager(op, boxes1, boxes2, paired=False, iou_eps=0.0, eps=None):
    """The formulas of the contract in torch's own ops, whose gradient at ties is the one to have."""
    if not paired:
        boxes1, boxes2 = boxes1[..., :, None, :], boxes2[..., None, :, :]
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = boxes1.unbind(-1), boxes2.unbind(-1)
    eps = (0.0 if op == "generalized_box_iou" else 1e-7) if eps is None else eps

    def extent(low, high):
        length = high - low
        return torch.where(length > 0, length, 0)  # clamp(min=0), which passes the gradient at 0 up to torch 2.13

    def side(low, high):
        length = high - low
        return torch.where(length >= 0, length, 0)

    aw, ah, bw, bh = side(ax1, ax2), side(ay1, ay2), side(bx1, bx2), side(by1, by2)
    inter = extent(ax1.max(bx1), ax2.min(bx2)) * extent(ay1.max(by1), ay2.min(by2))
    if op == "box_ioa":
        return inter / (bw * bh)
    union = aw * ah + bw * bh - inter
    iou = inter / (union + iou_eps)
    hull_w, hull_h = extent(ax1.min(bx1), ax2.max(bx2)), extent(ay1.min(by1), ay2.max(by2))
    if op == "box_iou":
        return iou
    if op == "generalized_box_iou":
        return iou - (hull_w * hull_h - union) / (hull_w * hull_h + eps)
    distance = ((ax1 + ax2 - bx1 - bx2) / 2) ** 2 + ((ay1 + ay2 - by1 - by2) / 2) ** 2
    diou = iou - distance / (hull_w**2 + hull_h**2 + eps)
    if op == "distance_box_iou":
        return diou
    v = 4 / torch.pi**2 * (torch.atan2(bw, bh) - torch.atan2(aw, ah)) ** 2
    return diou - (v / (1 - iou + v + eps)).detach() * v


@pytest.mark.parametrize(
    ("shape1", "shape2", "options"),
    [
        ((5,), (6,), {}),
        ((6,), (6,), {"paired": True}),
        ((2, 3), (2, 4), {}),
        ((3,), (2, 4), {}),  # boxes1 broadcast
        ((2, 1, 3), (2, 4), {}),
        ((3, 1), (4,), {"paired": True}),
        ((4,), (3,), {"fmt": "cxcywh"}),
        ((), (3,), {"fmt": "xywh", "paired": True}),
    ],
)
@pytest.mark.parametrize("op", SMOOTH)
def test_gradcheck(device, op, shape1, shape2, options):
    gradcheck(lambda *boxes: getattr(boxops, op)(*boxes, **options), random_leaves(device, shape1, shape2))


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_as_torch_eager(device, op, name, paired):
    """Ties too: touching, identical and nested boxes have coordinates in common."""
    boxes = BOXES[name](np.random.default_rng(4), "float64")
    weight = torch.rand(1000, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
    gradients = []
    for function in (getattr(boxops, op), lambda *a, **k: eager(op, *a, **k)):
        boxes1, boxes2 = leaf(boxes, device), leaf(np.roll(boxes, 1, axis=0), device)
        out = function(boxes1, boxes2, paired=paired)
        weights = weight[0, : out.shape[0]] if paired else weight[: out.shape[0], : out.shape[1]]
        gradients.append(torch.autograd.grad((out * weights).sum(), [boxes1, boxes2]))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_gradient_has_the_dtype_of_the_boxes(device, op, dtype):
    boxes = [b.detach().to(dtype).requires_grad_() for b in random_leaves(device)]
    exact = [b.detach().double().requires_grad_() for b in boxes]
    got = torch.autograd.grad(getattr(boxops, op)(*boxes).sum(), boxes)
    want = torch.autograd.grad(getattr(boxops, op)(*exact).sum(), exact)
    for g, w in zip(got, want, strict=True):
        assert g.dtype == dtype
        torch.testing.assert_close(g.double(), w, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("op", cases.LOSSES)
def test_losses_as_torchvision(torchvision, op, reduction):
    gradients = []
    for module in (boxops, torchvision):
        boxes = random_leaves("cpu", (40,), (40,))
        loss = getattr(module, op)(*boxes, reduction)
        gradients.append(torch.autograd.grad(loss.sum(), boxes))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


CLAMP_STOPS = torch.ones((), requires_grad=True)
CLAMP_STOPS = torch.autograd.grad((CLAMP_STOPS - 1).clamp(min=0), CLAMP_STOPS)[0] == 0  # from torch 2.14 on


@pytest.mark.parametrize("op", [op for op in cases.LOSSES + cases.PAIRWISE if op != "box_ioa"])
def test_at_a_clamp_as_torchvision(torchvision, op):
    """Boxes that touch along an edge or in a corner, and ones with a side of length 0 inside, on the edge and apart."""
    if op in cases.PAIRWISE and not CLAMP_STOPS:
        pytest.skip("the rule is that of torch's clamp from 2.14 on")
    fixed = [[0, 0, 4, 3]] * 9
    moved = [[4, 0, 6, 3], [4, 1, 6, 2], [4, 3, 5, 5], [-2, -2, 0, 0], [1, 3, 2, 4], [1, 1, 1, 2], [4, 1, 4, 2],
             [6, 5, 7, 5], [2, 0, 3, 0]]  # fmt: skip
    gradients = []
    for module in (boxops, torchvision):
        boxes = leaf(fixed), leaf(moved)
        out = getattr(module, op)(*boxes)
        gradient = torch.autograd.grad((out if out.dim() == 1 else out.diagonal()).sum(), boxes)
        gradients.append(torch.stack(gradient))
    got, want = gradients
    defined = want.isfinite()  # atan(width / 0) has no gradient there
    assert got.isfinite().all() and defined[:, :7].all()
    torch.testing.assert_close(got[defined], want[defined], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_degenerate_boxes_have_finite_gradients(device, op):
    boxes = BOXES["degenerate"](np.random.default_rng(5), "float64")
    boxes1, boxes2 = leaf(boxes, device), leaf(boxes[::-1].copy(), device)
    for gradient in torch.autograd.grad(getattr(boxops, op)(boxes1, boxes2).sum(), [boxes1, boxes2]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("op", ["box_iou", "box_ioa"])
def test_a_nan_box_leaves_the_others_their_gradient(device, op):
    clean = random_boxes(np.random.default_rng(6), 8, 50.0, (20.0, 60.0))
    dirty = clean.copy()
    dirty[3, 1] = np.nan
    gradients = []
    for array, count in ((dirty, 8), (np.delete(clean, 3, axis=0), 7)):
        boxes, others = leaf(array, device), leaf(clean + 3, device)
        out = getattr(boxops, op)(boxes, others)
        gradients.append((torch.autograd.grad(out.sum(), [boxes, others]), count))
    (with_nan, _), (without, _) = gradients
    torch.testing.assert_close(with_nan[0][[0, 1, 2, 4, 5, 6, 7]], without[0])
    torch.testing.assert_close(with_nan[1], without[1])


@pytest.mark.parametrize("shape", [(0,), (3,)])
def test_empty(device, shape):
    boxes1, boxes2 = leaf(np.zeros((*shape, 4)), device), leaf(np.zeros((0, 4)), device)
    gradient1, gradient2 = torch.autograd.grad(boxops.box_iou(boxes1, boxes2).sum(), [boxes1, boxes2])
    assert gradient1.shape == boxes1.shape and not gradient1.any() and gradient2.shape == (0, 4)


def test_only_where_it_is_asked_for(device):
    boxes1, boxes2 = random_leaves(device)
    boxops.box_iou(boxes1, boxes2.detach()).sum().backward()
    assert boxes1.grad is not None and boxes2.grad is None
    assert not boxops.box_iou(boxes1.detach(), boxes2.detach()).requires_grad
    assert not boxops.nms(boxes1, boxes1[:, 0], 0.5).requires_grad


def test_strided_gradient_of_the_output(device):
    """The output's gradient arrives transposed, or expanded from one number."""
    for transform in (lambda x: x.T @ x.new_ones(5, 2), lambda x: x[::2].sum(), lambda x: x.sum()):
        gradients = []
        for function in (boxops.box_iou, lambda *boxes: eager("box_iou", *boxes)):
            boxes = random_leaves(device)
            gradients.append(torch.autograd.grad(transform(function(*boxes)).sum(), boxes))
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_no_second_derivative(device, op):
    boxes = random_leaves(device)
    gradient = torch.autograd.grad(getattr(boxops, op)(*boxes).sum(), boxes, create_graph=True)
    with pytest.raises(RuntimeError, match=r"^box_iou: expected one derivative at most"):
        gradient[0].sum().backward()


@pytest.mark.parametrize("op", ["box_area", "box_convert", "clip_boxes_to_image"])
def test_ops_on_one_set_of_boxes(device, op):
    options = {"box_area": {"fmt": "xywh"}, "box_convert": {"in_fmt": "xyxy", "out_fmt": "cxcywh"}}
    options["clip_boxes_to_image"] = {"size": (60, 40)}
    boxes, _ = random_leaves(device)
    gradcheck(lambda boxes: getattr(boxops, op)(boxes, **options[op]), [boxes])
