"""top_boxes."""

import backends
import cases
import numpy as np
import pytest
from box_sets import random_boxes

import boxops


@pytest.mark.parametrize("dtype", cases.FLOATS + cases.INTEGERS)
def test_reference(backend, dtype):
    backends.check_cases(backend, "top_boxes", dtype)


def test_layouts(backend):
    rng = np.random.default_rng(1)
    arguments = {"boxes": random_boxes(rng, 40).astype(np.float32), "scores": rng.random(40, np.float32)}
    backends.check_layouts(backend, "top_boxes", {**arguments, "min_score": 900, "method": "area"})


def test_by_hand(backend):
    boxes = np.float32([[0, 0, 2, 3], [0, 0, 9, 9], [2, 0, 0, 3], [np.nan, 0, 1, 1]])
    arrays = [backend.to_array(a) for a in (boxes, np.float32([0.5, 0.25, 1, 1]))]
    for method, want in (("score", ([0, 2, 3], [0.5, 1, 1])), ("area", ([0, 1], [3, 20.25]))):
        got = map(backend.to_numpy, backend.ops.top_boxes(*arrays, 0.25, method=method))
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g, w)


def test_scores_are_torchs_mask():
    torch = pytest.importorskip("torch")
    boxes, scores = cases.tensors()
    kept, values = boxops.top_boxes(boxes, scores, 0.3)
    assert torch.equal(kept, torch.nonzero(scores > 0.3)[:, 0]) and torch.equal(values, scores[kept])
