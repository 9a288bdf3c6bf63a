"""The sliding window: what it sees, where, and that the dense evaluation is the naive one."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import torch, torchvision

from boxops import models
from boxops.models import backbones, sliding_window

nn = torch.nn
WINDOW, STRIDE = 21, 4  # of the tiny network


def tiny(classes=3, seed=0, **options):
    """Without dropout, so that training gives what evaluation gives."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 3), nn.ReLU())
    numbers = {"min_size": 30, "max_size": 60, "sizes": (15, 24), "aspect_ratios": (0.5, 1, 2), "head_size": 2,
               "hidden": 16, "dropout": 0.0, "naive_batch": 50, **options}  # fmt: skip
    return models.SlidingWindow(backbones.OneLevel(layers, 8), classes, sliding_window.Settings(**numbers))


def both(model, images):
    """The detections of the dense and of the naive evaluation."""
    found = []
    for evaluation in ("dense", "naive"):
        model.settings = replace(model.settings, evaluation=evaluation)
        with torch.no_grad():
            found.append(model.eval()(images))
    return found


SIDES = st.integers(1, 70)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=2),
    st.lists(st.floats(12, 80), min_size=1, max_size=2),
    st.lists(st.floats(0.3, 3), min_size=1, max_size=2),
    st.integers(0, 100),
)
def test_dense_is_naive(shapes, sizes, ratios, seed):
    """In float64, so that no score comes to lie on the other side of a threshold or of another score."""
    model = tiny(seed=seed, sizes=sizes, aspect_ratios=ratios, score_thresh=0.0).double()
    for dense, naive in zip(*both(model, [torch.rand(3, *shape).double() for shape in shapes]), strict=True):
        assert dense.keys() == naive.keys()
        for name, values in dense.items():
            assert torch.equal(values, naive[name]), name
        assert len(dense["boxes"]) > 0


def test_a_batch_is_its_images():
    """Smaller images are padded in a batch, and have fewer windows."""
    model = tiny(score_thresh=0.0, detections_per_img=1000).double().eval()
    images = [torch.rand(3, *shape).double() for shape in ((30, 30), (30, 55), (44, 30))]
    with torch.no_grad():
        found, alone = model(images), [model([image])[0] for image in images]
    for image, result, expected in zip(images, found, alone, strict=True):
        assert all(torch.equal(values, expected[name]) for name, values in result.items())
        assert len(result["boxes"]) > 10
        assert (result["boxes"] <= torch.tensor([image.shape[2], image.shape[1]] * 2)).all()


@pytest.mark.parametrize(("side", "windows"), [(WINDOW, 1), (WINDOW + 1, 4), (WINDOW + STRIDE, 4), (5, 1)])
def test_an_image_of_one_window(side, windows):
    """And of a pixel more, of a stride more, and of less than a window: that one is filled up, and its box clipped."""
    model = tiny(sizes=(WINDOW,), aspect_ratios=(1,), min_size=side, max_size=side, score_thresh=0.0)
    image = torch.rand(3, side, side)
    boxes = model.windows((side, side), image)
    assert len(boxes) == len(model.logits(image)) == windows
    torch.testing.assert_close(boxes[0], torch.tensor([0, 0, min(side, WINDOW), min(side, WINDOW)]).float())
    assert boxes.max() == side  # to the last pixel
    dense, naive = both(model, [image])
    torch.testing.assert_close(dense, naive)
    assert 0 < len(dense[0]["boxes"]) <= 2 * windows


def counted(length):
    """Places of windows along a side, until the last pixel is seen."""
    places = [0]
    while places[-1] + WINDOW < length:
        places.append(places[-1] + STRIDE)
    return len(places)


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, st.floats(5, 90), st.floats(0.3, 3))
def test_number_of_windows(height, width, size, ratio):
    model = tiny(sizes=(size, WINDOW), aspect_ratios=(ratio, 1))
    expected = 0
    for side in (size, WINDOW):
        for high_over_wide in (ratio, 1):
            high, wide = side * high_over_wide**0.5, side / high_over_wide**0.5
            resized = [max(1, round(height * WINDOW / high)), max(1, round(width * WINDOW / wide))]
            expected += counted(resized[0]) * counted(resized[1])
    windows = model.windows((height, width), torch.zeros(0))
    assert len(windows) == expected == len(model.logits(torch.zeros(3, height, width)))
    assert (windows >= 0).all() and (windows <= torch.tensor([width, height] * 2)).all()


def seen(model, image, windows):
    """The boxes of the pixels that windows' logits depend on; a ReLU or a maximum may hide some in one image."""
    total = torch.zeros(len(windows), *image.shape[1:])
    for _ in range(8):
        pixels = torch.rand_like(image).requires_grad_()
        logits = model.logits(pixels)
        for k, at in enumerate(windows):
            (gradient,) = torch.autograd.grad(logits[at].sum(), pixels, retain_graph=True)
            total[k] += gradient.abs().sum(dim=0)
    return torchvision.ops.masks_to_boxes(total > 0) + torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize("ratio", [0.5, 1, 2])
@pytest.mark.parametrize("size", [12, WINDOW, 33])
def test_a_window_is_what_its_logits_depend_on(size, ratio):
    model, image = tiny(sizes=(size,), aspect_ratios=(ratio,)), torch.zeros(3, 50, 60)
    boxes = model.windows((50, 60), image)
    # Of an image as it is, to the pixel; of a resized one, pixels are mixed with the next ones, those of a smaller one
    # with as many as become one.
    most = 0 if (size, ratio) == (WINDOW, 1) else 1 + size / WINDOW * max(ratio, 1 / ratio) ** 0.5
    some = [0, len(boxes) // 3, len(boxes) - 1]
    assert (seen(model, image, some) - boxes[some]).abs().max() <= most
    assert (boxes[0, 3] - boxes[0, 1]) / (boxes[0, 2] - boxes[0, 0]) == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize(("convs", "cells", "side"), [(3, 1, 99), (3, 3, 131), (4, 1, 131), (5, 1, 163)])
def test_alexnets_windows(convs, cells, side):
    with torch.device("meta"):
        model = models.create("sliding_window", 2, convs=convs, head_size=cells).eval()
    assert (model.window, model.stride) == (side, 16)
    for beyond, places in ((-1, None), (0, 1), (15, 1), (16, 2)):
        image = torch.empty(1, 3, side, side + beyond, device="meta")
        if places is None:
            with pytest.raises(RuntimeError):
                model.classify(image)
        else:
            assert model.classify(image).shape == (1, 2, 1, places)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=4)
)
def test_receptive_field(numbers):
    kinds = {True: lambda *of: nn.Conv2d(1, 1, *of, device="meta"), False: nn.MaxPool2d}
    layers = nn.Sequential(*(kinds[conv](kernel, stride, 0, dilation) for conv, kernel, stride, dilation in numbers))
    window, stride = sliding_window.receptive_field(layers)
    for side, cells in ((window, 1), (window + stride - 1, 1), (window + stride, 2)):
        assert layers(torch.empty(1, 1, side, side, device="meta")).shape[2:] == (cells, cells)
    if window > 1:
        with pytest.raises(RuntimeError):
            layers(torch.empty(1, 1, window - 1, window - 1, device="meta"))


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(3, 4, (3, 1))]
)
def test_layers_whose_crops_are_not_the_image(layer):
    with pytest.raises(ValueError, match=r"expected square layers without padding, got (Conv2d|MaxPool2d)\("):
        models.SlidingWindow(backbones.OneLevel(nn.Sequential(layer), 4), 2)


@pytest.mark.parametrize(("name", "value"), [("evaluation", "slow"), ("sizes", ()), ("aspect_ratios", (1, -1))])
def test_settings(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got "):
        sliding_window.Settings(**{name: value})


def test_loss():
    """With all windows in the sample: those at IoU >= 0.6 are the object's class, below 0.4 background."""
    model = tiny(batch_size_per_image=1000, positive_fraction=1.0, min_size=40, max_size=40).train()
    images = [torch.rand(3, 40, 40), torch.rand(3, 30, 40), torch.rand(3, 40, 25)]  # none is resized but the second
    targets = [
        {"boxes": torch.tensor([[3.0, 4, 25, 26], [20, 22, 35, 37]]), "labels": torch.tensor([2, 1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
        {"boxes": torch.tensor([[0.0, 0, 12, 24], [0, 20, 25, 40]]), "labels": torch.tensor([1, 2]),
         "iscrowd": torch.tensor([0, 1])},
    ]  # fmt: skip
    loss = model(images, targets)["loss_classifier"]
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    batch, resized = model.transform(images, targets)
    losses, positives = [], 0
    for image, size, target in zip(batch.tensors, batch.image_sizes, resized, strict=True):
        image = image[:, : size[0], : size[1]]
        windows = model.windows(size, image)
        crowd = target.get("iscrowd", torch.zeros(len(target["labels"]))).bool()
        ious = torchvision.ops.box_iou(windows, target["boxes"][~crowd])
        best, at = ious.max(dim=1) if ious.numel() else (torch.zeros(len(windows)), None)
        labels = torch.where(best >= 0.6, target["labels"][~crowd][at] if at is not None else 0, 0)
        used = (best >= 0.6) | (best < 0.4)
        for box in target["boxes"][crowd]:  # most of the window lies in it
            corners = torch.cat([windows[:, :2].maximum(box[:2]), windows[:, 2:].minimum(box[2:])], dim=1)
            inside = (corners[:, 2:] - corners[:, :2]).clamp(min=0).prod(dim=1)
            used &= (best >= 0.6) | (inside <= 0.5 * torchvision.ops.box_area(windows))
        positives += int((labels > 0).sum())
        losses.append(nn.functional.cross_entropy(model.logits(image)[used], labels[used], reduction="none"))
    expected = torch.cat(losses).mean()
    assert positives > 4 and len(torch.cat(losses)) > 100
    torch.testing.assert_close(loss, expected)
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=lambda text, n=name: f"{n}: {text}")


def test_sample():
    """Few of the windows, a quarter of them positive; the network sees no others."""
    model = tiny(batch_size_per_image=8, min_size=40, max_size=40).train()
    sizes = []
    model.head.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape))
    target = {"boxes": torch.tensor([[3.0, 4, 27, 28]]), "labels": torch.tensor([2])}
    model([torch.rand(3, 40, 40)] * 2, [target] * 2)
    assert [size[0] for size in sizes] == [16]


def test_learns():
    """Bright squares on noise, their colour the class."""

    def scene():
        image = 0.4 * torch.rand(3, 48, 48, generator=generator)
        label, side = (int(torch.randint(*limits, (), generator=generator)) for limits in ((1, 3), (20, 29)))
        x, y = torch.randint(0, 48 - side, (2,), generator=generator).tolist()
        image[label, y : y + side, x : x + side] += 0.6
        return image, {"boxes": torch.tensor([[x, y, x + side, y + side]]).float(), "labels": torch.tensor([label])}

    generator = torch.Generator().manual_seed(0)
    model = tiny(min_size=48, max_size=48, sizes=(24,), aspect_ratios=(1,), bg_iou_thresh=0.5).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        (loss,) = model(*zip(*(scene() for _ in range(4)), strict=True)).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right, model = 0, model.eval()
    for _ in range(20):
        image, target = scene()
        with torch.no_grad():
            (found,) = model([image])
        iou = torchvision.ops.box_iou(found["boxes"][:1], target["boxes"])
        right += bool(len(iou) and iou > 0.5 and found["labels"][0] == target["labels"])
    assert right >= 16  # 20 were seen with 4 seeds; without the class it would be 10
