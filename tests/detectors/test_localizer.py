"""Class and box of the one object of an image."""

import dataclasses

import numpy as np
import pytest
from scenes import torch

import boxops
from boxops import models
from boxops.data import open_dataset, transforms
from boxops.evaluation import evaluate
from boxops.models.backbones import OneLevel
from boxops.models.localizer import Localizer, Settings

SMALL = Settings(size=32, grid=4, channels=8, hidden=32)
nn = torch.nn


def tiny(settings=SMALL, std=0.3):
    """Of three classes, on a backbone of 4 x 4 cells; its boxes differ by that much from image to image."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 16, 2, 2), nn.ReLU())
    model = Localizer(OneLevel(body, 16), 4, settings)
    nn.init.normal_(model.head.box.weight, std=std)
    model.config = {"name": "tiny", "num_classes": 4}
    return model


def samples(count=6, seed=0):
    """A bright or a green rectangle on noise, in images of several sizes."""
    rng = np.random.default_rng(seed)
    images, targets = [], []
    for _ in range(count):
        width, height = rng.integers(40, 64, 2)
        w, h = rng.integers(14, 32, 2)
        x, y = rng.integers(0, width - w), rng.integers(0, height - h)
        image = torch.from_numpy(rng.random((3, height, width), np.float32)) * 0.3
        label = int(rng.integers(1, 3))
        image[:, y : y + h, x : x + w] += 0.7
        image[::2, y : y + h, x : x + w] -= 0.7 * (label == 2)
        images.append(image)
        targets.append({"boxes": torch.tensor([[x, y, x + w, y + h]]).float(), "labels": torch.tensor([label])})
    return images, targets


@pytest.mark.parametrize("weight", [1.0, 20.0])
def test_losses(weight):
    model = tiny(Settings(size=32, grid=4, channels=8, hidden=32, box_weight=weight)).train()
    images, targets = samples()
    losses = model(images, targets)
    logits, boxes = model.predict(model.transform(images)[0])
    squares = entropies = 0.0
    for image, target, row, box in zip(images, targets, logits, boxes, strict=True):
        height, width = image.shape[1:]
        x1, y1, x2, y2 = target["boxes"][0].tolist()
        wanted = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        squares += sum((value - own) ** 2 for value, own in zip(wanted, box, strict=True))
        entropies += row.exp().sum().log() - row[target["labels"][0] - 1]
    torch.testing.assert_close(losses["bbox_regression"], weight * squares / len(images))
    torch.testing.assert_close(losses["classification"], entropies / len(images))


def test_one_detection_an_image():
    model, (images, _) = tiny().eval(), samples(8)
    nn.init.constant_(model.head.box.bias[:2], 0.9)  # some stand out
    with torch.inference_mode():
        found = model(images)
        logits, boxes = model.predict(model.transform(images)[0])
    for i, (image, result) in enumerate(zip(images, found, strict=True)):
        height, width = image.shape[1:]
        x, y, w, h = (boxes[i] * torch.tensor([width, height] * 2)).tolist()
        corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        clipped = [min(max(value, 0), side) for value, side in zip(corners, [width, height] * 2, strict=True)]
        torch.testing.assert_close(result["boxes"], torch.tensor([clipped]), rtol=1e-4, atol=1e-3)
        assert result["labels"].tolist() == [int(logits[i].argmax()) + 1]
        torch.testing.assert_close(result["scores"], logits[i].softmax(0).max()[None])
    assert any(result["boxes"][0, 2] == image.shape[2] for image, result in zip(images, found, strict=True))


def test_a_box_of_negative_width_is_empty():
    model = tiny().eval()
    nn.init.zeros_(model.head.box.weight)
    model.head.box.bias.data = torch.tensor([0.5, 0.25, -0.1, 0.5])
    with torch.inference_mode():
        (found,) = model([torch.rand(3, 40, 80)])
    assert found["boxes"].tolist() == [[40, 0, 40, 20]]


def test_padded_compiles_and_exports():
    model, images = tiny().eval(), torch.rand(2, 3, 40, 60)
    padded = models.Padded(model)
    with torch.no_grad():
        expected = model(list(images))
        for run in (padded, torch.export.export(padded, (images,)).module()):
            found = run(images)
            assert found["counts"].tolist() == [1, 1] and found["boxes"].shape == (2, 1, 4)
            for b, result in enumerate(expected):
                for name in ("boxes", "scores", "labels"):
                    torch.testing.assert_close(found[name][b], result[name], rtol=0, atol=0)


@pytest.mark.parametrize(("boxes", "crowd", "count"), [([], [], 0), ([[1, 1, 9, 9]], [1], 0),
                                                       ([[1, 1, 9, 9], [2, 2, 8, 8]], [0, 0], 2)])  # fmt: skip
def test_images_without_exactly_one_object(boxes, crowd, count):
    images, targets = samples(3)
    boxes = torch.tensor(boxes).reshape(-1, 4).float()
    targets[1] = {"boxes": boxes, "labels": torch.ones(len(boxes)).long(), "iscrowd": torch.tensor(crowd).long()}
    with pytest.raises(ValueError, match="expected one object in each image") as raised:
        tiny().train()(images, targets)
    assert f"got {count} in image 1" in str(raised.value) and "one_object=true" in str(raised.value)


def test_a_crowd_beside_the_object_is_nothing():
    images, targets = samples(2)
    expected = tiny().train()(images, targets)
    box = torch.cat([torch.tensor([[0.0, 0, 9, 9]]), targets[1]["boxes"]])
    targets[1] = {"boxes": box, "labels": torch.tensor([3, int(targets[1]["labels"])]), "iscrowd": torch.tensor([1, 0])}
    assert tiny().train()(images, targets) == expected


def test_learns():
    model = tiny(dataclasses.replace(SMALL, hidden=64), std=0).train()
    images, targets = samples(320)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for step in range(200):
        some = range(16 * step % 320, 16 * step % 320 + 16)
        optimizer.zero_grad()
        sum(model([images[i] for i in some], [targets[i] for i in some]).values()).backward()
        optimizer.step()
        schedule.step()
    others, truth = samples(40, seed=1)
    with torch.inference_mode():
        found = model.eval()(others)
    boxes, expected = (torch.cat([row["boxes"] for row in rows]) for rows in (found, truth))
    labels, known = (torch.cat([row["labels"] for row in rows]) for rows in (found, truth))
    assert boxops.box_iou(boxes, expected, paired=True).mean() > 0.68  # 0.77 was seen
    assert (labels == known).float().mean() > 0.9


def test_its_own_metric():
    data = open_dataset("shapes", length=6, size=64, split="val", one_object=True, masks=False,
                        transform=transforms.evaluate())  # fmt: skip
    numbers = evaluate(tiny(), data)
    assert list(numbers)[:3] == ["LOC_correct", "LOC_accuracy", "LOC_IoU"]
    assert "box_AP" in evaluate(tiny(), data, metric="coco")


def test_builders(data):
    """AlexNet's file has its convolutions alone."""
    weights = {
        "localizer": data / "backbones" / "mobilenet_v2-b0353104.pth",
        "localizer_alexnet": data / "backbones" / "alexnet_features.pth",
    }
    for name, file in weights.items():
        model = models.create(name, 3, backbone_weights=file).eval()
        first = next(model.backbone.parameters())
        assert torch.equal(first, next(iter(torch.load(file, weights_only=True).values())))
        assert models.MODELS[model.config["name"]].needs == ("one_object",)
        with torch.inference_mode():
            assert model([torch.rand(3, 50, 60)])[0]["boxes"].shape == (1, 4)
