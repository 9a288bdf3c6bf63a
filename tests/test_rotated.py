"""Rotated boxes: IoU to the bit of the reference and exact against shapely, and NMS by it."""

import backends
import numpy as np
import pytest
from cases.rotated import BOXES, rotated
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops import reference

NAN, INF = np.nan, np.inf
OPS = ("rotated_box_iou", "rotated_nms", "batched_rotated_nms")


@pytest.mark.parametrize("paired", [False, True])
def test_layouts_iou(backend, paired):
    rng = np.random.default_rng(1)
    boxes1, boxes2 = (rotated(rng, (2, 35), 100.0).astype(np.float32) for _ in range(2))
    backends.check_layouts(backend, "rotated_box_iou", {"boxes1": boxes1, "boxes2": boxes2, "paired": paired})


@pytest.mark.parametrize("op", OPS[1:])
def test_layouts_nms(backend, op):
    rng = np.random.default_rng(1)
    arguments = {"boxes": rotated(rng, 40, 100.0).astype(np.float32), "scores": rng.random(40, np.float32)}
    groups = {"idxs": rng.integers(0, 3, 40)} if op == "batched_rotated_nms" else {}
    backends.check_layouts(backend, op, {**arguments, **groups, "iou_threshold": 0.3})


def call(backend, op, *arrays, dtype=np.float32, **options):
    result = getattr(backend.ops, op)(*(backend.to_array(np.array(array, dtype)) for array in arrays), **options)
    return backend.to_numpy(result)


SQUARE, SQRT2 = [0, 0, 2, 2, 0], np.sqrt(2)


@pytest.mark.parametrize(
    ("box1", "box2", "value"),
    [
        (SQUARE, SQUARE, 1),
        (SQUARE, [0, 0, 2, 2, 90], 1),
        (SQUARE, [0, 0, 2, 2, -720], 1),
        ([7, 3, 4, 2, 30], [7, 3, 2, 4, 120], 1),  # a quarter turn is a swap of the sides
        ([7, 3, 4, 2, 30], [7, 3, 4, 2, 210], 1),
        (SQUARE, [1, 1, 2, 2, 0], 1 / 7),
        (SQUARE, [2, 0, 2, 2, 0], 0),  # touching
        (SQUARE, [2, 2, 2, 2, 0], 0),  # touching in a corner
        (SQUARE, [0, 0, 1, 1, 45], 1 / 4),  # inside
        (SQUARE, [0, 0, SQRT2, SQRT2, 45], 1 / 2),  # inside, corners on edges
        (SQUARE, [0, 0, 2, 2, 45], 1 / SQRT2),  # an octagon
        ([0, 0, 10, 1, 0], [0, 0, 10, 1, 90], 1 / 19),  # a cross
        ([0, 0, 10, 1e-3, 45], [3, -3, 1, 1, 45], 1e-3 / (1 + 1e-2 - 1e-3)),  # up and to the right: on the axis
        ([0, 0, 10, 1e-3, 45], [3, 3, 1, 1, 45], 0),
        (SQUARE, [0, 0, 2, -2, 0], 0),
        ([0, 0, 0, 2, 30], [0, 0, 0, 2, 30], 0),
        (SQUARE, [0, 0, 2, 2, NAN], 0),
        (SQUARE, [0, 0, 2, 2, INF], 0),
        (SQUARE, [NAN, 0, 2, 2, 0], 0),
        ([0, 0, INF, 2, 0], [0, 0, INF, 2, 0], 0),
        ([0, 0, 1e30, 1e30, 0], [0, 0, 1e30, 1e30, 0], 1),  # the area overflows
        ([-4e37, 0, 2e37, 1e36, 30], [-4e37, 0, 1e37, 1e36, 30], 0.5),
        ([0, 0, 1e30, 1e30, 9], [0, 0, 1e5, 1e5, 3], 0),
        ([0, 0, 3e37, 1e30, 45], [0, 0, 3e37, 1e30, -45], 1e30 / (6e37 - 1e30)),
        ([5e37, 0, 1, 1, 0], [5e37, 0, 1, 1, 0], 0),  # a number within a factor of 8 of overflow
        ([1e5, -1e5, 2e-2, 1e-2, 20], [1e5, -1e5, 1e-2, 1e-2, 20], 1 / 2),  # tiny and far
    ],
)
def test_value(backend, box1, box2, value):
    for a, b in ((box1, box2), (box2, box1)):
        np.testing.assert_allclose(call(backend, "rotated_box_iou", [a], [b]), [[value]], rtol=1e-6)
        np.testing.assert_allclose(call(backend, "rotated_box_iou", a, b, paired=True), value, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["random", "lattice", "nearly parallel", "long and thin", "far", "mixed scales"])
def test_a_box_with_itself_is_1_to_the_bit(backend, name, dtype):
    boxes = BOXES[name](np.random.default_rng(0), "float64").astype(dtype)
    for again in (boxes, boxes * [1, 1, -1, -1, 1]):
        want = np.ones(len(boxes)) if again is boxes else np.zeros(len(boxes))
        np.testing.assert_array_equal(call(backend, "rotated_box_iou", boxes, again, dtype=dtype, paired=True), want)


def test_paired_is_the_diagonal(backend):
    boxes1, boxes2 = (rotated(np.random.default_rng(i), 70) for i in range(2))
    pairwise = call(backend, "rotated_box_iou", boxes1, boxes2)
    np.testing.assert_array_equal(call(backend, "rotated_box_iou", boxes1, boxes2, paired=True), np.diagonal(pairwise))


def test_suppressed_boxes_suppress_nothing(backend):
    boxes = np.array([[x, x, 10, 2, -45] for x in (0, 2, 4)], np.float32)  # IoU 0.56 with the next, 0.28 with the last
    boxes, scores = backend.to_array(boxes), backend.to_array(np.array([3, 2, 1], np.float32))
    keep = backend.ops.rotated_nms(boxes, scores, 0.5)
    np.testing.assert_array_equal(backend.to_numpy(keep), [0, 2])


def test_equal_input_gives_equal_bits(backend):
    boxes = rotated(np.random.default_rng(0), 400, 100.0)
    first = call(backend, "rotated_box_iou", boxes, boxes)
    for _ in range(3):
        np.testing.assert_array_equal(call(backend, "rotated_box_iou", boxes, boxes), first)


def test_axis_parallel_boxes_are_suppressed_as_by_nms(backend):
    rng = np.random.default_rng(5)
    boxes = np.concatenate([rng.integers(0, 200, (500, 2)) * 2, rng.integers(5, 30, (500, 2)) * 2], axis=1)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    boxes, scores = np.c_[boxes, 90 * rng.integers(-2, 3, 500) * 2].astype(np.float32), rng.random(500, np.float32)
    keep = backend.ops.rotated_nms(backend.to_array(boxes), backend.to_array(scores), 0.4)
    want = boxops.nms(corners.astype(np.float32), scores, 0.4)
    np.testing.assert_array_equal(backend.to_numpy(keep), want)


@pytest.mark.parametrize("seed", range(24))
def test_all_sorts_of_crowds(backend, seed):
    """Sizes over many decades, dense and sparse, long and flat: what the search by hulls could get wrong."""
    rng = np.random.default_rng(seed)
    count, decades = rng.integers(2, 700), rng.choice([0, 1, 3, 6])
    side = 10.0 ** rng.uniform(-decades / 2, decades / 2, (count, 2)) * rng.uniform(1, 100, 2)
    centre = rng.normal(0, 10.0 ** rng.uniform(0, 4), (count, 2)) + rng.choice([0, 0, -1e3, 1e5])
    boxes = np.c_[np.c_[centre, side] * 10.0 ** rng.choice([0, 0, -12, 6, 15, 36]), rng.uniform(-200, 200, count)]
    boxes[rng.random(count) < rng.choice([0, 0, 0.1])] *= rng.choice([NAN, INF, -1])
    with np.errstate(over="ignore"):
        boxes = boxes.astype(rng.choice(["float32", "float64"]))
    scores, threshold = rng.integers(0, 99, count).astype(np.float32), rng.choice([0, 0.01, 0.2, 0.5, 0.8, 0.99])
    keep = backend.ops.rotated_nms(backend.to_array(boxes), backend.to_array(scores), threshold)
    np.testing.assert_array_equal(backend.to_numpy(keep), reference.rotated_nms(boxes, scores, threshold))


# Properties

number = st.integers(-9, 9) | st.floats(-1e3, 1e3, width=32) | st.floats(width=32)
any_boxes = arrays(np.float32, st.tuples(st.integers(0, 6), st.just(5)), elements=number)


@given(any_boxes, any_boxes)
def test_any_numbers_give_the_bits_of_the_reference(boxes1, boxes2):
    iou = boxops.rotated_box_iou(boxes1, boxes2)
    assert ((iou >= 0) & (iou <= 1)).all()
    np.testing.assert_array_equal(iou, reference.rotated_box_iou(boxes1, boxes2))


@st.composite
def boxes_and_partners(draw):
    shape = (draw(st.integers(1, 6)), 1)
    centre, side, angle = st.floats(-99, 99), st.floats(0.5, 99), st.floats(-999, 999)
    columns = (centre, centre, side, side, angle)
    return [np.hstack([draw(arrays(np.float64, shape, elements=column)) for column in columns]) for _ in range(2)]


@given(boxes_and_partners(), st.floats(-180, 180), st.floats(-99, 99))
def test_the_frame_does_not_matter(pair, turn, shift):
    """Swapped, moved, turned about the origin, mirrored: the same IoU."""
    want, (sin, cos) = boxops.rotated_box_iou(*pair, paired=True), (np.sin(np.radians(turn)), np.cos(np.radians(turn)))
    turned = [np.c_[b[:, 0] * cos + b[:, 1] * sin, b[:, 1] * cos - b[:, 0] * sin, b[:, 2:4], b[:, 4] + turn]
              for b in pair]  # fmt: skip
    moved = [b + np.array([shift, -shift, 0, 0, 0]) for b in pair]
    others = [pair[::-1], moved, turned, [b * [-1, 1, 1, 1, -1] for b in pair]]
    for other in others:
        np.testing.assert_allclose(boxops.rotated_box_iou(*other, paired=True), want, atol=1e-11)


# Second opinion


def corners(boxes):
    """[N, 4, 2], by the axes that torchvision's "cxcywhr" has."""
    cx, cy, w, h, angle = boxes.astype(np.float64).T
    sin, cos = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    offsets = [(x * w / 2, y * h / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return np.stack([np.stack([cx + x * cos + y * sin, cy - x * sin + y * cos], -1) for x, y in offsets], 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name, boxes in BOXES.items() if name in
    ("random", "spread", "crowded", "right angles", "lattice", "nearly equal", "nearly parallel", "nested", "far",
     "many turns", "long and thin")])  # fmt: skip
def test_shapely(name, dtype):
    shapely = pytest.importorskip("shapely")
    boxes = np.abs(BOXES[name](np.random.default_rng(3), "float64")).astype(dtype)
    boxes1, boxes2 = boxes, np.random.default_rng(4).permutation(boxes)
    centre = np.c_[boxes1[:, :2], np.zeros((len(boxes), 3))].astype(np.float64)  # shapely too is better near the origin
    one, two = (shapely.polygons(corners(b - centre)) for b in (boxes1, boxes2))
    union = shapely.area(shapely.union(one, two))
    want = np.divide(shapely.area(shapely.intersection(one, two)), union, out=np.zeros(len(boxes)), where=union > 0)
    tolerance = 1e-12 if dtype == np.float64 else 2e-4 if name == "long and thin" else 5e-6
    np.testing.assert_allclose(boxops.rotated_box_iou(boxes1, boxes2, paired=True), want, atol=tolerance)


def test_corners_are_those_of_torchvision(torchvision):
    import torch

    boxes = rotated(np.random.default_rng(0), 20)
    got = torchvision.box_convert(torch.from_numpy(boxes), "cxcywhr", "xyxyxyxy").numpy().reshape(-1, 4, 2)
    np.testing.assert_allclose(got, corners(boxes), atol=1e-4)  # torchvision rounds to float32 on the way


# torch


def test_gradient_is_refused(device):
    import torch

    boxes = torch.from_numpy(rotated(np.random.default_rng(0), 4)).to(device).requires_grad_()
    iou = boxops.rotated_box_iou(boxes, boxes.detach())
    with pytest.raises(RuntimeError, match=r"^rotated_box_iou: expected no request for a gradient, got one"):
        iou.sum().backward()
    assert boxops.rotated_nms(boxes, boxes[:, 0], 0.5).dtype == torch.int64


def test_autocast(device):
    import torch

    boxes = torch.from_numpy(rotated(np.random.default_rng(0), 9)).to(device).float()
    with torch.autocast(device, dtype=torch.bfloat16):
        got = boxops.rotated_box_iou(boxes.bfloat16(), boxes)
    torch.testing.assert_close(got, boxops.rotated_box_iou(boxes.bfloat16().float(), boxes), rtol=0, atol=0)
