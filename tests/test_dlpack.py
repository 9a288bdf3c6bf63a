"""Arrays of any other framework, through DLPack: the results are of the kind that came."""

import gc
import sys
import types
import weakref

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
            from_dlpack=lambda result: type(self)(np.from_dlpack(result)),
            concat=lambda parts: type(self)(np.concatenate([part.array for part in parts])),
            asarray=lambda values, device: type(self)(np.asarray(values)),
        )


class Narrow(Foreign):
    """As JAX with its 32 bits: no int64 nor float64, and read-only."""

    def __init__(self, array):
        if array.dtype == np.int64:
            array = array.astype(np.int32)  # without a word, as jax.numpy.from_dlpack does
        self.array = array.astype(np.float32) if array.dtype == np.float64 else array.copy()
        self.array.flags.writeable = False
        self.dtype = self.array.dtype


class Old(Foreign):
    """From before DLPack 1.0: knows no max_version."""

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__(stream=stream)


def own_kind():
    return Foreign, Foreign, lambda foreign: foreign.array


def narrow():
    return Narrow, Narrow, lambda foreign: foreign.array


def old():
    return Old, Old, lambda foreign: foreign.array


def array_api():
    strict = pytest.importorskip("array_api_strict")
    return strict.asarray, type(strict.asarray([0.0])), np.asarray


def jax():
    framework = pytest.importorskip("jax")
    return (
        lambda array: framework.numpy.asarray(array.astype(np.int32) if array.dtype == np.int64 else array),
        framework.Array,
        np.asarray,
    )


def in_32_bits(array):
    """The few values beyond int32 become its ends."""
    return array.clip(-(2**31), 2**31 - 1) if array.dtype == np.int64 else array


def converted(value, from_numpy):
    if isinstance(value, list):
        return [converted(item, from_numpy) for item in value]
    return from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("framework", [own_kind, narrow, old, array_api, jax])
@pytest.mark.parametrize("op", [op for op in cases.CASES if op not in cases.LOSSES])
def test_kind_is_kept(op, framework):
    from_numpy, kind, to_numpy = framework()
    checked = 0
    for case in cases.CASES[op][:12]:
        arguments = {name: converted(value, in_32_bits) for name, value in case.arguments("float32").items()}
        foreign = {name: converted(value, from_numpy) for name, value in arguments.items()}
        got, want = getattr(boxops, op)(**foreign), getattr(reference, op)(**arguments)
        for g, w in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, want)), strict=True):
            assert isinstance(g, kind)
            np.testing.assert_allclose(to_numpy(g), w, rtol=2e-6, atol=2e-6)
            checked += 1
    assert checked


@pytest.mark.filterwarnings("error")
def test_results_that_a_framework_cannot_hold():
    """Labels of NumPy beside boxes of a framework of 32 bits: what fits comes out, what does not is refused."""
    boxes, scores = Narrow(np.array([[0, 0, 1, 1]], np.float32)), Narrow(np.ones(1, np.float32))
    fused = boxops.weighted_boxes_fusion([boxes], [scores], [np.array([2**31 - 1])])
    assert fused[2].array.tolist() == [2**31 - 1]
    with pytest.raises(ValueError, match=r"^weighted_boxes_fusion: expected results that int32 holds \(JAX"):
        boxops.weighted_boxes_fusion([boxes], [scores], [np.array([2**40])])


@pytest.mark.parametrize("x64", [False, True])
def test_a_training_step_in_jax(x64):
    """An op's results are the next one's arguments, in 32 and in 64 bits."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(x64):
        anchors = boxops.multibox_anchors((4, 4), [0.5, 0.3], [1.0], like=jax.numpy.zeros(1))
        offsets = jax.numpy.asarray([0, 2, 3])
        matches, _ = boxops.match_max_iou(anchors, anchors[::12], 0.7, 0.3, offsets=offsets)
        indices, positives, sampled = boxops.sample_matches(matches, 8, seed=1)
        hard = boxops.mine_hard_negatives(jax.numpy.zeros(matches.shape), matches)
        assert indices.dtype == matches.dtype == jax.numpy.asarray([0]).dtype == ("int64" if x64 else "int32")
        want = reference.sample_matches(np.asarray(matches), 8, seed=1)
        for got, wanted in zip((indices, positives, sampled), want, strict=True):
            np.testing.assert_array_equal(np.asarray(got), wanted)
        assert hard.dtype == bool and hard.shape == matches.shape


class Bfloat16(Foreign):
    """A bfloat16 array that is no tensor, of a framework of its own."""

    def __array_namespace__(self):
        import torch

        return types.SimpleNamespace(from_dlpack=lambda result: Bfloat16(torch.from_dlpack(result)))


def test_bfloat16_is_kept(monkeypatch):
    """Also where there is no ml_dtypes, by which NumPy would know it."""
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    boxes = torch.tensor([[0, 1, 2, 4], [1, 1, 2, 3]]).bfloat16()
    masks = torch.rand(2, 3, 3).bfloat16()
    for op, arrays, more in [("box_convert", [boxes], ("xyxy", "cxcywh")), ("clip_boxes_to_image", [boxes], ((2, 2),)),
                             ("paste_masks", [masks, boxes], ((5, 5),)), ("box_area", [boxes], ())]:  # fmt: skip
        got = getattr(boxops, op)(*map(Bfloat16, arrays), *more).array
        want = getattr(boxops, op)(*arrays, *more)
        assert got.dtype == want.dtype and torch.equal(got, want)
    like = boxops.cell_anchors((2, 2), [(1, 2)], 8, like=Bfloat16(boxes)).array
    assert like.dtype == torch.bfloat16


def test_results_are_exported_as_asked():
    result = boxops.ops.backend._numpy_ops.DLPack.box_area(
        boxops.ops.backend._numpy_ops.DLPack(), np.ones((3, 4), np.float32), "xyxy"
    )
    assert (result.dtype, result.__dlpack_device__()) == ("float32", (1, 0))
    usual = {"stream": None, "copy": False, "dl_device": (1, 0)}
    for options in ({}, {"max_version": None}, {"max_version": (0, 8)}, {"max_version": (1, 3)}, usual):
        name = "dltensor_versioned" if options.get("max_version") == (1, 3) else "dltensor"
        assert f'"{name}"' in repr(result.__dlpack__(**options))
    for options in ({"copy": True}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError, match=r"^boxops: expected "):
            result.__dlpack__(**options)
    first, second = np.from_dlpack(result), np.from_dlpack(result)
    assert first.flags.writeable and np.shares_memory(first, second) and first.ctypes.data % 64 == 0
    del result
    gc.collect()
    assert first.tolist() == [0, 0, 0]


class OnCuda(Foreign):
    """Says that it is on CUDA device 3, and how it was asked for its memory."""

    asked: tuple = ()

    def __dlpack_device__(self):
        return 2, 3

    def __dlpack__(self, **options):
        OnCuda.asked = (*OnCuda.asked, options)
        raise BufferError("enough")


class Stream:
    def __init__(self, ptr):
        self.ptr = ptr


@pytest.mark.parametrize(("ptr", "number"), [(0, 1), (1, 1), (2, 2), (4096, 4096), (None, 1)])
def test_the_stream_of_the_caller(ptr, number, monkeypatch):
    """Memory is asked for on the stream that the framework works on, on the array's device; without one, on the
    legacy default stream."""
    devices = []

    def current(device):
        devices.append(device)
        return Stream(ptr)

    namespace = types.SimpleNamespace(from_dlpack=None, cuda=types.SimpleNamespace(get_current_stream=current))
    if ptr is None:
        del namespace.cuda
    monkeypatch.setattr(OnCuda, "__array_namespace__", lambda self: namespace)
    monkeypatch.setattr(OnCuda, "asked", ())
    with pytest.raises(BufferError, match="enough"):
        boxops.box_area(OnCuda(np.ones((3, 4))))
    assert OnCuda.asked == ({"stream": number, "max_version": (1, 0)},)
    assert devices == ([] if ptr is None else [3])


def test_the_stream_lives_as_long_as_results():
    """Their memory is given back on it. In the emulator, which has CUDA results without a GPU."""
    from cuda_emulator import DeviceArray, module

    if (emulated := module()) is None:
        pytest.skip("the CUDA emulator is not built")
    stream = Stream(4096)
    alive = weakref.ref(stream)
    result = emulated.DLPack.box_area(emulated.DLPack(stream), DeviceArray(np.ones((3, 4))), "xyxy")
    del stream
    gc.collect()
    assert alive() is not None
    capsule = result.__dlpack__(stream=1)
    del result
    assert alive() is not None
    del capsule
    assert alive() is None


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


def test_losses_of_another_framework():
    """They end in the framework's own arithmetic."""
    jax = pytest.importorskip("jax")
    boxes = np.array([[0, 0, 2, 2], [1, 1, 4, 5]], np.float32)
    for op in cases.LOSSES:
        for reduction in ("none", "mean", "sum"):
            got = getattr(boxops, op)(jax.numpy.asarray(boxes), jax.numpy.asarray(boxes[::-1]), reduction)
            want = getattr(reference, op)(boxes, boxes[::-1], reduction)
            np.testing.assert_allclose(np.asarray(got), want, rtol=1e-6)
