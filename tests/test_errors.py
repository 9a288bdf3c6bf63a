"""Bad calls: every one is refused in the words "<op>: expected <what>, got <what>", the same for NumPy and torch."""

import backends
import cases
import numpy as np
import pytest

import boxops


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


FORMATS = "'xyxy', 'xywh', 'cxcywh'"
NMS, BATCHED = {"scores": zeros(3), "iou_threshold": 0.5}, {"scores": zeros(3), "iou_threshold": 0.5, "idxs": zeros(3)}
PADDED = {"boxes": zeros(2, 3, 4), "scores": zeros(2, 3), "iou_threshold": 0.5, "max_output": 2}
PAIR = {"boxes1": zeros(3, 4), "boxes2": zeros(3, 4)}
OUTSIDE = "size = (height, width), both >= 0"
NO_ARRAY = "arrays (NumPy, torch or DLPack)"

# (op, arguments, what is said after "<op>: expected ")
VALUES = [
    ("box_area", {"boxes": zeros(3, 5)}, "boxes of shape [..., 4], got [3, 5]"),
    ("box_area", {"boxes": zeros()}, "boxes of shape [..., 4], got []"),
    ("box_area", {"boxes": zeros(4, 3), "fmt": "xywh"}, "boxes of shape [..., 4], got [4, 3]"),
    ("box_area", {"boxes": zeros(*[1] * 16, 4)}, "arrays of at most 16 dims, got 17"),
    ("box_area", {"boxes": zeros(3, 4), "fmt": "yxyx"}, f"fmt to be one of {FORMATS}, got 'yxyx'"),
    ("box_area", {"boxes": zeros(3, 4), "fmt": None}, f"fmt to be one of {FORMATS}, got None"),
    ("box_area", {"boxes": zeros(3, 4, dtype=bool)}, "boxes of a real number type, got bool"),
    ("box_area", {"boxes": zeros(3, 4, dtype=np.complex64)}, "boxes of a real number type, got complex64"),
    ("box_convert", {"boxes": zeros(4, 1), "in_fmt": "xyxy", "out_fmt": "xywh"}, "boxes of shape [..., 4], got [4, 1]"),
    ("box_convert", {"boxes": zeros(4), "in_fmt": "", "out_fmt": "xyxy"}, f"in_fmt to be one of {FORMATS}, got ''"),
    ("box_convert", {"boxes": zeros(4), "in_fmt": "xyxy", "out_fmt": 1}, f"out_fmt to be one of {FORMATS}, got 1"),
    ("clip_boxes_to_image", {"boxes": zeros(3), "size": (1, 1)}, "boxes of shape [..., 4], got [3]"),
    ("clip_boxes_to_image", {"boxes": zeros(4), "size": (-1, 5)}, f"{OUTSIDE}, got (-1, 5)"),
    ("clip_boxes_to_image", {"boxes": zeros(4), "size": (2, np.nan)}, f"{OUTSIDE}, got (2, nan)"),
    ("remove_small_boxes", {"boxes": zeros(4), "min_size": 1}, "boxes of shape [N, 4], got [4]"),
    ("remove_small_boxes", {"boxes": zeros(2, 3, 4), "min_size": 1}, "boxes of shape [N, 4], got [2, 3, 4]"),
    ("remove_small_boxes", {"boxes": zeros(3, 4), "min_size": np.nan}, "a number for min_size, got nan"),
    ("box_iou", {**PAIR, "boxes1": zeros(3, 5)}, "boxes1 of shape [..., N, 4], got [3, 5]"),
    ("box_iou", {**PAIR, "boxes2": zeros(4)}, "boxes2 of shape [..., M, 4], got [4]"),
    ("box_iou", {**PAIR, "boxes2": zeros(3, 5), "fmt": "xywh"}, "boxes2 of shape [..., M, 4], got [3, 5]"),
    ("box_iou", {**PAIR, "boxes1": zeros(3), "paired": True}, "boxes1 of shape [..., 4], got [3]"),
    ("box_iou", {**PAIR, "boxes1": zeros(3, 4, dtype=bool)}, "boxes1 of a real number type, got bool"),
    ("box_iou", {"boxes1": zeros(2, 3, 4), "boxes2": zeros(3, 3, 4)},
        "leading dims that broadcast, got [2, 3, 4] and [3, 3, 4]"),
    ("box_iou", {"boxes1": zeros(2, 4), "boxes2": zeros(3, 4), "paired": True},
        "leading dims that broadcast, got [2, 4] and [3, 4]"),
    ("box_iou", {**PAIR, "fmt": "xyxyr"}, f"fmt to be one of {FORMATS}, got 'xyxyr'"),
    ("box_ioa", {**PAIR, "boxes1": zeros(3, 5)}, "boxes1 of shape [..., N, 4], got [3, 5]"),
    ("generalized_box_iou", {**PAIR, "boxes2": zeros(5)}, "boxes2 of shape [..., M, 4], got [5]"),
    ("distance_box_iou", {**PAIR, "eps": -1.0}, "eps >= 0 and finite, got -1"),
    ("complete_box_iou", {**PAIR, "eps": np.nan}, "eps >= 0 and finite, got nan"),
    ("generalized_box_iou_loss", {**PAIR, "reduction": "max"},
        "reduction to be one of 'none', 'mean', 'sum', got 'max'"),
    ("distance_box_iou_loss", {**PAIR, "boxes1": zeros(3, 5)}, "boxes1 of shape [..., 4], got [3, 5]"),
    ("complete_box_iou_loss", {**PAIR, "boxes2": zeros(2, 4)}, "leading dims that broadcast, got [3, 4] and [2, 4]"),
    ("nms", {**NMS, "boxes": zeros(3, 5)}, "boxes of shape [N, 4], got [3, 5]"),
    ("nms", {**NMS, "boxes": zeros(4)}, "boxes of shape [N, 4], got [4]"),
    ("nms", {**NMS, "boxes": zeros(1, 3, 4)}, "boxes of shape [N, 4], got [1, 3, 4]"),
    ("nms", {**NMS, "boxes": zeros(3, 4), "scores": zeros(4)}, "scores of shape [3], got [4]"),
    ("nms", {**NMS, "boxes": zeros(3, 4), "scores": zeros(3, 1)}, "scores of shape [3], got [3, 1]"),
    ("nms", {**NMS, "boxes": zeros(3, 4), "scores": zeros(3, dtype=bool)}, "scores of a real number type, got bool"),
    ("nms", {**NMS, "boxes": zeros(3, 4, dtype=np.complex128)}, "boxes of a real number type, got complex128"),
    ("nms", {**NMS, "boxes": zeros(3, 4), "iou_threshold": -0.5}, "iou_threshold >= 0, got -0.5"),
    ("nms", {**NMS, "boxes": zeros(0, 4), "scores": zeros(0), "iou_threshold": np.nan}, "iou_threshold >= 0, got nan"),
    ("batched_nms", {**BATCHED, "boxes": zeros(3, 4), "idxs": zeros(3, dtype=complex)},
        "idxs of a real number type, got complex128"),
    ("batched_nms", {**BATCHED, "boxes": zeros(3, 4), "idxs": zeros(2, dtype=np.int64)}, "idxs of shape [3], got [2]"),
    ("nms_padded", {**PADDED, "boxes": zeros(3, 4)}, "boxes of shape [B, N, 4], got [3, 4]"),
    ("nms_padded", {**PADDED, "scores": zeros(2, 4)}, "scores of shape [2, 3], got [2, 4]"),
    ("nms_padded", {**PADDED, "max_output": -1}, "max_output >= 0, got -1"),
    ("nms_padded", {**PADDED, "labels": zeros(2, 3, dtype=complex)}, "labels of a real number type, got complex128"),
    ("nms_padded", {**PADDED, "labels": zeros(3, dtype=np.int64)}, "labels of shape [2, 3], got [3]"),
    ("nms_padded", {**PADDED, "score_threshold": np.nan}, "a number for score_threshold, got nan"),
    *cases.gathered("WRONG_VALUES"),
]  # fmt: skip

BOX = zeros(1, 4)
TYPES = [
    ("box_area", {"boxes": [[0, 0, 1, 1]]}, f"{NO_ARRAY}, got list"),
    ("box_iou", {"boxes1": None, "boxes2": None}, f"{NO_ARRAY}, got NoneType"),
    ("nms", {"boxes": [[0.0, 0, 1, 1]], "scores": [1.0], "iou_threshold": 0.5}, f"{NO_ARRAY}, got list"),
    ("nms", {"boxes": BOX, "scores": zeros(1), "iou_threshold": "0.5"}, "iou_threshold as a number, got str"),
    ("nms", {"boxes": BOX, "scores": zeros(1), "iou_threshold": None}, "iou_threshold as a number, got NoneType"),
    ("nms_padded", {**PADDED, "max_output": 2.5}, "max_output as an integer, got float"),
    ("nms_padded", {**PADDED, "score_threshold": "0"}, "score_threshold as a number, got str"),
    ("distance_box_iou", {**PAIR, "eps": "small"}, "eps as a number, got str"),
    ("clip_boxes_to_image", {"boxes": BOX, "size": 5}, "size = (height, width), got 5"),
    ("clip_boxes_to_image", {"boxes": BOX, "size": (1, 2, 3)}, "size = (height, width), got (1, 2, 3)"),
    ("remove_small_boxes", {"boxes": BOX, "min_size": None}, "min_size as a number, got NoneType"),
    *cases.gathered("WRONG_TYPES"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arguments", "words"), VALUES, ids=[f"{op}: {words}" for op, _, words in VALUES])
def test_wrong_value(backend, op, arguments, words):
    with pytest.raises((ValueError, RuntimeError)) as error:
        backend.run(op, arguments)
    assert str(error.value) == f"{op}: expected {words}"


@pytest.mark.parametrize(("op", "arguments", "words"), TYPES, ids=[f"{op}: {words}" for op, _, words in TYPES])
def test_wrong_type(backend, op, arguments, words):
    with pytest.raises(TypeError) as error:
        backend.run(op, arguments)
    assert str(error.value) == f"{op}: expected {words}"


@pytest.mark.parametrize("dtype", [object, "U4", "datetime64[s]", "S3", [("x", float)]])
def test_no_numbers(dtype):
    boxes = np.empty((3, 4), dtype)
    with pytest.raises(ValueError, match=r"^box_area: expected boxes of a real number type, got "):
        boxops.box_area(boxes)
    with pytest.raises(ValueError, match=r"^nms: expected scores of a real number type, got "):
        boxops.nms(zeros(3, 4), boxes[:, 0], 0.5)


def test_kinds_do_not_mix(device):
    import torch

    tensor, array = torch.zeros(3, 4, device=device), zeros(3, 4)
    for first, second, got in ((tensor, array, "Tensor and ndarray"), (array, tensor, "ndarray and Tensor")):
        with pytest.raises(TypeError, match=rf"^box_iou: expected arrays of one kind, got {got}$"):
            boxops.box_iou(first, second)
    with pytest.raises(TypeError, match=r"^nms: expected arrays of one kind, got Tensor and list$"):
        boxops.nms(tensor, [1.0, 2.0, 3.0], 0.5)


@pytest.mark.gpu
def test_devices_do_not_mix():
    backends.CUDA.require()
    import torch

    on_cpu, on_cuda = torch.zeros(3, 4), torch.zeros(3, 4, device="cuda")
    with pytest.raises(RuntimeError, match=r"^box_iou: expected boxes1 and boxes2 on one device, got cpu and cuda:0$"):
        boxops.box_iou(on_cpu, on_cuda)
    with pytest.raises(RuntimeError, match=r"^nms: expected scores on the device of boxes \(cuda:0\), got cpu$"):
        boxops.nms(on_cuda, on_cpu[:, 0], 0.5)


def test_nothing_is_left_behind(device):
    """An error in one call does not spoil the next."""
    import torch

    boxes = torch.tensor([[0.0, 0, 1, 1]], device=device)
    for _ in range(3):
        with pytest.raises((ValueError, RuntimeError)):
            boxops.nms(boxes, boxes, 0.5)
        assert boxops.nms(boxes, boxes[:, 3], 0.5).tolist() == [0]
