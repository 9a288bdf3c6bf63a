"""Elements further apart than 2^31: a small array laid out with huge strides in memory that is mostly never touched.

What runs is each kernel, CPU and emulated CUDA, on offsets past 2^31 and 2^32 of its inputs. Outputs past 2^31
elements take that much memory: tests/cpp/index_test.cpp writes the last of them on the CPU, and
tests/test_cuda.py all of them on a device.
"""

import mmap
import sys

import backends
import numpy as np
import pytest
from box_sets import random_boxes

from boxops import reference

FAR = 2**31 + 3  # elements between neighbours
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs memory that is reserved lazily")


def spread(array, step=FAR):
    """The same values with `step` elements between neighbours of the first dim."""
    size = (array.shape[0] * step + array[0].size) * array.itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000))
    strides = (step * array.itemsize, *array.strides[1:])
    far = np.lib.stride_tricks.as_strided(np.frombuffer(memory, array.dtype), array.shape, strides, writeable=True)
    far[:] = array
    return far


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "op",
    ["box_area", "box_convert", "clip_boxes_to_image", "remove_small_boxes", "box_iou", "paired", "nms", "nms_padded"],
)
def test_strides(backend, op, reverse):
    if backend in (backends.TORCH, backends.CUDA):
        pytest.skip("the NumPy binding runs the same kernels")
    rng = np.random.default_rng(0)
    boxes, scores = random_boxes(rng, (3, 5), 50.0).astype(np.float32), rng.random((3, 5)).astype(np.float32)
    groups = rng.integers(0, 2, (3, 5))
    options = {}
    if op == "nms_padded":
        near = {"boxes": boxes, "scores": scores, "idxs": groups}
        options = {"iou_threshold": 0.2, "max_output": 4}
    elif op == "nms":
        near, options = {"boxes": boxes[:, 0], "scores": scores[:, 0]}, {"iou_threshold": 0.2}
    elif op in ("box_iou", "paired"):
        near, options = (
            {"boxes1": boxes, "boxes2": boxes[:, :4] if op == "box_iou" else boxes},
            {"paired": op == "paired"},
        )
    else:
        near = {"boxes": boxes[:, 0]}
        more = {"box_convert": {"in_fmt": "xyxy", "out_fmt": "cxcywh"}, "clip_boxes_to_image": {"size": (20, 30)}}
        options = more.get(op, {"min_size": 5.0} if op == "remove_small_boxes" else {})
    far = {name: spread(value) for name, value in near.items()}
    if reverse:
        near, far = ({name: value[::-1] for name, value in arrays.items()} for arrays in (near, far))
    name = "box_iou" if op == "paired" else op
    want, got = getattr(reference, name)(**near, **options), backend.run(name, {**far, **options})
    for g, w in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, want)), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(g), w)
