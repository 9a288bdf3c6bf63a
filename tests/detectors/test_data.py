"""What every data set does: samples, seeds, workers; and the generated shapes."""

import copy
import pickle

import numpy as np
import pytest

pytest.importorskip("torchvision")
import torch
from data_files import DATA, needs_data, open_csv
from torch.utils.data import DataLoader
from torchvision import tv_tensors

import boxops
from boxops.data import collate, open_dataset, segmentation, transforms


def shapes(**options):
    return open_dataset("shapes", **{"length": 12, "size": 96, **options})


def assert_same(first, second):
    torch.testing.assert_close(first[0].as_subclass(torch.Tensor), second[0].as_subclass(torch.Tensor), rtol=0, atol=0)
    assert first[1].keys() == second[1].keys()
    for key, value in first[1].items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(second[1][key]), key)


def test_sample():
    image, target = shapes()[3]
    count = len(target["boxes"])
    assert isinstance(image, tv_tensors.Image) and image.dtype == torch.uint8 and image.shape == (3, 96, 96)
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes) and target["boxes"].canvas_size == (96, 96)
    assert isinstance(target["masks"], tv_tensors.Mask) and target["image_id"] == 4
    expected = {"boxes": (torch.float32, 4), "labels": (torch.int64,), "iscrowd": (torch.int64,),
                "area": (torch.float32,), "masks": (torch.uint8, 96, 96),
                "keypoints": (torch.float32, 4, 3)}  # fmt: skip
    assert {k: (v.dtype, *v.shape[1:]) for k, v in target.items() if k != "image_id"} == expected
    assert {len(target[key]) for key in expected} == {count}


def test_no_objects(tmp_path):
    data = open_csv(tmp_path, "a.jpg,,,,,\nb.jpg,,,,,\n")
    for data.transform in (None, transforms.evaluate(), *(transforms.train(name, 32) for name in ("ssd", "rcnn"))):
        image, target = data[0]
        assert image.shape[0] == 3
        assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,) and target["area"].shape == (0,)
    assert data.coco()["annotations"] == []


def test_image_is_a_function_of_seed_split_and_index():
    first = shapes()
    assert_same(first[5], shapes(length=50, max_objects=6)[5])
    for other in (shapes(seed=1)[5], shapes(split="val")[5], first[6]):
        assert not torch.equal(first[5][0], other[0])
    assert first.image(5).tobytes() == first[5][0].permute(1, 2, 0).numpy().tobytes()


def test_shapes_agree_with_their_masks():
    hidden = apart = 0
    for image, target in shapes(length=40, size=(64, 128)):
        masks, boxes, points = (target[key] for key in ("masks", "boxes", "keypoints"))
        assert masks.sum(0).max() <= 1 and image.shape[1:] == masks.shape[1:]
        around = boxops.masks_to_boxes(masks.as_subclass(torch.Tensor))  # ends on the last pixel
        torch.testing.assert_close(around + torch.tensor([0.0, 0, 1, 1]), boxes.as_subclass(torch.Tensor))
        torch.testing.assert_close(masks.sum((1, 2)).float(), target["area"])
        x, y, seen = points.long().unbind(-1)
        on_mask = torch.stack([mask[b, a] for mask, a, b in zip(masks, x, y, strict=True)])
        torch.testing.assert_close(on_mask + 1, seen, check_dtype=False)
        assert (points[:, 0, 1] <= points[:, 2, 1]).all() and (points[:, 3, 0] <= points[:, 1, 0]).all()
        hidden += int((seen == 1).sum())
        for mask in masks.bool():  # a colour, but for the noise
            apart = max(apart, float(image[:, mask].float().std(1).max()))
    assert hidden > 10 and 1 < apart < 6


@pytest.mark.parametrize("visible", [0.4, 0.7])
def test_shapes_leave_their_share_visible(visible):
    shares = []
    for _, target in shapes(max_objects=15, size=128, visible=visible):
        _, right, bottom, left = target["keypoints"].unbind(1)
        top = target["keypoints"][:, 0]
        whole = np.pi / 4 * (right - left + 1)[:, 0] * (bottom - top + 1)[:, 1]
        shares += (target["area"] / whole)[target["labels"] == 1].tolist()  # of circles: the keypoints tell their area
    assert visible - 0.02 < min(shares) < visible + 0.2 and 0.95 < max(shares) < 1.05


def test_coco_of_shapes_second_opinion():
    pycocotools = pytest.importorskip("pycocotools.coco")
    data = shapes(length=6)
    truth = pycocotools.COCO()
    truth.dataset = data.coco()
    truth.createIndex()
    assert truth.getImgIds() == data.ids and min(truth.anns) == 1
    for index, image_id in enumerate(data.ids):
        target = data[index][1]
        own = truth.loadAnns(truth.getAnnIds([image_id]))
        np.testing.assert_array_equal([truth.annToMask(a) for a in own], target["masks"])
        np.testing.assert_array_equal([a["keypoints"] for a in own], target["keypoints"].reshape(len(own), -1))
        np.testing.assert_array_equal([a["category_id"] for a in own], target["labels"])
        boxes = np.array([a["bbox"] for a in own])
        np.testing.assert_array_equal(boxes[:, :2] + boxes[:, 2:], target["boxes"][:, 2:])


@pytest.mark.parametrize("preset", ["ssd", "rcnn"])
def test_any_number_of_workers_and_after_resume(preset):
    data = shapes(transform=transforms.train(preset, 64, [0, 3, 2, 1], vertical_flip=False))
    epochs = []
    for epoch in range(2):
        data.set_epoch(epoch)
        epochs.append([data[i] for i in range(len(data))])
    assert sum(torch.equal(a[0], b[0]) for a, b in zip(*epochs, strict=True)) < 9  # epochs differ
    loader = DataLoader(data, 1, num_workers=2, collate_fn=collate, persistent_workers=True)
    for epoch in range(2):
        data.set_epoch(epoch)  # after the workers' start
        for (images, targets, problems), sample in zip(loader, epochs[epoch], strict=True):
            assert_same((images[0], targets[0]), sample)
            assert type(targets[0]["boxes"]) is torch.Tensor and problems == []
    resumed = shapes(transform=data.transform)
    resumed.set_epoch(1)
    assert_same(resumed[7], epochs[1][7])


def test_random_state_outside_is_left_alone():
    data = shapes(transform=transforms.train("ssd", keypoint_flip=[0, 3, 2, 1]))
    before = torch.random.get_rng_state()
    data[0]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_copies():
    data = shapes(transform=transforms.train("ssd", 64, [0, 3, 2, 1]))
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert_same(data[2], other[2])


def test_index():
    data = shapes()
    assert_same(data[-1], data[11])
    assert len(list(data)) == 12
    with pytest.raises(IndexError):
        data[12]


@needs_data
def test_the_files_are_not_changed_by_transforms():
    data = open_dataset(
        "voc", DATA / "bccd", transform=lambda image, target: (image, {**target, "boxes": target["boxes"].mul_(2)})
    )
    assert torch.equal(data[0][1]["boxes"], data[0][1]["boxes"])


@pytest.mark.parametrize(("options", "text"), [
    ({"kind": "tfds"}, "expected a kind of shapes, coco, voc, yolo, csv or auto, got 'tfds'"),
    ({"on_bad": "ignore"}, "on_bad: expected 'skip' or 'raise', got 'ignore'"),
    ({"seed": -1}, "seed: expected an integer of 0 or more, got -1"),
    ({"length": 0}, "expected length and max_objects of 1 or more, got 0, 6"),
    ({"size": 20}, "of 48 or more, got 20"),
    ({"size": (96, 64)}, "of 48 or more, got"),
    ({"root": "x"}, "expected no root"),
])  # fmt: skip
def test_options(options, text):
    with pytest.raises(ValueError, match="expected") as raised:
        open_dataset(**{"kind": "shapes", **options})
    assert text in str(raised.value)


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_round_trip(seed):
    mask = (np.random.default_rng(seed).random((9, 7)) < 0.2 * seed).astype(np.uint8)
    rle = segmentation.encode(mask)
    segmentation.check(rle, 9, 7)
    np.testing.assert_array_equal(segmentation.decode(rle, 9, 7), mask)
    np.testing.assert_array_equal(
        segmentation.decode({**rle, "counts": segmentation._uncompress(rle["counts"])}, 9, 7), mask
    )
