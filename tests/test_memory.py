"""Where memory runs out: an error in our words, on every binding and inside of every op, and the process lives."""

import sys

import numpy as np
import pytest
from test_machine import fresh_python

import boxops


def test_more_than_there_is(backend):
    zeros, options = np.zeros((1, 3, 4), np.float32), {"iou_threshold": 0.5, "max_output": 2**40}
    calls = {
        "nms_padded": ({"boxes": zeros, "scores": zeros[..., 0], **options}, "[1, 1099511627776] int64 (8796 GB)"),
        "detect": ({"boxes": zeros, "scores": zeros[..., :2], "max_output": 2**58},
                   "[1, 288230376151711744, 4] float32 (4.612e+09 GB)"),
        "sample_matches": ({"matches": np.zeros(3, np.int64), "batch_size_per_image": 2**60},
                           "[1152921504606846976] int64 (9.223e+09 GB)"),
        "multibox_anchors": ({"grid_size": (2**25, 2**25), "sizes": [1], "aspect_ratios": [1], "like": zeros},
                             "[1125899906842624, 4] float32 (1.801e+07 GB)"),
        "paste_masks": ({"masks": zeros, "boxes": zeros[0, :1], "image_size": (2**30, 2**30)},
                        "[1, 1073741824, 1073741824] float32 (4.612e+09 GB)"),
    }  # fmt: skip
    where = "cpu" if backend.name in ("numpy", "torch-cpu") else "cuda:0"
    for op, (made, array) in calls.items():
        with pytest.raises((MemoryError, RuntimeError)) as error:
            backend.run(op, made)
        assert str(error.value) == f"{op}: expected memory for {array} on {where}, got none"


def test_memory_runs_out_in_a_thread():
    """More classes than memory, of which each thread wants a row: an error, and the process lives."""
    logits = np.broadcast_to(np.float32(0), (2, 3000, 2**44))
    boxes = np.ones((2, 3000, 4), np.float32)
    arrays = [logits, boxes, np.zeros(200, np.int64), np.ones((200, 4), np.float32), np.array([0, 100, 200])]
    with pytest.raises(MemoryError, match=r"^detr_cost: expected memory to work in, got none$"):
        boxops.detr_cost(*arrays)
    torch = pytest.importorskip("torch")
    tensors = [torch.zeros(1, 1, 1).expand(logits.shape), *map(torch.from_numpy, arrays[1:])]
    with pytest.raises(RuntimeError, match=r"^detr_cost: expected memory to work in, got none$"):
        boxops.detr_cost(*tensors)


LIMITED = """
import resource, sys
import numpy as np
import boxops
convert = (lambda array: array) if sys.argv[1] == "numpy" else __import__("torch").from_numpy
n = 200_000
rng = np.random.default_rng(0)
boxes, scores = convert(rng.random((n, 4), np.float32)), convert(rng.random(n, np.float32))
loss, matches = convert(rng.random((8, n), np.float32)), convert(rng.integers(-1, 2, (8, n), np.int32))
calls = [
    ("nms", (boxes, scores, 0.5)), ("soft_nms", (boxes, scores)), ("box_iou", (boxes[:2000], boxes[:2000])),
    ("linear_sum_assignment", (convert(rng.random((3000, 3000))),)), ("match_max_iou", (boxes, boxes, 0.5)),
    ("sample_matches", (matches, n)), ("mine_hard_negatives", (loss, matches)),
    ("box_convert", (boxes, "xyxy", "xywh")),
    ("weighted_boxes_fusion", ([boxes], [scores], [matches[0]])), ("nms_padded", (boxes[None], scores[None], 0.5, n)),
    ("detect", (boxes[None], scores[None, :, None])), ("encode_boxes", (boxes, boxes)),
    ("generalized_box_iou_loss", (convert(rng.random((8, n, 4), np.float32)),) * 2),
]
boxops.box_area(boxes[:10])  # what the first call loads
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**19, -1))
for op, arguments in calls:
    try:
        getattr(boxops, op)(*arguments)
        print(op, "found memory")
    except (MemoryError, RuntimeError) as error:
        assert str(error).startswith(op + ": expected memory "), (op, repr(error))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_memory_runs_out_anywhere(kind):
    """For a result or inside of an op: an error in our words, and the process lives."""
    if kind == "torch":
        pytest.importorskip("torch")
    done = fresh_python(LIMITED, kind, OMP_NUM_THREADS="1", BOXOPS_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("found memory") < 4, done.stdout
