"""Mixup and mosaic: pictures and objects stay in step."""

import re

import pytest

pytest.importorskip("torchvision")
import torch
from commands import QUICK
from data_files import open_csv
from torchvision import tv_tensors

import boxops
from boxops.cli import main
from boxops.data import open_dataset, transforms
from boxops.data.mixing import MEAN, Mixup, Mosaic, joined, window
from boxops.training.checkpoint import load, save

GREY = torch.tensor(MEAN)[:, None, None]


def shapes(*mixing, **options):
    data = open_dataset("shapes", **{"length": 24, "size": (48, 96), **options})
    data.mixing = mixing
    return data


def plain(tensor):
    return tensor.as_subclass(torch.Tensor)


def assert_together(image, target):
    """Every object is told by its mask: box and keypoints must still be on it. Returns how many are cut off."""
    count, (height, width) = len(target["boxes"]), image.shape[-2:]
    assert {len(target[key]) for key in ("labels", "iscrowd", "area", "masks", "keypoints")} == {count}
    assert image.dtype == torch.uint8 and target["masks"].shape[1:] == (height, width)
    assert target["boxes"].canvas_size == (height, width)
    boxes, around = plain(target["boxes"]), boxops.masks_to_boxes(plain(target["masks"])) + torch.tensor([0.0, 0, 1, 1])
    whole = target["masks"].sum((1, 2)) == target["area"]
    torch.testing.assert_close(around[whole], boxes[whole])
    assert (around[~whole, :2] >= boxes[~whole, :2]).all() and (around[~whole, 2:] <= boxes[~whole, 2:]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
    for mask, points in zip(target["masks"], target["keypoints"], strict=True):
        x, y, seen = points.long().unbind(-1)
        assert (mask[y, x][seen == 2] == 1).all()
    return int((~whole).sum())


def test_mixup():
    samples, data, found = [*shapes(length=16)], shapes(Mixup(1.0), length=16), []
    for (first, own), (image, target) in zip(samples, data, strict=True):
        assert_together(image, target)
        own_count = len(own["labels"])
        weights, (height, width) = target["weights"], first.shape[-2:]
        share = float(weights[0])
        assert weights.dtype == torch.float32 and (weights[:own_count] == weights[0]).all()
        torch.testing.assert_close(weights[own_count:], 1 - weights[:1].expand(len(weights) - own_count))
        torch.testing.assert_close(plain(target["boxes"])[:own_count], plain(own["boxes"]))
        # The other image is what is left, and is one of the data's
        rest = image[:, :height, :width].float() - share * first
        canvases = []
        for other, some in samples:
            high, wide = other.shape[-2:]
            same = torch.equal(some["labels"], target["labels"][own_count:])
            if same and image.shape[-2:] == (max(height, high), max(width, wide)):
                canvases.append(torch.zeros(3, *image.shape[-2:]) + GREY)
                canvases[-1][:, :high, :wide] = other
        assert any((rest - (1 - share) * canvas[:, :height, :width]).abs().max() <= 0.51 for canvas in canvases)
        assert target["image_id"] == own["image_id"]
        found.append(share)
    assert min(found) < 0.3 and max(found) > 0.7


def test_lambda_is_of_a_beta_distribution():
    torch.manual_seed(0)
    sample = shapes(masks=False, keypoints=False)[0]
    shares = torch.tensor([float(Mixup(1.5)(sample, lambda: sample)[1]["weights"][0]) for _ in range(200)])
    assert abs(shares.mean() - 0.5) < 0.06
    assert abs(shares.var() - 1 / (4 * (2 * 1.5 + 1))) < 0.015  # Beta(a, a)
    for alpha in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="mixup: expected a number above 0, got"):
            Mixup(alpha)


def test_mosaic():
    raw, data, cut, counts = shapes(), shapes(Mosaic()), 0, []
    for i, (image, target) in enumerate(data):
        assert image.shape == raw[i][0].shape and "weights" not in target
        cut += assert_together(image, target)
        counts.append(len(target["labels"]))
    assert cut > 5 and sum(counts) > 1.2 * sum(len(target["labels"]) for _, target in raw)


def test_mosaics_quarters():
    """Of four plain images, each with an object in its middle, of which the window has the centre or nothing."""
    samples = []
    for value, side in ((10, 40), (20, 24), (30, 60), (40, 8)):
        box = [side * 0.3, side * 0.3, side * 0.7, side * 0.7]
        boxes = tv_tensors.BoundingBoxes(torch.tensor([box]), format="XYXY", canvas_size=(side, side))
        image = tv_tensors.Image(torch.full((3, side, side), value, dtype=torch.uint8))
        samples.append((image, {"boxes": boxes, "labels": torch.tensor([value])}))
    kept = set()
    for seed in range(20):
        torch.manual_seed(seed)
        image, target = Mosaic.put(samples, (10, 25))
        assert image.shape == (3, 40, 40)
        values = [image[0, :10, :25], image[0, :10, 25:], image[0, 10:, :25], image[0, 10:, 25:]]
        assert [sorted(part.unique().tolist()) for part in values] == [[10], [20], [30], [40, MEAN[0]]]
        assert (values[3] == 40).sum() == 64  # the small one is whole
        for label, (x1, y1, x2, y2) in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True):
            right, low = label in (20, 40), label in (30, 40)
            assert 25 * right <= x1 < x2 <= (40 if right else 25) and 10 * low <= y1 < y2 <= (40 if low else 10)
            kept.add(label)
        assert 40 in target["labels"]
    assert kept == {10, 20, 30, 40}
    one = tv_tensors.Image(torch.zeros(3, 1, 5, dtype=torch.uint8)), samples[0][1]
    assert Mosaic()(one, None) is one  # nothing to divide


def test_a_point_beyond_the_window_is_not_labelled():
    torch.manual_seed(0)
    for sample in shapes(keypoints=True):
        image, target = sample
        points = tv_tensors.KeyPoints(target["keypoints"][..., :2], canvas_size=image.shape[-2:])
        target = {**target, "keypoints": points, "visibility": target["keypoints"][..., 2]}
        _, part = window((image, target), (20, 20))
        at = plain(part["keypoints"])
        assert ((at >= 0) & (at < 20)).all(dim=-1)[part["visibility"] > 0].all()


def test_samples_are_functions_of_seed_epoch_and_index():
    data, again = shapes(Mosaic(), Mixup()), shapes(Mosaic(), Mixup())
    transforms.augment(data, "ssd,mosaic", mixup=1.5)
    transforms.augment(again, "mosaic,flip,crop,expand,colour", mixup=1.5)  # in whatever order they are named
    before = [again[i] for i in reversed(range(8))][::-1]
    for i, (image, target) in enumerate(before):
        own, mine = data[i]
        assert torch.equal(own, image) and torch.equal(mine["weights"], target["weights"])
        assert len(target["weights"]) == len(target["labels"])  # a crop drops both
    data.set_epoch(1)
    assert not all(data[i][0].shape == before[i][0].shape for i in range(8))


def test_a_later_one_draws_what_the_former_made():
    def mark(sample, draw):
        return sample[0], {**sample[1], "labels": sample[1]["labels"] + 100}

    def both(sample, draw):
        return sample[0], {**sample[1], "drawn": draw()[1]["labels"]}

    data = shapes(mark, both)
    for _, target in data:
        assert (target["labels"] > 100).all() and (target["drawn"] > 100).all()
    assert len({tuple(target["drawn"].tolist()) for _, target in data}) > 5


def test_images_without_objects_and_data_with_proposals():
    empty = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(9, 9))
    image, full = shapes(masks=False, keypoints=False)[0]
    none = torch.zeros(0, dtype=torch.int64)
    black = tv_tensors.Image(torch.zeros(3, 9, 9, dtype=torch.uint8))
    nothing = black, {**full, "boxes": empty, "labels": none, "iscrowd": none, "area": none.float()}
    for pair in ((nothing, (image, full)), ((image, full), nothing), (nothing, nothing)):
        mixed = Mixup.mix(*pair, 0.25)[1]
        assert len(mixed["weights"]) == len(mixed["labels"]) == sum(len(one["labels"]) for _, one in pair)
    with pytest.raises(ValueError, match="mixing: expected data without proposals"):
        joined([{**full, "proposals": empty}] * 2)


def test_augment():
    assert transforms.parts("ssd") == ["colour", "expand", "crop", "flip"]
    assert transforms.parts("flip, mosaic,yolo") == ["mosaic", "exposure", "shift", "flip"]
    data = shapes()
    transforms.augment(data, "mosaic", mixup=0.5)
    assert [type(mix) for mix in data.mixing] == [Mosaic, Mixup] and data.mixing[1].alpha == 0.5
    transforms.augment(data, "none")
    assert data.mixing == []
    for names, told in (("flip,none", "expected none alone"), ("", "got ''"), ("flip,mixup", "got 'mixup'")):
        with pytest.raises(ValueError, match=f"augment: expected .*{told}|augment: {told}"):
            transforms.augment(data, names)
    with pytest.raises(ValueError, match="augment: expected transforms of one image, got mosaic"):
        transforms.train("mosaic")


@pytest.mark.parametrize("part", ["colour", "jitter", "exposure", "expand", "crop", "shift", "flip"])
def test_each_alone(part):
    """Changes pictures as its name says: colours with boxes as they were, or boxes with the colours."""
    raw, data = shapes(masks=False, keypoints=False), shapes(masks=False, keypoints=False)
    data.transform = transforms.train(part)
    moved = coloured = 0
    for (image, before), (other, after) in zip(raw, data, strict=True):
        first, second = plain(before["boxes"]), plain(after["boxes"])
        same = first.shape == second.shape and torch.equal(first, second)
        moved += not same
        coloured += same and (other - image / 255).abs().max() > 0.02
    assert (moved > 3, coloured > 3) == ((False, True) if part in ("colour", "jitter", "exposure") else (True, False))


def train(folder, *words):
    return main([*QUICK, "--epochs", "1", "--out", str(folder), *words])


def test_command(tmp_path, capsys):
    words = ["--augment", "flip,crop,expand,colour,mosaic", "--mixup", "1.5", "--set", "label_smoothing=0.1"]
    assert train(tmp_path, *words, "--vertical-flip") == 0
    checkpoint = load(tmp_path / "last.pt")
    assert checkpoint["settings"]["augment"] == words[1] and checkpoint["settings"]["mixup"] == 1.5
    assert checkpoint["model"]["label_smoothing"] == 0.1
    capsys.readouterr()
    for words, told in (
        (["--resume", "--mixup", "1"], "--mixup: the run in .* has 1.5, got 1.0"),
        (["--resume", "--mixup", "0"], "--mixup: the run in .* has 1.5, got 0.0"),
        (["--resume", "--augment", "rcnn"], "--augment: the run in .* has flip,crop,expand,colour,mosaic, got rcnn"),
        (["--overwrite", "--augment", "flip,turn"], "--augment: expected names of rcnn, .* shift, flip, got 'turn'"),
        (["--overwrite", "--augment", "none,flip"], "--augment: expected none alone, got 'none,flip'"),
        (["--overwrite", "--mixup", "-1"], "--mixup: expected a number above 0, got -1.0"),
        (["--overwrite", "--set", "multi_scale=True"], "--set multi_scale: expected an option of tiny_ssd, one of "),
    ):
        assert train(tmp_path, *words) == 2
        assert re.search(told, capsys.readouterr().err), told
    del checkpoint["settings"]["mixup"]  # as of a run from before there was any
    save(tmp_path / "last.pt", checkpoint)
    assert train(tmp_path, "--resume", "--mixup", "1.5") == 2
    assert "last.pt" not in (told := capsys.readouterr().err) and "has 0.0, got 1.5" in told


def test_detectors_that_cannot(tmp_path, capsys):
    open_csv(tmp_path, "a.jpg,cat,2,3,12,13\nb.jpg,cat,2,3,12,13\n")
    files = ["--data", "csv", "--root", str(tmp_path), "--eval-split", "none", "--device", "cpu"]
    for name, words, told in (
        (
            "localizer",
            ["--mixup", "1"],
            "--mixup: expected a detector whose losses weigh objects, got localizer_mobile",
        ),
        (
            "localizer",
            ["--augment", "mosaic"],
            "--augment: expected no mosaic for localizer_mobilenet_v2, which learns",
        ),
        ("fast_rcnn", ["--mixup", "1"], "--mixup: expected 0 for fast_rcnn_mobilenet_v2, whose proposals are of whole"),
        ("fast_rcnn", ["--augment", "mosaic"], "--augment: expected rcnn or none for fast_rcnn_mobilenet_v2, whose"),
    ):
        assert main(["train", name, *files, *words, "--out", str(tmp_path / "run")]) == 2
        assert told in capsys.readouterr().err
