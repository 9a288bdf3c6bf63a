"""Arrays of any other framework, through DLPack: the results are of the kind that came."""

import types

import cases
import numpy as np
import pytest

import boxops
from boxops import reference


class Foreign:
    """An array that shows nothing but DLPack, its shape and device, and a namespace of what the ops need."""

    device = "cpu"

    def __init__(self, array):
        self.array = array

    @property
    def shape(self):
        return self.array.shape

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __array_namespace__(self):
        return types.SimpleNamespace(
            from_dlpack=lambda result: Foreign(np.from_dlpack(result)),
            concat=lambda parts: Foreign(np.concatenate([part.array for part in parts])),
            asarray=lambda values, device: Foreign(np.asarray(values)),
        )


def own_kind():
    return Foreign, Foreign, lambda foreign: foreign.array


def array_api():
    strict = pytest.importorskip("array_api_strict")
    return strict.asarray, type(strict.asarray([0.0])), np.asarray


def converted(value, from_numpy):
    if isinstance(value, list):
        return [converted(item, from_numpy) for item in value]
    return from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("framework", [own_kind, array_api])
@pytest.mark.parametrize("op", [op for op in cases.CASES if op not in cases.LOSSES])
def test_kind_is_kept(op, framework):
    from_numpy, kind, to_numpy = framework()
    checked = 0
    for case in cases.CASES[op][:12]:
        arguments = case.arguments("float32")
        foreign = {name: converted(value, from_numpy) for name, value in arguments.items()}
        got, want = getattr(boxops, op)(**foreign), getattr(reference, op)(**arguments)
        for g, w in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, want)), strict=True):
            assert isinstance(g, kind)
            np.testing.assert_allclose(to_numpy(g), w, rtol=2e-6, atol=2e-6)
            checked += 1
    assert checked


def test_strides_and_sharing():
    """A view with negative strides is read as it is, and the input stays untouched and alive."""
    boxes = np.arange(24, dtype=np.float64).reshape(6, 4)[::-1]
    foreign = Foreign(boxes)
    areas = boxops.box_area(foreign).array
    np.testing.assert_array_equal(areas, reference.box_area(boxes))
    for _ in range(3):  # every export is released
        boxops.box_area(foreign)
    np.testing.assert_array_equal(boxes[::-1].ravel(), np.arange(24))


def test_unknown_memory():
    class Elsewhere(Foreign):
        def __dlpack_device__(self):
            return 9, 0  # OpenGL

    with pytest.raises(TypeError, match=r"^box_area: expected arrays on the CPU or a CUDA device, got "):
        boxops.box_area(Elsewhere(np.zeros((3, 4))))
