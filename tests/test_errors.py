"""Bad calls: every one is refused in the words "<op>: expected <what>, got <what>", the same for NumPy and torch."""

import inspect
import re

import backends
import cases
import numpy as np
import pytest
from cases.case import zeros

import boxops

# (op, arguments, what is said after "<op>: expected ")
VALUES = cases.gathered("WRONG_VALUES")
TYPES = cases.gathered("WRONG_TYPES")


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


def call_without_values(op, arguments):
    """Shape functions look at less: what they do refuse, they refuse as calls do, or torch does."""
    try:
        backends.Torch("meta").run(op, arguments)
    except (ValueError, RuntimeError) as error:
        assert re.search(rf"^{op}: expected|meta Tensors|dimension", str(error))


@pytest.mark.parametrize("op", cases.CASES)
def test_tensors_without_values(op):
    backends.TORCH.require()
    for arguments in [arguments for other, arguments, _ in VALUES if other == op]:
        call_without_values(op, arguments)
    arguments = cases.CASES[op][0].arguments("float32")
    for name, value in arguments.items():
        for shape in ((), (4,), (3, 4), (2, 3, 4), (1, 2, 3, 4), (1, 1, 2, 3, 4)):
            if isinstance(value, np.ndarray):
                call_without_values(op, {**arguments, name: np.zeros(shape, value.dtype)})


@pytest.mark.parametrize("op", cases.CASES)
def test_no_arrays(backend, op):
    """A list in the place of any of an op's arrays."""
    arguments = cases.CASES[op][0].arguments("float32")
    parameters = inspect.signature(getattr(boxops, op)).parameters
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and "Array" in parameters[name].annotation:  # not of numbers
            with pytest.raises(TypeError, match=rf"^{op}: expected .*\barrays?\b.*, got .*\blist\b"):
                getattr(backend.ops, op)(**backend.converted(arguments) | {name: [[0.0, 1.0]]})


@pytest.mark.parametrize("dtype", [object, "U4", "datetime64[s]", "S3", [("x", float)]])
def test_no_numbers(dtype):
    boxes = np.empty((3, 4), dtype)
    with pytest.raises(ValueError, match=r"^box_area: expected boxes of a real number type, got "):
        boxops.box_area(boxes)
    with pytest.raises(ValueError, match=r"^nms: expected scores of a real number type, got "):
        boxops.nms(zeros(3, 4), boxes[:, 0], 0.5)
    with pytest.raises(ValueError, match=r"^weighted_boxes_fusion: expected labels_list\[1\] of a real number type"):
        boxops.weighted_boxes_fusion([zeros(3, 4)] * 2, [zeros(3)] * 2, [zeros(3), boxes[:, 0]])


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
