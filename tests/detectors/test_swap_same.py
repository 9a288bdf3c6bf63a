"""Under patch_torchvision nothing changes but speed: values, dtypes, gradients and errors of the functions."""

import itertools

import pytest
from scenes import torch, torchvision

import boxops

ops, tv_tensors = torchvision.ops, pytest.importorskip("torchvision.tv_tensors")
BOXES = torch.tensor([[10.0, 10, 30, 40], [12, 12, 33, 41], [50, 5, 70, 66], [1, 1, 1.5, 9], [-5, -5, 90, 90]])
OTHERS = BOXES.flip(0) + torch.linspace(0.1, 1.9, 20).view(5, 4)
SCORES = torch.tensor([0.5, 0.9, 0.3, 0.7, 0.2])
NAN, INF = float("nan"), float("inf")
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.uint8]

# NaN and infinity spoil the offsets by which torchvision keeps groups apart, overflow its IoU; its CPU kernel
# has no other dtypes.
NMS_DIFFERS = {"nan", "inf", "huge", *map(str, DTYPES[2:])}


def odd():
    """Boxes that the guards must see, by name."""
    changed = {
        "regular": BOXES,
        "inverted": BOXES[:, [2, 1, 0, 3]],
        "inverted twice": BOXES[:, [2, 3, 0, 1]],
        "one inverted": torch.where(torch.arange(5)[:, None] == 2, BOXES[:, [0, 3, 2, 1]], BOXES),
        "flat": BOXES[:, [0, 1, 0, 3]],
        "nan": torch.where(torch.arange(20).view(5, 4) == 9, NAN, BOXES),
        "inf": torch.where(torch.arange(20).view(5, 4) == 10, INF, BOXES),
        "huge": BOXES * 1e30,
        "whole": BOXES.round(),
        "none": BOXES[:0],
        "nothing": BOXES[:0, 0],
        "one": BOXES[0],
        "five": torch.cat([BOXES, BOXES[:, :1]], 1),
        "three": BOXES[:, :3],
        "strided": torch.cat([BOXES, BOXES], 1)[:, ::2].repeat(1, 2)[:, :4],
        "transposed": BOXES.t().contiguous().t(),
        "deep": torch.stack([BOXES, OTHERS]),
        "subclass": tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(60, 60)),
        "parameter": torch.nn.Parameter(BOXES.clone()),
        "list": BOXES.tolist(),
    }
    return changed | {str(dtype): (BOXES.abs() * 1.25).to(dtype) for dtype in DTYPES}


def single():
    """(words, function, arguments) of calls with one set of boxes."""
    for name, boxes in odd().items():
        yield f"box_area {name}", ops.box_area, (boxes,)
        for fmt, other in itertools.product(("xyxy", "xywh", "cxcywh"), repeat=2):
            yield f"box_convert {name} {fmt} {other}", ops.box_convert, (boxes, fmt, other)
        yield f"box_convert {name}", ops.box_convert, (boxes, "xyxy", "yxyx")
        for size in ((60, 50), (60.5, 49.25), (0, 0), (-1, 5), (NAN, 5), (60,), None, torch.tensor([60, 50]), [60, 50]):
            yield f"clip {name} {size}", ops.clip_boxes_to_image, (boxes, size)
        for least in (2.0, 20, -1, NAN, INF, torch.tensor(2.0)):
            yield f"remove {name} {least}", ops.remove_small_boxes, (boxes, least)
        if name in NMS_DIFFERS:
            continue
        for ids in (torch.tensor([1, 1, 0, 0, 1]), torch.tensor([1, 1, 0, 0, 1.0]), torch.tensor([1, 1, 0, 0, 1]) > 0):
            for threshold in (0.5, 0, 1, torch.tensor(0.5)):
                words = f"batched_nms {name} {ids.dtype} {threshold}"
                scores = SCORES.to(boxes.dtype) if isinstance(boxes, torch.Tensor) else SCORES
                yield words, ops.batched_nms, (boxes, scores, ids, threshold)
        yield f"batched_nms {name}", ops.batched_nms, (boxes, None, None, 0.5)


def pairs():
    """(words, function, arguments) of calls with two sets."""
    sets = odd()
    twos = [(name, boxes, OTHERS) for name, boxes in sets.items()]
    twos += [(f"{name} itself", boxes, boxes) for name, boxes in sets.items()]
    twos += [(f"{a} {b}", OTHERS.abs().to(a), BOXES.abs().to(b)) for a, b in itertools.product(DTYPES, repeat=2)]
    for name, boxes, others in twos:
        for fmt in ("xyxy", "xywh", "cxcywh", "yxyx"):
            yield f"box_iou {name} {fmt}", ops.box_iou, (boxes, others, fmt)
        for measure in ("generalized_box_iou", "distance_box_iou", "complete_box_iou"):
            yield f"{measure} {name}", getattr(ops, measure), (boxes, others)
            yield f"{measure} {name}, many", getattr(ops, measure), (boxes, others[:3])
            for reduction in ("none", "mean", "sum", "product"):
                yield f"{measure} loss {name} {reduction}", getattr(ops, f"{measure}_loss"), (boxes, others, reduction)
            yield f"{measure} loss {name} eps", getattr(ops, f"{measure}_loss"), (boxes, others, "none", 0.1)


def masks():
    some = torch.arange(3 * 20 * 20).reshape(3, 20, 20) % 7
    for dtype in (torch.bool, torch.uint8, torch.float32, torch.int64):
        yield f"masks_to_boxes {dtype}", ops.masks_to_boxes, (some.to(dtype),)
    for wrong in (some[:0], some[:, :0], some[0], some.float() * NAN):
        yield f"masks_to_boxes {[*wrong.shape]}", ops.masks_to_boxes, (wrong,)
    for size in ((1, 3, 20, 20), (2, 3, 20, 20)):  # of no pixels, torchvision crashes
        features = torch.linspace(0, 1, 3 * 20 * 20 * size[0]).sin()[: torch.Size(size).numel()].view(size)
        # fmt: off
        lists = [[BOXES / 5], [BOXES / 5, OTHERS / 5], [BOXES / 5, BOXES[:0]], [], [BOXES[:0]], [BOXES[0]],
                 [BOXES.double()], torch.cat([BOXES[:, :1] * 0, BOXES], 1), BOXES, [BOXES[:, [2, 1, 0, 3]]]]
        # fmt: on
        for number, boxes in enumerate(lists):
            if not isinstance(boxes, list) or len(boxes) <= size[0]:  # torchvision reads beyond the images' memory
                yield f"roi_align {size} {number}", ops.roi_align, (features, boxes, 3, 0.5, 2)
                yield f"roi_pool {size} {number}", ops.roi_pool, (features, boxes, 3, 0.5)


CALLS = {"one set": single, "two sets": pairs, "masks and RoIs": masks}


def outcome(function, args):
    """The result, or the kind of error, and whether it has a gradient."""
    try:
        result = function(*args)
    except Exception as error:
        return type(error)
    assert type(result) is torch.Tensor or isinstance(result, tv_tensors.TVTensor)
    return result


@pytest.mark.parametrize("kind", CALLS)
def test_values_dtypes_and_errors(kind):
    calls = list(CALLS[kind]())
    expected = [outcome(function, args) for _, function, args in calls]
    with boxops.patch_torchvision():
        results = [outcome(function, args) for _, function, args in calls]
    assert len([some for some in expected if isinstance(some, torch.Tensor)]) > 20
    wrong = []
    for (words, _, _), result, other in zip(calls, results, expected, strict=True):
        if not isinstance(other, torch.Tensor) or not isinstance(result, torch.Tensor):
            same = result is other
        else:
            same = type(result) is type(other) and result.requires_grad == other.requires_grad
            same &= result.dtype == other.dtype and result.shape == other.shape
            same = same and torch.allclose(result, other, rtol=1e-5, atol=1e-5, equal_nan=True)
        if not same:
            wrong.append((words, result, other))
    assert not wrong, "\n".join(map(str, wrong[:20]))


def with_gradients(function, sets, rest):
    leaves = [boxes.clone().requires_grad_() for boxes in sets]
    result = function(*leaves, *rest)
    first = torch.autograd.grad(result.sum(), leaves)
    return result.detach(), *first


GRADIENTS = [
    (ops.box_area, 1, ()),
    (ops.box_convert, 1, ("xyxy", "cxcywh")),
    (ops.clip_boxes_to_image, 1, ((60, 50),)),
    (ops.box_iou, 2, ()),
    (ops.generalized_box_iou, 2, ()),
    (ops.distance_box_iou, 2, ()),
    (ops.complete_box_iou, 2, ()),
    (ops.generalized_box_iou_loss, 2, ("sum",)),
    (ops.distance_box_iou_loss, 2, ("mean",)),
    (ops.complete_box_iou_loss, 2, ()),
]


@pytest.mark.parametrize("function, count, rest", GRADIENTS, ids=lambda value: getattr(value, "__name__", ""))
def test_gradients(function, count, rest):
    """Also where sides fall together, boxes lie on the border, or are inverted or flat."""
    sets = [(BOXES, OTHERS), (BOXES, BOXES), (BOXES.round(), OTHERS.round()), (BOXES[:, [2, 1, 0, 3]], OTHERS)]
    sets += [(BOXES[:, [0, 1, 0, 3]], OTHERS), (BOXES[:, [0, 1, 0, 1]], OTHERS), (OTHERS, BOXES[:, [0, 1, 2, 1]])]
    sets += [(BOXES, BOXES[:, [2, 1, 0, 3]] + 20), (BOXES.clamp(0, 50), OTHERS.double())]
    for some in sets:
        if count == 2 and "loss" in function.__name__ and some[0].dtype != some[1].dtype:
            continue  # torchvision's raise
        expected = with_gradients(function, some[:count], rest)
        with boxops.patch_torchvision():
            result = with_gradients(function, some[:count], rest)
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", ["generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"])
def test_second_derivatives_of_losses(name):
    def second():
        boxes = BOXES.double().requires_grad_()
        loss = getattr(ops, name)(boxes, OTHERS.double(), "sum")
        (slope,) = torch.autograd.grad(loss, boxes, create_graph=True)
        return loss.detach(), slope.detach(), torch.autograd.grad(slope.pow(2).sum(), boxes)[0]

    expected = second()
    with boxops.patch_torchvision():
        torch.testing.assert_close(second(), expected)
