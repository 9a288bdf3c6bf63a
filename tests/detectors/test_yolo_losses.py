"""YOLO's losses: their gradients along the raw maps are darknet's deltas, their values the slow sums.

Everything of a head is float32, as the maps of a network are: 1e-4 of the largest is a few hundred of its steps, which
exp and log of sides and differences of logistics near 0 and 1 take.
"""

import copy
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yolo_slow as slow
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import torch
from torchvision.models.detection.image_list import ImageList

from boxops.models.yolo import darknet_yolo

CLASSES, IGNORE = 3, 0.3
SIZE = (32, 48)  # height, width: grids of 4 x 6 and 2 x 3 cells
ANCHORS = [(6, 9), (14, 11), (33, 8), (20, 27)]  # v3's, pixels; the third belongs to no head
MASKS = [(0, 1), (3, 0)]  # the first belongs to both, and the second head's come in another order
CELLS = [(0.6, 1.1), (1.9, 1.4), (4.0, 3.0), (1.9, 1.4)]  # v2's, cells of 8 pixels; of equal ones the first is best
SIDE, NUM = 3, 2  # v1's

CONV = "[convolutional]\nfilters={}\nsize={size}\nstride={size}\nactivation=linear\n"
NET = "[net]\nchannels=3\nheight=32\nwidth=48\n"
YOLO = "[yolo]\nclasses=3\nnum=4\nmask={},{}\nignore_thresh=0.3\ntruth_thresh=1\nanchors=6,9,14,11,33,8,20,27\n"
COARSE = "[route]\nlayers=0\n[maxpool]\nsize=2\nstride=2\n" + CONV.format(16, size=1)
V3 = NET + CONV.format(16, size=8) + YOLO.format(*MASKS[0]) + COARSE + YOLO.format(*MASKS[1])
V2 = (
    NET
    + CONV.format(32, size=8)
    + "[region]\nclasses=3\nnum=4\ncoords=4\nbias_match=1\nanchors=0.6,1.1,1.9,1.4,4,3,1.9,1.4\nthresh=0.3\n"
)
V1 = NET + f"[connected]\noutput={9 * 13}\nactivation=linear\n[detection]\nclasses=3\ncoords=4\nside=3\nnum=2\n"
REGION = {"coord_scale": 1.5, "object_scale": 5, "noobject_scale": 0.7, "class_scale": 2}
DETECTION = {"coord_scale": 5, "object_scale": 1.5, "noobject_scale": 0.5, "class_scale": 2}


class Version:
    """A model whose network gives what it is told to, beside the slow code of the same numbers."""

    def __init__(self, folder, cfg, reference, shapes, **options):
        self.reference, self.shapes, self.options = reference, shapes, options
        lines = "".join(f"{name}={value}\n" for name, value in options.items())
        (folder / "net.cfg").write_text(cfg + lines)
        self.model = darknet_yolo(folder / "net.cfg").train()

    def raws(self, seed, batch, scale=1.0):
        rng = np.random.default_rng(seed)
        return [(scale * rng.standard_normal((batch, *shape))).astype(np.float32) for shape in self.shapes]

    def given(self, raws):
        leaves = [torch.from_numpy(raw).requires_grad_() for raw in raws]
        self.model.network.forward = lambda images: leaves
        return leaves

    def losses(self, raws, targets, size=SIZE):
        leaves = self.given(raws)
        batch = ImageList(torch.zeros(len(targets), 3, *size), [size] * len(targets))
        return leaves, self.model.losses(batch, targets)

    def check(self, raws, targets, size=SIZE):
        """The slow deltas and sums, which the model's are."""
        leaves, losses = self.losses(raws, targets, size)
        images = [slow.objects_of(target, size) for target in targets]
        deltas, sums = self.reference([raw.astype(np.float64) for raw in raws], images, size, **self.options)
        assert losses.keys() == sums.keys()
        for part, value in losses.items():
            assert value.shape == ()
            np.testing.assert_allclose(value.item(), sums[part] / len(targets), rtol=1e-4, atol=1e-4, err_msg=part)
        sum(losses.values()).backward()
        for leaf, delta in zip(leaves, deltas, strict=True):
            atol = 1e-4 * max(1, abs(delta).max())
            np.testing.assert_allclose(leaf.grad * len(targets), -delta, rtol=1e-4, atol=atol)
        return deltas, sums


def v3(raws, images, size, ignore_thresh=IGNORE, **options):
    return slow.v3(raws, MASKS, ANCHORS, CLASSES, size, images, ignore_thresh, **options)


def v2(raws, images, size, **options):
    delta, sums = slow.v2(raws[0], CELLS, CLASSES, images, **{"thresh": IGNORE, **options})
    return [delta], sums


def v1(raws, images, size, **options):
    delta, sums = slow.v1(raws[0], SIDE, NUM, CLASSES, images, **options)
    return [delta], sums


MAPS = [(16, 4, 6), (16, 2, 3)]
KINDS = {
    "v3": (V3, v3, MAPS, {}),
    "v2": (V2, v2, [(32, 4, 6)], {**REGION, "softmax": 1, "rescore": 1}),
    "v2 plain": (V2, v2, [(32, 4, 6)], {}),
    "v2 logistic": (V2, v2, [(32, 4, 6)], {**REGION, "softmax": 0, "rescore": 0}),
    "v1": (V1, v1, [(9 * 13,)], {**DETECTION, "sqrt": 1, "rescore": 1}),
    "v1 plain": (V1, v1, [(9 * 13,)], {}),
    "v1 softmax": (V1, v1, [(9 * 13,)], {**DETECTION, "softmax": 1, "sqrt": 0, "rescore": 1}),
}


@pytest.fixture(scope="module", params=KINDS)
def version(request, tmp_path_factory):
    cfg, reference, shapes, options = KINDS[request.param]
    return Version(tmp_path_factory.mktemp("cfg"), cfg, reference, shapes, **options)


def target(*rows, size=SIZE):
    """Of centres, sides and labels."""
    boxes = torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h, _ in rows]).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor([row[4] for row in rows], dtype=torch.int64)}


def random_target(seed, count, size=SIZE):
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(2), np.log(size[::-1]), (count, 2)))
    centres = sides / 2 + rng.random((count, 2)) * (np.array(size[::-1]) - sides)
    rows = np.concatenate([centres, sides], axis=1).astype(np.float32).tolist()
    return target(*[(*row, int(label)) for row, label in zip(rows, rng.integers(1, CLASSES + 1, count), strict=True)])


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), counts=st.lists(st.integers(0, 6), min_size=1, max_size=3))
def test_random_objects(version, seed, counts):
    targets = [random_target(seed + 7 * b, count) for b, count in enumerate(counts)]
    version.check(version.raws(seed, len(counts), scale=1 + seed % 3), targets)


@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1), counts=st.lists(st.integers(0, 6), min_size=1, max_size=3))
def test_random_weights(version, seed, counts):
    targets = [random_target(seed + 7 * b, count) for b, count in enumerate(counts)]
    for one in targets:
        one["weights"] = torch.from_numpy(np.random.default_rng(seed).random(len(one["labels"])).astype(np.float32))
    version.check(version.raws(seed, len(counts)), targets)


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_mixups_loss_is_the_weighted_sum(version, share):
    """Of objects in cells of their own. Only of a box that is nobody's more is said where an image is alone: that the
    other's objects are not there."""
    first, second = target((9, 9, 7, 9, 1), (40, 9, 22, 14, 2)), target((9, 26, 14, 10, 3), (40, 26, 12, 10, 1))
    both = {key: torch.cat([first[key], second[key]]) for key in first}
    raws, losses = version.raws(14, 1), {}
    for name, one, weights in (
        ("first", first, [1, 1]),
        ("second", second, [1, 1]),
        ("mixed", both, [share] * 2 + [1 - share] * 2),
        ("whole first", both, [1, 1, 0, 0]),
        ("whole second", both, [0, 0, 1, 1]),
    ):
        losses[name] = version.losses(raws, [{**one, "weights": torch.tensor(weights).float()}])[1]
    for part, mixed in losses["mixed"].items():
        names = ("whole first", "whole second") if part == "objectness" else ("first", "second")
        one, two = (losses[name][part] for name in names)
        torch.testing.assert_close(mixed, share * one + (1 - share) * two)
        assert one > 0 and two > 0


@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_label_smoothing(version, eps):
    smoothed = copy.copy(version)
    smoothed.model = copy.copy(version.model)
    smoothed.model.settings = replace(version.model.settings, label_smoothing=eps)
    smoothed.reference = partial(version.reference, smoothing=eps)
    raws, targets = version.raws(15, 2), [random_target(15, 4), target()]
    _, plain = version.check(raws, targets)
    _, sums = smoothed.check(raws, targets)
    assert {part for part in plain if plain[part] != sums[part]} == {"classification"}


def test_images_without_objects(version):
    deltas, sums = version.check(version.raws(0, 2), [target(), target()])
    assert sums["bbox_regression"] == sums["classification"] == 0 < sums["objectness"]
    assert all(abs(delta).max() > 0 for delta in deltas)


def test_a_mean_over_images(version):
    raws, some = version.raws(1, 1), random_target(1, 3)
    _, one = version.losses(raws, [some])
    _, two = version.losses([np.concatenate([raw, raw]) for raw in raws], [some, some])
    for part in slow.PARTS:
        np.testing.assert_allclose(two[part].item(), one[part].item(), rtol=1e-5)


EDGES = {
    "one cell, one shape": [(20, 13, 7, 9, 1), (21, 14, 6, 9, 2), (19, 12, 6, 8, 3)],
    "one cell, other shapes": [(20, 13, 7, 9, 1), (20, 13, 14, 10, 2), (20, 13, 22, 25, 3)],
    "one object twice": [(20, 13, 7, 9, 3), (20, 13, 7, 9, 3)],
    "one object of two classes": [(20, 13, 7, 9, 1), (20, 13, 7, 9, 3)],
    "on borders of cells": [(16, 16, 8, 8, 1), (24, 8, 14, 10, 2), (32, 24, 6, 10, 3)],  # of v1's 3 x 3 as well
    "a middle on the image's edge": [(48, 20, 6, 8, 1), (10, 32, 14, 10, 2), (48, 32, 20, 20, 3)],
    "the whole image": [(24, 16, 48, 32, 2)],
    "tiny": [(11, 5, 0.25, 0.125, 3)],
    "long": [(24, 16, 48, 0.5, 1), (5, 16, 0.5, 32, 3)],
    "of a shape without a head": [(24, 16, 33, 8, 2)],
    "between two equal shapes": [(24, 16, 10, 10, 2)],
}


@pytest.mark.parametrize("objects", EDGES.values(), ids=EDGES)
@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["", "untrained"])
def test_edges(version, objects, scale):
    """Both orders of the objects; boxes of a network that gives zeros are the anchors, or v1's without a size."""
    for rows in (objects, objects[::-1]):
        version.check(version.raws(2, 1, scale), [target(*rows)])


def test_objects_at_every_place(version):
    """More than there are boxes: all of them are responsible, most of them for several."""
    rng = np.random.default_rng(5)
    rows = [(*rng.uniform(4, 28, 2), *rng.uniform(3, 8, 2), 1 + k % 3) for k in range(300)]
    rows = [(x * 1.5, y, w, h, label) for x, y, w, h, label in rows]
    version.check(version.raws(5, 2), [target(*rows), target(*rows[:1])])


def test_outputs_far_off(version):
    """Logistics of 0 and 1, boxes without area and beyond any number; gradients stay finite, as darknet's."""
    raws = version.raws(6, 2)
    for raw in raws:
        raw *= 30
    leaves, losses = version.losses(raws, [random_target(6, 4), target()])
    sum(losses.values()).backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
    version.check(raws, [random_target(6, 4), target()])


def test_crowds(version):
    """Nobody is responsible for them, and nothing is said of the objectness of boxes in them."""
    raws, one = [abs(raw) for raw in version.raws(7, 1)], random_target(7, 3)  # v1's sides below 0 are in no crowd
    for crowd, silent in (([500, 500, 600, 600], False), ([-1e4, -1e4, 1e4, 1e4], True)):
        boxes = torch.cat([one["boxes"], torch.tensor([crowd]).float()])
        labels, iscrowd = torch.cat([one["labels"], torch.tensor([2])]), torch.tensor([0, 0, 0, 1])
        leaves, losses = version.losses(raws, [{"boxes": boxes, "labels": labels, "iscrowd": iscrowd}])
        sum(losses.values()).backward()
        quiet = {} if not silent else {"ignore_thresh": -1} if version.reference is v3 else {"noobject_scale": 0}
        deltas, _ = version.reference(raws, [slow.objects_of(one, SIZE)], SIZE, **{**version.options, **quiet})
        for leaf, delta in zip(leaves, deltas, strict=True):
            np.testing.assert_allclose(leaf.grad, -delta, rtol=1e-4, atol=1e-4 * max(1, abs(delta).max()))


def test_a_whole_call(version):
    """Images of the network's size, which letterboxing leaves alone, and targets in their pixels."""
    raws, targets = version.raws(8, 2), [random_target(8, 3), target()]
    version.given(raws)
    losses = version.model([torch.rand(3, *SIZE), torch.rand(3, *SIZE)], targets)
    _, expected = version.losses(raws, targets)
    assert {part: value.item() for part, value in losses.items()} == {p: value.item() for p, value in expected.items()}


def build(name, folder, **options):
    cfg, reference, shapes, usual = KINDS[name]
    return Version(folder, cfg, reference, shapes, **{**usual, **options})


def inverse(p):
    return math.log(p / (1 - p))


@pytest.mark.parametrize("name", ["v3", "v2"])
def test_boxes_near_an_object_are_not_pushed_down(name, tmp_path):
    """One box at an object without being responsible: below the threshold it is background, above it is left alone."""
    version = build(name, tmp_path, **({"rescore": 0} if name == "v2" else {}))
    raws = version.raws(9, 1)
    objectness = raws[0].reshape(1, -1, 8, 4, 6)
    # Of the cell (1, 2), around (20, 12), the second box; the object's shape is the first anchor's
    w, h = np.array([(6.0, 9.0), ANCHORS[1]] if name == "v3" else [(4.8, 8.8), (15.2, 11.2)]).T
    found = set()
    for share in (0.25, 0.29, 0.31, 0.5, 0.9):
        # Of one middle and one height, with a width so that the IoU is the share
        objectness[0, 1, :4, 1, 2] = 0, 0, math.log(w[0] / w[1] / share), math.log(h[0] / h[1])
        deltas, _ = version.check(raws, [target((20, 12, w[0], h[0], 2))])
        deltas = deltas[0].reshape(objectness.shape)
        assert deltas[0, 0, 4, 1, 2] > 0  # the responsible one
        assert (deltas[0, 1, 4, 1, 2] < 0) == (share < IGNORE)
        found.add(share < IGNORE)
    assert found == {True, False}


@pytest.mark.parametrize(("name", "option"), [("v3", "ignore_thresh"), ("v2", "thresh")])
def test_the_threshold_is_a_half_by_default(name, option, tmp_path):
    """Of the two boxes in the middle of an object's cell the other one has an IoU of 0.35, or 0.45."""
    version, rows = build(name, tmp_path), [(20, 12, 12, 10, 1)]
    raws = version.raws(10, 1, scale=0)
    at_three, _ = version.check(raws, [target(*rows)])
    cfg, reference, shapes, options = KINDS[name]
    cfg = re.sub(f"\n{option}=.*", "", cfg)
    default = Version(tmp_path, cfg, lambda *a, **o: reference(*a, **o, **{option: 0.5}), shapes, **options)
    at_half, _ = default.check(raws, [target(*rows)])
    assert any((a != b).any() for a, b in zip(at_half, at_three, strict=True))


@pytest.mark.parametrize("name", ["v3", "v2"])
def test_a_batch_of_another_size(name, tmp_path):
    """As multi-scale training gives: v3's anchors are pixels, v2's are cells."""
    version, size = build(name, tmp_path), (64, 80)
    version.shapes = [(shape[0], 64 // s, 80 // s) for shape, s in zip(version.shapes, (8, 16), strict=False)]
    version.check(version.raws(11, 2), [random_target(11, 4, size), random_target(12, 2, size)], size)


@pytest.mark.parametrize("root", [0, 1])
def test_v1_chooses_the_nearest_where_nothing_overlaps(root, tmp_path):
    """The box far away with the object's own sides, or that at its middle without a size."""
    version = build("v1", tmp_path, sqrt=root)
    for x, chosen in ((0.6, 1), (40.0, 0)):
        raws = [np.zeros((1, 117), np.float32)]
        w, h = 0.2 ** (1 - root / 2), 0.3 ** (1 - root / 2)
        boxes = raws[0][0, 9 * 5 :].reshape(9, 2, 4)
        boxes[4, 0], boxes[4, 1] = (0.5, 0.5, 0, 0), (0.5 + x, 0.5, w, h)
        if x < 1:
            boxes[4, 0, :2] = -3, 5
            boxes[4, 1, 2:] = 0
        deltas, _ = version.check(raws, [target((24, 16, 9.6, 9.6, 1))])
        moved = deltas[0][0, 9 * 5 :].reshape(9, 2, 4)
        assert [bool(abs(row).any()) for row in moved[4]] == [chosen == 0, chosen == 1]


def test_the_slow_sums_have_the_slow_deltas_as_their_slope():
    """In float64, by differences; with rescore, the IoU of a box that moves is held, so there is none here."""
    rng = np.random.default_rng(3)
    images = [slow.objects_of(random_target(13, 4), SIZE), []]
    for reference, shapes, options in (
        (v3, MAPS, {}),
        (v2, [(32, 4, 6)], {**REGION, "softmax": 1}),
        (v2, [(32, 4, 6)], {**REGION, "squared": False}),
        (v1, [(117,)], {**DETECTION, "sqrt": 1}),
        (v1, [(117,)], {**DETECTION, "softmax": 1}),
    ):
        raws = [rng.standard_normal((2, *shape)) for shape in shapes]
        deltas, _ = reference(raws, images, SIZE, **options)
        for raw, delta in zip(raws, deltas, strict=True):
            busy = np.argwhere(delta[0] != 0)
            for place in rng.permutation(busy)[:12]:
                at, values, before = (0, *place), [], raw[(0, *place)]
                for step in (1e-5, -1e-5):
                    raw[at] = before + step
                    values.append(sum(reference(raws, images, SIZE, **options)[1].values()))
                raw[at] = before
                np.testing.assert_allclose((values[1] - values[0]) / 2e-5, delta[at], rtol=1e-5, atol=1e-6)
