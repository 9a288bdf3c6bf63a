"""Presets: boxes, labels, masks and keypoints stay in step."""

import pytest

pytest.importorskip("torchvision")
import torch
from data_files import open_csv
from torchvision import tv_tensors

import boxops
from boxops.data import open_dataset, transforms

FLIP = [0, 3, 2, 1]


def shapes(transform=None, **options):
    return open_dataset("shapes", **{"length": 40, "size": 96, "transform": transform, **options})


def plain(tensor):
    return tensor.as_subclass(torch.Tensor)


def test_flip():
    data, mirrored = shapes(), shapes(transforms.Flip(FLIP, p=1.0))
    for i in range(8):
        (image, before), (flipped, after) = data[i], mirrored[i]
        assert torch.equal(image.flip(-1), flipped) and torch.equal(before["masks"].flip(-1), after["masks"])
        boxes = boxops.masks_to_boxes(plain(after["masks"])) + torch.tensor([0.0, 0, 1, 1])
        torch.testing.assert_close(boxes, plain(after["boxes"]))
        points = after["keypoints"]
        # Left stays left: the names follow the picture.
        assert (points[:, 3, 0] <= points[:, 1, 0]).all()
        torch.testing.assert_close(points[:, 0, 0], 95 - before["keypoints"][:, 0, 0])
        torch.testing.assert_close(points[:, 1, 1:], before["keypoints"][:, 3, 1:])


@pytest.mark.parametrize("preset", ["ssd", "yolo", "rcnn", "none"])
def test_presets_keep_objects_together(preset):
    """Every object is told by its mask: box and keypoints must still be on it."""
    lost = zoomed = hidden = 0
    data, raw = shapes(transforms.train(preset, keypoint_flip=FLIP)), shapes()
    for i, (image, target) in enumerate(data):
        height, width = image.shape[-2:]
        count = len(target["boxes"])
        assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
        assert {len(target[key]) for key in ("labels", "iscrowd", "area", "masks", "keypoints")} == {count}
        assert target["masks"].shape[1:] == (height, width) and target["masks"].dtype == torch.uint8
        boxes = plain(target["boxes"])
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2)).all()
        around = boxops.masks_to_boxes(plain(target["masks"])) + torch.tensor([0.0, 0, 1, 1])
        whole = target["masks"].sum((1, 2)) == target["area"]  # not cut: else the mask may fill less than its box
        slack = float(preset == "yolo")  # scaled, a mask has whole pixels and its box has not
        torch.testing.assert_close(around[whole], boxes[whole], atol=slack or 1e-5, rtol=0)
        assert (around[~whole, :2] >= boxes[~whole, :2] - slack).all()
        assert (around[~whole, 2:] <= boxes[~whole, 2:] + slack).all()
        points = target["keypoints"]
        gone = points[..., 2] == 0
        assert (points[gone] == 0).all()
        x, y, seen = points.long().unbind(-1)
        near = torch.nn.functional.max_pool2d(target["masks"].float(), 5, 1, 2) if slack else target["masks"]
        masks = zip(near, target["masks"], strict=True)
        on_mask = [torch.where(v == 2, n[b, a], m[b, a]) for (n, m), a, b, v in zip(masks, x, y, seen, strict=True)]
        on_mask = torch.stack(on_mask) if count else seen
        # A half in the middle of an edge falls on the other side in the mirror: a pixel beside the mask is near enough.
        assert ((on_mask + 1 == seen) | gone).float().mean() > 0.9
        before = raw[i][1]
        lost += len(before["boxes"]) - count
        zoomed += width > 96
        hidden += int(gone.sum())
        labels = {float(a): int(label) for a, label in zip(before["area"], before["labels"], strict=True)}
        if len(labels) == len(before["area"]):
            assert [labels[float(a)] for a in target["area"]] == target["labels"].tolist()
    assert (lost > 5, zoomed > 5) == (preset == "ssd",) * 2
    assert (hidden > 5) == (preset in ("ssd", "yolo"))


def test_size():
    assert shapes(transforms.train("ssd", 64))[0][0].shape == (3, 64, 64)
    assert shapes(transforms.train("rcnn", 64), size=(96, 128))[1][1]["masks"].shape[-2:].numel() >= 64 * 64
    image, target = shapes(transforms.train("none", (40, 80)))[0]
    assert image.shape == (3, 40, 80) and target["boxes"].canvas_size == (40, 80)


def test_evaluate_keeps_all():
    data = shapes()
    image, target = transforms.evaluate()(*data[0])
    torch.testing.assert_close(plain(image), plain(data[0][0]) / 255)
    assert len(target["boxes"]) == len(data[0][1]["boxes"])


def test_zoom_out_fills_masks_with_nothing():
    transform = transforms.train("ssd", keypoint_flip=FLIP)
    for _, target in shapes(transform, length=10):
        assert set(target["masks"].unique().tolist()) <= {0, 1}


def test_keypoint_outside_becomes_not_labelled():
    target = shapes(lambda image, target: (tv_tensors.Image(image[:, :50, :50]), target), length=8)[1][1]
    points = target["keypoints"]
    inside = points[..., 2] > 0
    assert 0 < inside.sum() < inside.numel()
    assert (points[inside][:, :2] < 50).all() and (points[~inside] == 0).all()


def test_tiny_images(tmp_path):
    from PIL import Image

    Image.new("RGB", (1, 2)).save(tmp_path / "tiny.png")
    data = open_csv(tmp_path, "tiny.png,cat,0,0,1,2\n", transform=transforms.train("ssd", 8))
    for epoch in range(30):
        data.set_epoch(epoch)
        assert data[0][0].shape == (3, 8, 8)


def test_vertical_flip():
    data = shapes(transforms.train("none", vertical_flip=False), keypoints=False)
    up = shapes(transforms.train("rcnn", vertical_flip=True), keypoints=False)
    assert any(torch.equal(data[i][0].flip(-2), up[i][0]) for i in range(20))
    with pytest.raises(ValueError, match="expected vertical_flip for data without keypoints"):
        transforms.train("rcnn", keypoint_flip=FLIP, vertical_flip=True)


def test_unknown_preset():
    with pytest.raises(
        ValueError, match=r"augment: expected names of rcnn, ssd, yolo, none, mosaic, colour, .* flip, got .detr."
    ):
        transforms.train("detr")
