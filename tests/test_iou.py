"""IoU and its relatives: pairwise, paired, and as losses."""

import backends
import cases
import numpy as np
import pytest
from box_sets import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops import reference
from boxops.reference.common import atan2_of

NAN, INF = np.nan, np.inf


def test_the_reference_s_atan2():
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        y, x = np.exp(rng.uniform(-60, 60, (2, 100_000)) * rng.choice([1, 0.01], 100_000)).astype(dtype)
        want = np.arctan2(y.astype(np.longdouble), x.astype(np.longdouble)).astype(dtype)
        np.testing.assert_array_max_ulp(atan2_of(y, x), want, 2, dtype)
        y, x = np.array([[0, 0, 1, np.inf, np.inf, 1], [0, 1, 0, np.inf, 1, np.inf]], dtype)
        np.testing.assert_array_max_ulp(atan2_of(y, x), np.arctan2(y, x), 0)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_layouts(backend, op, paired):
    rng = np.random.default_rng(1)
    boxes1, boxes2 = (random_boxes(rng, (2, 35)).astype(np.float32) for _ in range(2))
    backends.check_layouts(backend, op, {"boxes1": boxes1, "boxes2": boxes2, "paired": paired})


def call(backend, op, boxes1, boxes2, dtype=np.float32, **options):
    boxes1, boxes2 = (backend.to_array(np.array(boxes, dtype)) for boxes in (boxes1, boxes2))
    return backend.to_numpy(getattr(backend.ops, op)(boxes1, boxes2, **options))


def same_bits(backend, op, boxes1, boxes2, **options):
    """As the reference, -0 as 0."""
    with np.errstate(all="ignore"):
        want = getattr(reference, op)(boxes1, boxes2, **options)
    np.testing.assert_array_equal(call(backend, op, boxes1, boxes2, **options), want)


@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_sides_of_all_powers_of_2(backend, op):
    """CUDA divides without a branch where both boxes are ordinary (common/ordinary.cuh), and else with all guards."""
    rng = np.random.default_rng(0)
    powers = np.arange(-149, 128, 7)
    pairs = np.stack(np.meshgrid(powers, powers), -1).reshape(-1, 2)
    pairs = np.concatenate([pairs, rng.integers(-45, 22, (400, 2))])
    sides = rng.choice([1, 1.5, 2 - 2.0**-23, 1 + 2.0**-23], pairs.shape) * np.exp2(pairs)
    boxes = np.concatenate([rng.choice([0, 0, 1], sides.shape) * sides, sides], 1).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    same_bits(backend, op, boxes, np.repeat(boxes[::8], 4, axis=0))


def boxes_at_bounds():
    """Around the bounds of common/ordinary.cuh: numbers that differ in a bit, small areas, thin boxes, large ones."""
    boxes = [[0, 0, 1, 1], [0, 0, 4095, 4097]]  # 1 / (2^24 - 1): the one divisor that asks for the nearest reciprocal
    for power in range(-24, -15):
        t, more = np.exp2(power), np.exp2(power) * (1 + 2.0**-23)
        boxes += [[-1, -1, more, more], [t, t, 1, 1]]  # overlap in one bit
        boxes += [[-t, -1, t, 1], [-t, -1, more, 1], [-1, -t, 1, more]]  # so do the centres
        boxes += [[0, 0, t, 1], [0, 0, more, 1], [0, 0, 2.0**17 * t, 2.0**17], [0, 0, 2.0**17 * more, 2.0**17]]
        boxes += [[2.0**-10, 0, 2.0**-10 + t, 2.0**-19], [0, 0, 2.0**power, 2.0**-16]]
    for power in range(15, 24):
        boxes += [[-(2.0**power), 0, 1, 2.0**power], [0, -(2.0**power), 1, 1], [2.0**power - 1, 0, 2.0**power, 1]]
    return np.array(boxes, np.float32)


@pytest.mark.parametrize("op", cases.PAIRWISE)
@pytest.mark.parametrize("eps", [0.0, 2.0**-44, 2.0**-38, 1e-7, 2.0**38, 3e12])
def test_the_bounds_of_ordinary_boxes(backend, op, eps):
    options = {"eps": eps} if op in ("distance_box_iou", "complete_box_iou") else {}
    if eps == 0 or options:
        boxes = boxes_at_bounds()
        same_bits(backend, op, boxes, np.repeat(boxes, 4, axis=0), **options)  # a thread's columns
        same_bits(backend, op, boxes[:9], np.repeat(boxes, 4, axis=0)[:-1], **options)


UNIT = [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("op", "box1", "box2", "value"),
    [
        ("box_iou", [0, 0, 2, 2], [1, 1, 3, 3], 1 / 7),
        ("box_iou", UNIT, [1, 0, 2, 1], 0),  # touching
        ("box_iou", [1, 1, 1, 1], [1, 1, 1, 1], 0),  # no union
        ("box_iou", [2, 2, 0, 0], [0, 0, 2, 2], 0),  # inverted
        ("box_iou", [-3, -3, -1, -1], [-3, -2, -1, -1], 0.5),
        ("box_iou", UNIT, [NAN, 0, 1, 1], 0),
        ("box_iou", [0, 0, INF, INF], [0, 0, INF, INF], 0),  # inf / (inf - inf)
        ("box_iou", [0, 0, 1e30, 1e30], [0, 0, 1e30, 1e30], 1),  # the area overflows
        ("box_iou", [-3e38, -3e38, 3e38, 3e38], [-3e38, -3e38, 3e38, 0], 0.5),  # so does the width
        ("box_iou", [-3e38, 2, 3e38, 2], [-3e38, 2, 3e38, 2], 0),  # inf x 0
        ("box_iou", [0, 0, 1e30, 1e30], UNIT, 0),
        ("box_iou", [0, 0, 1e30, 1e30], [0, 0, INF, 1e30], 0),
        ("box_iou", [0, 0, 1e-21, 1e-21], [0, 0, 1e-21, 1e-21], 1),  # the area is subnormal
        ("box_ioa", [0, 0, 2, 2], [1, 1, 3, 3], 1 / 4),
        ("box_ioa", [0, 0, 9, 9], UNIT, 1),
        ("box_ioa", UNIT, [0, 0, 0, 1], 0),
        ("box_ioa", UNIT, [0, NAN, 1, 1], 0),
        ("box_ioa", [0, 0, 3e38, 3e38], [-3e38, 0, 3e38, 1e30], 1 / 2),
        ("box_ioa", [NAN, -INF, 1, INF], [0, -INF, 1, INF], 0),
        ("box_ioa", [0, 0, INF, 1], [0, 0, INF, 1], 0),  # inf / inf
        ("box_ioa", [0, -INF, 1, INF], [2, -INF, 3, INF], 0),  # an overlap of 0 x inf
        ("generalized_box_iou", UNIT, [1, 1, 2, 2], -0.5),
        ("generalized_box_iou", UNIT, UNIT, 1),
        ("generalized_box_iou", [1, 1, 1, 1], [1, 1, 1, 1], 0),
        ("generalized_box_iou", UNIT, [NAN, 0, 1, 1], NAN),
        ("generalized_box_iou", UNIT, [1e30, 1e30, 2e30, 2e30], -0.75),
        ("generalized_box_iou", UNIT, [3e38, 3e38, 3e38, 3e38], -1),  # small boxes, only their hull overflows
        ("distance_box_iou", UNIT, [1, 0, 2, 1], -1 / 5),
        ("distance_box_iou", [0, 0, 1e30, 1e30], [1e30, 0, 2e30, 1e30], -1 / 5),
        ("distance_box_iou", UNIT, [-3e38, 3e38, -3e38, 3e38], -1),
        ("complete_box_iou", [0, 0, 3e38, 3e38], [0, 0, 3e38, 3e38], 1),
        ("distance_box_iou", UNIT, [0, 0, NAN, 1], NAN),
        ("complete_box_iou", UNIT, UNIT, 1),
        ("complete_box_iou", UNIT, [0, 0, 1, NAN], NAN),
    ],
)
def test_value(backend, op, box1, box2, value):
    options = {"eps": 0.0} if "distance" in op or "complete" in op else {}
    np.testing.assert_allclose(call(backend, op, [box1], [box2], **options), [[value]], rtol=2e-7)
    np.testing.assert_allclose(call(backend, op, box1, box2, paired=True, **options), value, rtol=2e-7)


def test_integers_do_not_wrap(backend):
    assert call(backend, "box_iou", [[0, 0, 255, 255]], [[0, 0, 255, 128]], np.uint8) == np.float32(128 / 255)
    assert call(backend, "box_iou", [[-100, 0, 100, 1]], [[-100, 0, 100, 1]], np.int8) == 1


@pytest.mark.parametrize("op", ["distance_box_iou", "complete_box_iou"])
def test_eps_guards_the_penalty(backend, op):
    got = call(backend, op, [[0, 0, 2, 2]], [[2, 0, 4, 2]], eps=80.0)
    np.testing.assert_array_equal(got, np.float32([[-0.04]]))  # 2^2 / (4^2 + 2^2 + 80)
    inverted = call(backend, op, [[10, 10, 0, 0]], [[12, 12, 2, 2]], eps=0.0)
    np.testing.assert_array_equal(inverted, np.float32([[0]]))  # no hull: no penalty


@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_broadcast_without_a_copy(backend, op):
    boxes1, boxes2 = (random_boxes(np.random.default_rng(i), (1, 20)).astype(np.float32) for i in range(2))
    want = call(backend, op, np.repeat(boxes1, 3, axis=0), boxes2)
    if isinstance(backend, backends.Torch):
        expanded = backend.to_array(boxes1).expand(3, 20, 4)
    else:
        expanded = np.broadcast_to(boxes1, (3, 20, 4))
    got = getattr(backend.ops, op)(expanded, backend.to_array(boxes2))
    np.testing.assert_array_equal(backend.to_numpy(got), want)


@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_paired_is_the_diagonal(backend, op):
    boxes1, boxes2 = (random_boxes(np.random.default_rng(i), 70) for i in range(2))
    pairwise = call(backend, op, boxes1, boxes2)
    np.testing.assert_array_equal(call(backend, op, boxes1, boxes2, paired=True), np.diagonal(pairwise))


@pytest.mark.parametrize("fmt", cases.FORMATS)
@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_format_is_a_conversion(op, fmt):
    boxes1, boxes2 = (random_boxes(np.random.default_rng(i), 30) for i in range(2))
    want = getattr(boxops, op)(*(boxops.box_convert(b, fmt, "xyxy") for b in (boxes1, boxes2)))
    np.testing.assert_array_equal(getattr(boxops, op)(boxes1, boxes2, fmt=fmt), want)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("op", cases.LOSSES)
def test_reduction_of_nothing_is_zero(backend, op, reduction):
    loss = call(backend, op, np.zeros((0, 4)), np.zeros((0, 4)), reduction=reduction)
    assert loss.shape == () and loss == 0


# Properties, for any boxes and for valid ones

coordinate = st.integers(-20, 20) | st.floats(-1e3, 1e3, width=32) | st.floats(width=32)
any_boxes = arrays(np.float32, st.tuples(st.integers(0, 6), st.just(4)), elements=coordinate)


@st.composite
def valid_boxes(draw):
    corner = draw(arrays(np.float64, (draw(st.integers(1, 6)), 2), elements=st.floats(-100, 100)))
    side = draw(arrays(np.float64, corner.shape, elements=st.floats(0.125, 100)))
    return np.concatenate([corner, corner + side], axis=1)


@given(any_boxes, any_boxes)
def test_iou_is_symmetric_and_between_0_and_1(boxes1, boxes2):
    iou = boxops.box_iou(boxes1, boxes2)
    assert ((iou >= 0) & (iou <= 1)).all()
    np.testing.assert_array_equal(boxops.box_iou(boxes2, boxes1), iou.T)
    np.testing.assert_array_equal(iou, reference.box_iou(boxes1, boxes2))


@given(any_boxes, any_boxes)
def test_ioa_is_between_0_and_1(boxes1, boxes2):
    ioa = boxops.box_ioa(boxes1, boxes2)
    assert ((ioa >= 0) & (ioa <= 1)).all()
    np.testing.assert_array_equal(ioa, reference.box_ioa(boxes1, boxes2))


@given(valid_boxes(), valid_boxes())
def test_bounds_of_the_penalised(boxes1, boxes2):
    iou = boxops.box_iou(boxes1, boxes2)
    generalized, distance, complete = (getattr(boxops, op)(boxes1, boxes2) for op in cases.PAIRWISE[1:4])
    rounding = 1e-12
    assert (np.abs(generalized) <= 1 + rounding).all() and (generalized <= iou + rounding).all()
    assert (distance >= -1).all() and (distance <= iou).all() and (complete <= distance).all()


@given(valid_boxes())
def test_a_box_with_itself_is_1(boxes):
    for op in cases.PAIRWISE:
        np.testing.assert_array_equal(np.diagonal(getattr(boxops, op)(boxes, boxes)), 1)


# Second opinion


@pytest.mark.parametrize("op", cases.PAIRWISE[:4])
def test_torchvision(torchvision, op):
    import torch

    boxes1, boxes2 = (torch.from_numpy(random_boxes(np.random.default_rng(i), (2, 60))) for i in range(2))
    got, want = (getattr(module, op)(boxes1, boxes2) for module in (boxops, torchvision))
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("op", cases.LOSSES)
def test_torchvision_losses(torchvision, op, reduction):
    import torch

    boxes1, boxes2 = (torch.from_numpy(random_boxes(np.random.default_rng(i), 60)) for i in range(2))
    got, want = (getattr(module, op)(boxes1, boxes2, reduction) for module in (boxops, torchvision))
    torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-13)
