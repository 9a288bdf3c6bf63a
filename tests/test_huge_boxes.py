"""Boxes whose areas, hulls or sides overflow the compute type: measured as if the type had no end, on every backend."""

from fractions import Fraction

import cases
import numpy as np
import pytest
from box_sets import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops

ENDS = {"float32": 3.4e38, "float64": 1.79e308}
SCALES = {"float32": (1e20, 1e30, 1e37), "float64": (1e155, 1e200, 1e306)}
NO_EPS = {"distance_box_iou": {"eps": 0.0}, "complete_box_iou": {"eps": 0.0}}


def call(backend, op, **arguments):
    results = backend.run(op, arguments)
    return [backend.to_numpy(r) for r in (results if isinstance(results, tuple) else (results,))]


def exact(op, box1, box2):
    """A measure without CIoU's angles, in fractions."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = ([Fraction(float(x)) for x in box] for box in (box1, box2))
    width, height = max(min(ax2, bx2) - max(ax1, bx1), 0), max(min(ay2, by2) - max(ay1, by1), 0)
    hull_w, hull_h = max(ax2, bx2) - min(ax1, bx1), max(ay2, by2) - min(ay1, by1)
    area1, area2, inter = (ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1), width * height
    if op == "box_ioa":
        return float(inter / area2)
    union = area1 + area2 - inter
    if op == "generalized_box_iou":
        return float(inter / union - 1 + union / (hull_w * hull_h))
    centres = ((ax1 + ax2 - bx1 - bx2) ** 2 + (ay1 + ay2 - by1 - by2) ** 2) / 4
    return float(inter / union - (centres / (hull_w**2 + hull_h**2) if op == "distance_box_iou" else 0))


@pytest.mark.parametrize("dtype", ENDS)
@pytest.mark.parametrize("op", [op for op in cases.PAIRWISE if op != "complete_box_iou"])
def test_exact(backend, op, dtype):
    """Sizes from 1 to the end of the range, in all mixtures."""
    rng = np.random.default_rng(0)
    scale = ENDS[dtype] ** rng.uniform(0, 1, (40, 1)) / 8
    boxes = np.concatenate(
        [(random_boxes(rng, 40, 6.0, (1.0, 2.0)) - 4) * scale, random_boxes(rng, 3, 1.0, (1.0, 2.0))]
    )
    boxes = np.concatenate([boxes, ENDS[dtype] * np.array([[-1, -1, 1, 1], [-1, 0, 1, 1e-9], [0.99, 0.99, 1, 1]])])
    boxes = boxes.astype(dtype)
    (got,) = call(backend, op, boxes1=boxes, boxes2=boxes, **NO_EPS.get(op, {}))
    want = np.array([[exact(op, a, b) for b in boxes] for a in boxes])
    np.testing.assert_allclose(got, want, rtol=0, atol=8 * np.finfo(dtype).eps)
    (paired,) = call(backend, op, boxes1=boxes, boxes2=boxes[::-1].copy(), paired=True, **NO_EPS.get(op, {}))
    np.testing.assert_array_equal(paired, np.diagonal(got[:, ::-1]))


small = arrays(np.float64, (3, 4), elements=st.integers(-40, 40))


@pytest.mark.parametrize("op", cases.PAIRWISE)
@pytest.mark.parametrize("dtype", ENDS)
@given(small, small, st.integers(0, 10**6))
def test_scale_does_not_matter(op, dtype, boxes1, boxes2, power):
    """To the bit, from where areas are normal numbers up to where coordinates end."""
    limits = np.finfo(dtype)
    low, high = limits.minexp // 2 + 30, limits.maxexp - 7
    scale = 2.0 ** (low + power % (high - low + 1))
    got, want = (
        getattr(boxops, op)((boxes1 * s).astype(dtype), (boxes2 * s).astype(dtype), **NO_EPS.get(op, {}))
        for s in (scale, 1.0)
    )
    np.testing.assert_array_equal(got, want)


def twins(dtype, scale):
    """40 boxes apart from each other, then a twin of each; scores fall in this order."""
    corner = np.stack(np.divmod(np.arange(40), 7), axis=1) - 3.0
    boxes = np.concatenate([corner, corner + 0.5], axis=1)
    return np.tile(boxes * scale, (2, 1)).astype(dtype), np.linspace(1, 0.5, 80).astype(dtype)


@pytest.mark.parametrize("count", [80, 1000])
@pytest.mark.parametrize(("dtype", "scale"), [(d, s) for d in SCALES for s in SCALES[d]])
def test_no_twin_survives(backend, dtype, scale, count):
    """`count`: with ordinary boxes before and after them, so many that NMS on the CPU files them."""
    boxes, scores = twins(dtype, scale)
    more = random_boxes(np.random.default_rng(0), count - 80, 1e4, (5.0, 20.0)).astype(dtype)
    first, n = len(more) // 2, len(more) // 2 + 40
    boxes = np.concatenate([more[:first], boxes, more[first:]])
    scores = np.concatenate([np.linspace(3, 2, first), scores, np.linspace(0.4, 0.1, len(more) - first)]).astype(dtype)
    gone, groups = np.arange(n, n + 40), np.zeros(count, np.int64)
    common = {"boxes": boxes, "scores": scores, "iou_threshold": 0.5}
    (keep,) = call(backend, "nms", **common)
    assert not np.isin(gone, keep).any() and np.isin(gone - 40, keep).all()
    (ordinary,) = call(
        backend, "nms", boxes=more, scores=np.delete(scores, np.arange(first, first + 80)), iou_threshold=0.5
    )
    np.testing.assert_array_equal(
        keep[(keep < first) | (keep >= first + 80)], ordinary + np.where(ordinary < first, 0, 80)
    )
    np.testing.assert_array_equal(call(backend, "batched_nms", **common, idxs=groups)[0], keep)
    padded = {name: value[None] if isinstance(value, np.ndarray) else value for name, value in common.items()}
    np.testing.assert_array_equal(call(backend, "nms_padded", **padded, max_output=count)[0][0, : len(keep)], keep)
    found = call(backend, "detect", boxes=boxes[None], scores=scores[None, :, None], score_threshold=0.0,
                 iou_threshold=0.5, max_output=count)  # fmt: skip
    np.testing.assert_array_equal(found[0][0, : found[3][0]], boxes[keep])
    soft = {"method": "linear", "score_threshold": 0.05}
    taken, _ = call(backend, "soft_nms", **{**common, "iou_threshold": 0.5}, **soft)
    assert not np.isin(gone, taken).any() and np.isin(gone - 40, taken).all()
    fused = call(backend, "weighted_boxes_fusion", boxes_list=[boxes], scores_list=[scores], labels_list=[groups])
    assert len(fused[0]) == np.isfinite(fused[0]).all(axis=1).sum() <= count - 40
    assert np.isin(boxes[n - 40 : n, 2], fused[0][:, 2]).all()


@pytest.mark.parametrize(("dtype", "scale"), [(d, s) for d in SCALES for s in SCALES[d]])
def test_no_rotated_twin_survives(backend, dtype, scale):
    corners, scores = twins(dtype, scale)
    boxes = np.c_[corners[:, :2], corners[:, 2:] - corners[:, :2], np.arange(80) % 40 * 8.0].astype(dtype)
    common = {"boxes": boxes, "scores": scores, "iou_threshold": 0.7}
    np.testing.assert_array_equal(call(backend, "rotated_nms", **common)[0], np.arange(40))
    keep = call(backend, "batched_rotated_nms", **common, idxs=np.zeros(80, np.int64))[0]
    np.testing.assert_array_equal(keep, np.arange(40))
    iou = call(backend, "rotated_box_iou", boxes1=boxes, boxes2=boxes)[0]
    unit = boxes / np.array([scale] * 4 + [1], dtype)
    np.testing.assert_allclose(iou, boxops.rotated_box_iou(unit, unit), atol=1e-6)


@pytest.mark.parametrize(("dtype", "scale"), [(d, s) for d in SCALES for s in SCALES[d]])
def test_twins_match(backend, dtype, scale):
    boxes = twins(dtype, scale)[0][:40]
    for options in ({"high": 0.7, "low": 0.3}, {"high": 2.0, "low": 0.3, "allow_low_quality": True}):
        matches, ious = call(backend, "match_max_iou", anchors=boxes, gt_boxes=boxes[::-1].copy(), **options)
        np.testing.assert_array_equal(matches, np.arange(40)[::-1])
        np.testing.assert_array_equal(ious, np.ones(40))
    ignored = {"gt_boxes": boxes[:1], "ignore_boxes": boxes[5:9], "high": 0.7}
    matches, _ = call(backend, "match_max_iou", anchors=boxes, **ignored)
    np.testing.assert_array_equal(matches, [0, -1, -1, -1, -1, -2, -2, -2, -2, *[-1] * 31])
    matches, _ = call(backend, "match_greedy", anchors=boxes, gt_boxes=boxes[::-1].copy())
    np.testing.assert_array_equal(matches, np.arange(40)[::-1])
    size = boxes[:, 2:] - boxes[:, :2]
    centred = np.concatenate([boxes[:, :2] + size / 2, size], axis=1)
    truth = {"gt_labels": np.zeros(40, np.int64), "gt_boxes": centred, "offsets": np.array([0, 40])}
    weights = {"class_weight": 0.0, "box_weight": 0.0, "giou_weight": 1.0}
    logits = np.zeros((1, 40, 2), dtype)
    (cost,) = call(backend, "detr_cost", logits=logits, boxes=centred[None], **truth, **weights)
    assert np.isfinite(cost).all()
    np.testing.assert_allclose(np.diagonal(cost.reshape(40, 40)), -1, rtol=1e-6)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("op", cases.PAIRWISE)
def test_gradient(device, op, paired):
    """That of the boxes at an ordinary scale, divided by the scale; with ordinary boxes among them, never NaN."""
    import torch

    for dtype, scale in ((torch.float32, 2.0**90), (torch.float32, 2.0**115), (torch.float64, 2.0**900)):
        gradients = []
        for s in (1.0, scale):
            boxes = [torch.tensor(random_boxes(np.random.default_rng(i), 300, 60.0, (20.0, 90.0)) * s, dtype=dtype,
                                  device=device, requires_grad=True) for i in range(2)]  # fmt: skip
            out = getattr(boxops, op)(*boxes, paired=paired, **NO_EPS.get(op, {}))
            gradients.append([g * s for g in torch.autograd.grad(out.sum(), boxes)])
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    mixed = torch.tensor(
        random_boxes(np.random.default_rng(0), 64, 60.0, (20.0, 90.0)), dtype=torch.float32, device=device
    )
    mixed[::2] *= 2.0 ** torch.linspace(50, 118, 32, device=device)[:, None]
    boxes = [mixed.clone().requires_grad_(), mixed.flip(0).requires_grad_()]
    for g in torch.autograd.grad(getattr(boxops, op)(*boxes, paired=paired).sum(), boxes):
        assert g.isfinite().all()
