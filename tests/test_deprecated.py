"""Arguments under their former names."""

import inspect
import pydoc
import re

import numpy as np
import pytest

import boxops

BOXES = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], np.float32)
SCORES = np.array([0.9, 0.8, 0.7], np.float32)
ONE = {"boxes_list": [BOXES], "scores_list": [SCORES], "labels_list": [np.zeros(3)]}
RPN = {"objectness": SCORES[None], "deltas": np.zeros((1, 3, 4), np.float32), "anchors": BOXES,
       "num_anchors_per_level": [3], "image_sizes": [(40, 40)]}  # fmt: skip

# Op, its other arguments, and a former name, today's and a value that makes a difference
FORMER = [
    ("nms_padded", {"boxes": BOXES[None], "scores": SCORES[None], "iou_threshold": 0.5, "max_output": 3},
     "labels", "idxs", np.array([[0, 1, 2]])),
    ("detect", {"boxes": BOXES[None], "scores": SCORES[None, :, None]}, "max_detections", "max_output", 1),
    ("generate_proposals", RPN, "nms_threshold", "iou_threshold", 0.5),
    ("weighted_boxes_fusion", ONE, "iou_thr", "iou_threshold", 0.8),
    ("weighted_boxes_fusion", ONE, "skip_box_thr", "score_threshold", 0.75),
    ("decode_boxes", {"anchors": BOXES}, "codes", "deltas", RPN["deltas"][0]),
    ("decode_boxes", {"deltas": RPN["deltas"][0], "anchors": BOXES}, "size", "image_size", (5, 6)),
    ("sample_matches", {"matches": np.array([0, -1, -1]), "seed": 1}, "size", "batch_size_per_image", 2),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arguments", "old", "new", "value"), FORMER, ids=[f"{f[0]} {f[2]}" for f in FORMER])
def test_former_name(op, arguments, old, new, value):
    function = getattr(boxops, op)
    with pytest.warns(DeprecationWarning, match=f"^{op}: {old} is now called {new}$") as caught:
        got = function(**arguments, **{old: value})
    assert caught[0].filename == __file__
    want = function(**arguments, **{new: value})
    for g, w in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, want)), strict=True):
        np.testing.assert_array_equal(g, w)
    with pytest.raises(TypeError, match=rf"^{op}\(\) got both '{new}' and '{old}', its former name$"):
        function(**arguments, **{old: value, new: value})


def renamed_ops():
    return [op for op in boxops.__all__ if hasattr(getattr(boxops, op), "former_names")]


def test_every_former_name_has_a_case():
    names = {(op, old, new) for op in renamed_ops() for old, new in getattr(boxops, op).former_names.items()}
    assert names == {(op, old, new) for op, _, old, new, _ in FORMER}


@pytest.mark.parametrize("op", renamed_ops())
def test_not_shown(op):
    function = getattr(boxops, op)
    names = [*inspect.signature(function).parameters]
    assert "former" not in names and not names & function.former_names.keys()
    assert not re.search("former|nothing", pydoc.plain(pydoc.render_doc(function)).splitlines()[2])
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    with pytest.raises(TypeError, match=rf"^{op}\(\) got an unexpected keyword argument 'hat'$"):
        function(*(BOXES for _ in required), hat=1)


def test_required_arguments():
    with pytest.raises(TypeError, match=r"^decode_boxes: expected arrays .*, got nothing$"):
        boxops.decode_boxes()
    with pytest.raises(TypeError, match=r"^sample_matches: expected batch_size_per_image as an integer, got nothing$"):
        boxops.sample_matches(np.array([0, -1]))


def test_compiled():
    """In one graph by the names of today, positions too."""
    torch = pytest.importorskip("torch")
    boxes, scores = torch.from_numpy(BOXES)[None], torch.from_numpy(SCORES)[None]

    def all_of_them(boxes, scores):
        found = boxops.detect(boxes, scores[..., None], 0.1, max_output=2)
        kept = boxops.nms_padded(boxes, scores, 0.5, 2, idxs=scores.long())
        return *found, *kept, boxops.decode_boxes(boxes, boxes, image_size=(9, 9))

    wanted = all_of_them(boxes, scores)
    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(boxes, scores), wanted, strict=True):
        assert torch.equal(got, want)
