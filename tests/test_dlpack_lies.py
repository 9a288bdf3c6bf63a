"""Objects with a `__dlpack__` that lies: refused with a message, or read as far as the lie is harmless."""

import ctypes
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_fuzz import FUZZ, REFUSALS, watchdog  # noqa: F401

import boxops
from boxops import reference


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    )


new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Liar:
    """An array of [3, 4] float32 whose DLPack fields are as given, and that answers as given.

    With `major`, `minor` or `flags` among the fields it is of DLPack 1.0, else from before it."""

    def __init__(self, fields, **answers):
        self.memory = np.arange(64, dtype=np.float32)
        self.shape, self.strides = (ctypes.c_int64 * 16)(3, 4), (ctypes.c_int64 * 16)(4, 1)
        tensor = DLTensor(self.memory.ctypes.data, 1, 0, 2, 2, 32, 1, self.shape, self.strides, 0, None, None)
        self.versioned = Versioned(1, 0, None, None, 0, tensor) if {*fields} & {*VERSIONED} else None
        self.tensor = tensor if self.versioned is None else self.versioned.tensor
        for name, value in fields.items():
            if name in VERSIONED:
                setattr(self.versioned, name, value)
                continue
            if isinstance(value, tuple):
                value = (ctypes.c_int64 * 16)(*value)
                self.keep = [*getattr(self, "keep", []), value]
            setattr(self.tensor, name, value)
        self.answers = answers

    def answer(self, name, usual):
        value = self.answers.get(name, usual)
        if isinstance(value, Exception):
            raise value
        return value() if callable(value) else value

    def __dlpack_device__(self):
        return self.answer("device", (1, 0))

    def __dlpack__(self, **options):
        if self.versioned is None:
            return self.answer("capsule", lambda: new_capsule(ctypes.addressof(self.tensor), b"dltensor", None))
        address = ctypes.addressof(self.versioned)
        return self.answer("capsule", lambda: new_capsule(address, b"dltensor_versioned", None))

    def __array_namespace__(self):
        return self.answer("namespace", types.SimpleNamespace(from_dlpack=np.from_dlpack))


VERSIONED = {"major": [0, 1, 2, 2**32 - 1], "minor": [0, 1, 2**32 - 1], "flags": [0, 1, 2, 4, 2**64 - 1]}
USED = new_capsule(ctypes.addressof(ctypes.c_int64(0)), b"used_dltensor", None)
OTHER = new_capsule(ctypes.addressof(ctypes.c_int64(0)), b"used_dltensor_versioned", None)
UNNAMED = new_capsule(ctypes.addressof(ctypes.c_int64(0)), None, None)
RAISED = (ValueError("no"), BufferError("no"), RuntimeError("no"))
# Every field alone lies; memory itself cannot be checked, so sizes and strides stay within it unless refused.
LIES = {
    "ndim": [-1, 0, 1, 17, 65, 2**20, 2**31 - 1, -(2**31)],
    "shape": [None, (-3, 4), (3, -4), (2**62, 4), (2**62, 2**62), (0, 4), (3, 0), (0, 2**62), (2**63 - 1, 2**63 - 1)],
    "strides": [None, (0, 0), (0, 1), (4, 2), (1, 1)],
    "code": [0, 1, 3, 4, 5, 6, 7, 14, 255],
    "bits": [0, 1, 4, 7, 8, 12, 15, 16, 31, 33, 128, 255],
    "lanes": [0, 2, 4, 65535],
    "device_type": [0, 2, 3, 7, 13, 9999, -1],
    "data": [None],
    "byte_offset": [1, 2, 4, 16],
    **VERSIONED,
}
ANSWERS = {
    "capsule": [None, 3, "dltensor", object(), lambda: USED, lambda: OTHER, lambda: UNNAMED, *RAISED],
    "device": [None, (), (1,), (1, 0, 0), "cpu", (None, None), ("1", "0"), 1, (9, 0), (-1, 0), (2**40, 0), (1.5, 0),
               [1, 0], *RAISED],
    "namespace": [None, 3, np.float64, types.SimpleNamespace(), *RAISED],
}  # fmt: skip
FIELDS = [{k: v} for k, vs in LIES.items() for v in vs]
EACH_LIE = [*((f, {}) for f in FIELDS), *(({**f, "flags": 1}, {}) for f in FIELDS if "flags" not in f),
            *(({}, {k: v}) for k, vs in ANSWERS.items() for v in vs)]  # fmt: skip


@pytest.mark.parametrize(("fields", "answers"), EACH_LIE, ids=[f"{f or ''}{a or ''}"[:60] for f, a in EACH_LIE])
def test_each_lie(fields, answers):
    call_liar("box_area", Liar(fields, **answers))


@FUZZ
@given(st.data())
def test_many_lies(data):
    """Several lies at once; those that could lead outside the memory are refused for another one."""
    fields = {
        k: data.draw(st.sampled_from(LIES[k])) for k in data.draw(st.sets(st.sampled_from(list(LIES)), max_size=3))
    }
    if ("bits" in fields and fields["bits"] > 32) or ("code" in fields and fields.get("bits", 32) > 32):
        fields["lanes"] = 3
    answers = {
        k: data.draw(st.sampled_from(ANSWERS[k]))
        for k in data.draw(st.sets(st.sampled_from(list(ANSWERS)), max_size=1))
    }
    call_liar(
        data.draw(st.sampled_from(["box_area", "nms", "box_iou", "clip_boxes_to_image"])), Liar(fields, **answers)
    )


def call_liar(op, liar):
    rest = {"nms": (np.arange(3.0), 0.5), "box_iou": (np.ones((3, 4), "f4"),), "clip_boxes_to_image": ((5, 6),)}
    try:
        result = getattr(boxops, op)(liar, *rest.get(op, ()))
    except REFUSALS as error:
        assert str(error).strip(), f"{type(error).__name__} without a word"
        return
    assert isinstance(result, np.ndarray)
    tensor = liar.tensor
    assert liar.versioned is None or liar.versioned.major == 1
    assert (tensor.lanes, tensor.device_type in (1, 3), tensor.bits % 8) == (1, True, 0)
    if (tensor.code, tensor.bits, tensor.byte_offset % 4) == (2, 32, 0) and op == "box_area" and result.size:
        shape = tuple(tensor.shape[: tensor.ndim])
        strides = [4 * s for s in tensor.strides[: tensor.ndim]] if tensor.strides else None
        boxes = np.ndarray(shape, "f4", liar.memory.data, tensor.byte_offset, strides)
        np.testing.assert_array_equal(result, reference.box_area(boxes))


def test_words():
    """The refusals of what is no DLPack tensor are in our words."""
    for fields, answers, words in [
        ({"major": 2}, {}, "a DLPack tensor of version 1, got version 2"),
        ({}, {"device": "cpu"}, "__dlpack_device__ to give two integers, got 'cpu'"),
        ({}, {"capsule": 3}, "a fresh DLPack capsule from __dlpack__, got 3"),
        ({"flags": 1, "data": None}, {}, "a DLPack tensor with memory, got a null pointer"),
        ({"flags": 1, "shape": None}, {}, "a DLPack tensor with a shape, got none"),
    ]:
        with pytest.raises(REFUSALS) as error:
            boxops.box_area(Liar(fields, **answers))
        assert str(error.value) == f"box_area: expected {words}"
