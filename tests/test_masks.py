"""paste_masks and masks_to_boxes: the reference's numbers on every backend, and torchvision's."""

import backends
import numpy as np
import pytest
from box_sets import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops


def test_layouts(backend):
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 6, 30.0, (2.0, 40.0)).astype(np.float32)
    masks = rng.random((6, 7, 7), np.float32)
    backends.check_layouts(backend, "paste_masks", {"masks": masks, "boxes": boxes, "image_size": (30, 41)})
    backends.check_layouts(backend, "masks_to_boxes", {"masks": (masks > 0.9).astype(np.int16)})


def test_truth_in_any_layout(backend):
    rng = np.random.default_rng(2)
    masks = rng.random((6, 20, 30)) < 0.01
    for turned in (masks.swapaxes(1, 2), masks[:, ::2, 3:], masks[:0]):
        got = backend.to_numpy(backend.ops.masks_to_boxes(backend.to_array(turned)))
        np.testing.assert_array_equal(got, boxops.reference.masks_to_boxes(turned))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threshold_is_pasting_and_comparing(backend, dtype):
    rng = np.random.default_rng(3)
    masks, boxes = rng.random((5, 9, 9)).astype(dtype), random_boxes(rng, 5, 40.0)
    masks, boxes = backend.to_array(masks), backend.to_array(boxes)
    values = backend.to_numpy(backend.ops.paste_masks(masks, boxes, (80, 90)))
    for threshold in (0.5, float(values[2, 40, 40]), 0.0, -0.5):
        got = backend.to_numpy(backend.ops.paste_masks(masks, boxes, (80, 90), threshold=threshold))
        assert got.dtype == bool
        np.testing.assert_array_equal(got, values > values.dtype.type(threshold))


def test_a_full_mask_fills_its_box(backend):
    masks, boxes = np.ones((1, 4, 4), np.float32), np.array([[3, 2, 8, 6]], np.float32)
    got = backend.to_numpy(
        backend.ops.paste_masks(backend.to_array(masks), backend.to_array(boxes), (10, 12), padding=0)
    )
    want = np.zeros((1, 10, 12), np.float32)
    want[0, 2:7, 3:9] = 1
    np.testing.assert_array_equal(got, want)


@given(arrays(bool, st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 70))))
def test_boxes_hold_their_masks(masks):
    for mask, (x1, y1, x2, y2) in zip(masks, boxops.masks_to_boxes(masks).astype(int), strict=True):
        inside = mask[y1 : y2 + 1, x1 : x2 + 1]
        assert mask.sum() == inside.sum()
        if mask.any():
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [14, 28])
def test_torchvision_paste(torchvision, size, padding):
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    rng = np.random.default_rng(size)
    # Where a box lies wholly outside of the image, torchvision raises.
    boxes = torch.from_numpy(random_boxes(rng, 40, 240.0, (0.0, 250.0)) - 60).float()
    boxes[:, 2:].clamp_(min=0)
    masks = torch.from_numpy(rng.random((40, 1, size, size), np.float32))
    # A coordinate of up to 30 in a float32 mask is rounded to 2e-6, and both are as far as that (2.6e-6 seen) from the
    # result in float64; how torchvision rounds depends on the processor.
    for dtype, tolerance in ((torch.float32, 4e-6), (torch.float64, 1e-12)):
        got = boxops.paste_masks(masks.to(dtype), boxes, (200, 260), padding=padding)
        want = paste_masks_in_image(masks.to(dtype), boxes, (200, 260), padding)
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


def test_torchvision_masks_to_boxes(torchvision):
    import torch

    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.random((30, 50, 70)) < 2e-3)
    masks[3] = False
    for dtype in (torch.bool, torch.uint8, torch.float32, torch.int64):
        torch.testing.assert_close(boxops.masks_to_boxes(masks.to(dtype)), torchvision.masks_to_boxes(masks.to(dtype)))
