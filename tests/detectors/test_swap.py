"""patch_torchvision: torchvision's functions give the same on boxops' kernels, and come back when it is undone."""

import pytest
from scenes import torch, torchvision
from swap_calls import FUNCTIONS, counting

import boxops
from boxops import swap

detection, ops = torchvision.models.detection, torchvision.ops


@pytest.fixture(autouse=True)
def restored():
    before = held()
    yield
    assert held() == before


def held():
    """What torchvision holds at every place that the patch touches."""
    return [getattr(owner, name) for row in swap.TABLE for owner, name, *_ in swap._places(*row)]


BOXES = torch.tensor([[10.0, 10, 30, 40], [12, 12, 33, 41], [50, 5, 70, 66], [1, 1, 1.5, 9], [-5, -5, 90, 90]])
SCORES = torch.tensor([0.5, 0.9, 0.3, 0.7, 0.2])
FEATURES = torch.linspace(0, 1, 8 * 20 * 30).sin().reshape(1, 8, 20, 30)
MASKS = torch.arange(3 * 20 * 20).reshape(3, 20, 20) % 7 == 0
CALLS = {
    "nms": (BOXES, SCORES, 0.5),
    "batched_nms": (BOXES, SCORES, torch.tensor([1, 1, 0, 0, 1]), 0.5),
    "box_area": (BOXES,),
    "box_convert": (BOXES, "xyxy", "cxcywh"),
    "clip_boxes_to_image": (BOXES, (60, 50)),
    "remove_small_boxes": (BOXES, 2.0),
    "masks_to_boxes": (MASKS,),
    "box_iou": (BOXES, BOXES[:2].double()),
    "generalized_box_iou": (BOXES, BOXES[:2]),
    "distance_box_iou": (BOXES, BOXES[:2]),
    "complete_box_iou": (BOXES, BOXES[:2]),
    "generalized_box_iou_loss": (BOXES, BOXES.flip(0)),
    "distance_box_iou_loss": (BOXES, BOXES.flip(0)),
    "complete_box_iou_loss": (BOXES, BOXES.flip(0)),
    "roi_align": (FEATURES, [BOXES], 3, 0.5, 2),
    "roi_pool": (FEATURES, [BOXES], 3, 0.5),
    "ps_roi_align": (FEATURES, [BOXES], 2, 0.5, 2),
    "ps_roi_pool": (FEATURES, [BOXES], 2, 0.5),
}


def test_all_functions_have_a_call():
    assert CALLS.keys() == FUNCTIONS


@pytest.mark.parametrize("name", CALLS)
def test_functions(name, monkeypatch):
    counts = counting(monkeypatch)
    expected = getattr(ops, name)(*CALLS[name])
    assert not counts
    with swap.patch_torchvision():
        result = getattr(ops, name)(*CALLS[name])
    assert counts[name] == 1
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sides", [(40,), (40, 20, 10), (40, 40), (40, 10)])
def test_pooler(sides):
    """Also of one level, of two of one scale (MobileNetV3), and with a level left out."""
    features = {str(i): torch.rand(2, 3, side, side) for i, side in enumerate(sides)}
    corners = torch.rand(2, 30, 2, 2).sort(dim=2).values * 160
    boxes = list(corners.flatten(2))
    pooler, patched = (ops.MultiScaleRoIAlign([*features], 3, 2, canonical_scale=60) for _ in range(2))
    expected = pooler(features, boxes, [(160, 150), (140, 160)])
    with swap.patch_torchvision():
        result = patched(features, boxes, [(160, 150), (140, 160)])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_rotated_formats_stay_torchvisions():
    rotated = torch.tensor([[20.0, 20, 10, 5, 30], [22, 21, 10, 5, 60]])
    expected = ops.box_convert(rotated, "cxcywhr", "xywhr"), ops.box_iou(rotated, rotated, "cxcywhr")
    with swap.patch_torchvision():
        result = ops.box_convert(rotated, "cxcywhr", "xywhr"), ops.box_iou(rotated, rotated, "cxcywhr")
    torch.testing.assert_close(result, expected)


def test_undo():
    own = held()
    undo = boxops.patch_torchvision()
    assert ops.nms is ops.boxes.nms is boxops.nms and detection.rpn.box_ops.nms is boxops.nms
    assert detection.fcos.generalized_box_iou_loss is boxops.generalized_box_iou_loss
    assert detection.transform.paste_masks_in_image is swap.steps.paste_masks_in_image
    undo()
    assert held() == own
    undo()  # a second call does nothing
    assert held() == own and ops.nms is not boxops.nms


def test_nested():
    undo = swap.patch_torchvision()
    with swap.patch_torchvision() as inner:
        inner()
        assert ops.nms is boxops.nms
    assert ops.nms is boxops.nms
    with swap.patch_torchvision():
        undo()  # the outer one first
        assert ops.nms is boxops.nms
    assert ops.nms is not boxops.nms


def test_exception():
    with pytest.raises(ZeroDivisionError), swap.patch_torchvision():
        assert ops.nms is boxops.nms
        raise ZeroDivisionError
    assert ops.nms is not boxops.nms


def test_another_torchvision(monkeypatch):
    monkeypatch.setattr(swap, "TABLE", [*swap.TABLE, ("torchvision.ops.boxes", "box_magic", boxops.nms)])
    with pytest.raises(RuntimeError, match=r"expected torchvision.ops.boxes.box_magic in torchvision, got .* without"):
        swap.patch_torchvision()
    assert ops.nms is not boxops.nms
    monkeypatch.undo()
    with swap.patch_torchvision():
        assert ops.nms is boxops.nms
