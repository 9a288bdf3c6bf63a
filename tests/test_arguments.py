"""Numbers, sizes and indices as people pass them: as any kind of array, of any integer type; too large; too many."""

import inspect
import re
import sys
import weakref

import backends
import cases
import numpy as np
import pytest
from test_machine import output_of

import boxops
from boxops import _numpy_ops

INDICES = ("matches", "offsets", "ignore_offsets", "gt_labels", "idxs")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64")
OPS = list(cases.CASES)


def results(value):
    return value if isinstance(value, tuple) else (value,)


def same(backend, got, want):
    for g, w in zip(results(got), results(want), strict=True):
        g, w = backend.to_numpy(g), backend.to_numpy(w)
        np.testing.assert_array_equal(g, w)
        assert g.dtype == w.dtype


# Indices


def with_indices(op):
    """Small cases whose indices every integer type holds, or every signed one."""
    for case in cases.CASES[op]:
        if "float32" not in case.dtypes:
            continue
        made = case.arguments("float32")
        given = [made[name] for name in INDICES if isinstance(made.get(name), np.ndarray)]
        if given and all(a.dtype == np.int64 and a.size < 3000 for a in given):
            values = np.concatenate([a.ravel() for a in given])
            if values.size and values.max() < 128 and values.min() >= -128:
                yield made, values.min() < 0


@pytest.mark.parametrize("op", [op for op in OPS if {*inspect.signature(getattr(boxops, op)).parameters} & {*INDICES}])
def test_any_integer_type(backend, op):
    checked = 0
    most = 1 if backend.name == "emulated-cuda" else 6  # it is slow
    for made, is_signed in list(with_indices(op))[:most]:
        arrays = backend.converted(made)
        want = getattr(backend.ops, op)(**arrays)
        for dtype in INTEGERS:
            if is_signed and dtype.startswith("u"):
                continue
            other = {n: a.astype(dtype) if n in INDICES and a is not None else a for n, a in made.items()}
            got = getattr(backend.ops, op)(**backend.converted(other))
            same(backend, got, want)
            checked += 1
            other = {
                n: np.repeat(a, 2, -1)[..., ::2] if n in INDICES and a is not None else a for n, a in other.items()
            }
            same(backend, getattr(backend.ops, op)(**backend.converted(other)), want)  # with strides
    assert checked


def test_indices_that_no_int64_holds(backend):
    """uint64 beyond it stays large, where a cast would make it -1, a negative."""
    matches = np.array([2**64 - 1, 2**63, 3, 2**63 - 1], np.uint64)
    made = backend.converted({"matches": matches, "batch_size_per_image": 8, "positive_fraction": 1.0, "seed": 0})
    indices, positives, _ = (
        boxops.sample_matches(**made) if backend.ops is boxops else backend.ops.sample_matches(**made)
    )
    assert backend.to_numpy(positives) == 4
    assert backend.to_numpy(indices).tolist() == [0, 1, 2, 3, -1, -1, -1, -1]


# Numbers


def small_case(op):
    """The case with the most arguments that are plain numbers or pairs, among the small ones."""
    found = [case.arguments("float32") for case in cases.CASES[op] if "float32" in case.dtypes][:40]
    return max(found, key=lambda made: sum(is_plain(value) for value in made.values()))


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_plain(value):
    """A number, or numbers in lists and tuples."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(is_plain(item) for item in value)
    return is_number(value)


def even(value):
    """Whether an array can hold it."""
    try:
        return np.array(value).dtype != object
    except ValueError:
        return False


def forms(value):
    """The same number or numbers in other clothes."""
    array = np.array(value)
    yield "NumPy", array
    if array.ndim == 0:
        yield "NumPy scalar", array[()]
        yield "one element", array.reshape(1)
        yield "two dims", array.reshape(1, 1)
        if isinstance(value, int):
            yield "small", array.astype(np.int16) if abs(value) < 2**15 else array
        elif np.float32(value) == value:
            yield "float32", np.float32(value)
    elif array.ndim == 1:
        yield "list of scalars", [np.asarray(item) for item in value]
        yield "tuple", tuple(value)
        yield "list", [*value]
    if backends.torch is not None:
        tensor = backends.torch.from_numpy(array.copy())
        yield "tensor", tensor
        if array.ndim == 0:
            yield "tensor of one", tensor.reshape(1)
        elif array.ndim == 1 and array.dtype == np.int64 and (array >= 0).all():
            yield "torch.Size", backends.torch.Size(value)
    if "jax" in sys.modules and array.dtype == np.int64 and (abs(array) < 2**31).all():
        yield "jax", sys.modules["jax"].numpy.asarray(array)


@pytest.mark.filterwarnings("error")
@backends.FRAMEWORKS
@pytest.mark.parametrize("op", OPS)
def test_numbers_as_arrays(framework, op):
    framework.require()
    made = framework.converted(small_case(op))
    want = getattr(boxops, op)(**made)
    for name, value in made.items():
        if not is_plain(value) or not even(value):
            continue
        for form, other in forms(value):
            try:
                got = getattr(boxops, op)(**{**made, name: other})
            except Exception as error:
                raise AssertionError(f"{name} as {form}: {error}") from error
            same(framework, got, want)


@pytest.mark.parametrize(
    "size", [7, [7, 7], (7, 7), np.array(7), np.array([7]), np.array([7, 7], np.int32), np.int8(7)]
)
def test_sizes(size):
    features, boxes = np.random.default_rng(0).random((1, 2, 9, 9), np.float32), np.array([[0, 1, 1, 7, 8]], np.float32)
    want = boxops.roi_align(features, boxes, 7)
    np.testing.assert_array_equal(boxops.roi_align(features, boxes, size), want)
    torch = pytest.importorskip("torch")
    tensors = torch.from_numpy(features), torch.from_numpy(boxes)
    for other in (
        size,
        torch.as_tensor(size),
        torch.Size(np.atleast_1d(size)) if np.size(size) == 2 else torch.tensor(7),
    ):
        np.testing.assert_array_equal(boxops.roi_align(*tensors, other).numpy(), want)


def test_bools_are_integers():
    """As they are to torchvision's operators."""
    features, boxes = np.ones((1, 2, 9, 9), np.float32), np.array([[0, 1, 1, 7, 8]], np.float32)
    for ratio in (True, np.True_, np.array([True])):
        got = boxops.roi_align(features, boxes, 2, sampling_ratio=ratio)
        np.testing.assert_array_equal(got, boxops.roi_align(features, boxes, 2, sampling_ratio=1))


@backends.FRAMEWORKS
@pytest.mark.parametrize("op", OPS)
def test_integers_with_a_fraction(framework, op):
    """None is cut off, whatever holds it."""
    framework.require()
    made = framework.converted(small_case(op))
    for name, parameter in inspect.signature(getattr(boxops, op)).parameters.items():
        for half in (0.5, 1.0, np.array(0.5), framework.to_array(np.array([0.5]))):
            if parameter.annotation == "int":
                with pytest.raises(TypeError, match=rf"^{op}: expected {name} as an integer, got"):
                    getattr(boxops, op)(**{**made, name: half})


ONE = {"boxes": np.zeros((3, 4), np.float32), "scores": np.zeros(3, np.float32)}
ROI = {"input": np.ones((1, 2, 9, 9), np.float32), "boxes": np.zeros((1, 5), np.float32), "output_size": 2}
ARRAYS = ("boxes", "scores", "input", "masks", "boxes1", "boxes2")
CLIP, SIZE = {"boxes": ONE["boxes"]}, "output_size as an integer or (height, width)"
REFUSED = [
    ("nms", {**ONE, "iou_threshold": np.zeros(3)}, "iou_threshold as a number, got ndarray of shape [3]"),
    ("nms", {**ONE, "iou_threshold": np.zeros((0,))}, "iou_threshold as a number, got ndarray of shape [0]"),
    ("nms", {**ONE, "iou_threshold": np.complex64(1)}, "iou_threshold as a number, got complex64"),
    ("nms", {**ONE, "iou_threshold": np.array("0.5")}, "iou_threshold as a number, got ndarray"),
    ("nms", {**ONE, "iou_threshold": 10**400}, "iou_threshold as a number that float64 holds, got a larger one"),
    ("nms", {**ONE, "iou_threshold": [0.5]}, "iou_threshold as a number, got list"),
    ("clip_boxes_to_image", {**CLIP, "size": np.zeros(3)}, "size = (height, width), got ndarray of shape [3]"),
    ("clip_boxes_to_image", {**CLIP, "size": (1, np.zeros(2))}, "size as a number, got ndarray of shape [2]"),
    ("roi_align", {**ROI, "output_size": np.zeros(2)}, f"{SIZE}, got ndarray of shape [2]"),
    ("roi_align", {**ROI, "output_size": np.ones((2, 2), int)}, f"{SIZE}, got ndarray of shape [2, 2]"),
    ("roi_align", {**ROI, "output_size": 10**30}, "output_size as an integer that int64 holds, got a larger one"),
    ("roi_align", {**ROI, "sampling_ratio": -(10**30)},
        "sampling_ratio as an integer that int64 holds, got a larger one"),
    ("roi_align", {**ROI, "aligned": np.zeros(2)}, "aligned as a bool, got ndarray of shape [2]"),
    ("paste_masks", {"masks": np.ones((1, 2, 2), np.float32), "boxes": np.ones((1, 4)), "image_size": (2**64, 3)},
        "image_size as an integer that int64 holds, got a larger one"),
    ("box_iou", {"boxes1": np.zeros((1, 4)), "boxes2": np.zeros((1, 4)), "paired": np.zeros(3)},
        "paired as a bool, got ndarray of shape [3]"),
    ("box_area", {"boxes": np.zeros((1, 4)), "fmt": np.zeros(2)},
        "fmt to be one of 'xyxy', 'xywh', 'cxcywh', got ndarray of shape [2]"),
    ("box_area", {"boxes": np.zeros((1, 4)), "fmt": np.array(["xyxy"])},
        "fmt to be one of 'xyxy', 'xywh', 'cxcywh', got ndarray of shape [1]"),
    ("soft_nms", {**ONE, "method": np.zeros(2)}, "method to be one of 'linear', 'gaussian', got ndarray of shape [2]"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "made", "words"), REFUSED, ids=[words[:50] for _, _, words in REFUSED])
def test_refused(op, made, words):
    for framework in (backends.NUMPY, backends.TORCH) if backends.torch is not None else (backends.NUMPY,):
        arrays = {n: framework.to_array(v) if n in ARRAYS else v for n, v in made.items()}
        with pytest.raises((TypeError, ValueError), match=f"^{re.escape(f'{op}: expected {words}')}$"):
            getattr(boxops, op)(**arrays)


@pytest.mark.parametrize("huge", [10**30, -(10**30), 2**63, 10**400])
@pytest.mark.parametrize("op", OPS)
def test_huge_integers(backend, op, huge):
    """In the place of every number: a result, or a refusal in our words."""
    made = small_case(op)
    for name, value in made.items():
        if not is_number(value) or name == "seed":
            continue
        try:
            backend.run(op, {**made, name: huge})
        except (TypeError, ValueError, RuntimeError) as error:
            assert re.fullmatch(rf"{op}: expected .+, got .+", str(error)), f"{name}: {error}"


# Under torch.compile


def compiled(function, *args, **options):
    import torch

    torch.compiler.reset()
    return torch.compile(function, backend="aot_eager", fullgraph=True, **options)(*args)


HALF, THREE = np.float64(0.5), np.int64(3)
COMPILED = {
    "other numbers": lambda boxes, scores: boxops.nms_padded(boxes[None], scores[None], HALF, THREE),
    "torch.Size": lambda boxes, scores: boxops.clip_boxes_to_image(boxes, boxes.new_zeros(6, 7).shape),
    "a list": lambda boxes, scores: boxops.clip_boxes_to_image(boxes, [6, 7]),
    "sizes of a tensor": lambda boxes, scores: boxops.nms_padded(boxes[None], scores[None], 0.5, boxes.shape[0]),
    "a part of torch.Size": lambda boxes, scores: boxops.paste_masks(
        boxes[:, None].expand(-1, 4, -1).clone(), boxes, boxes.new_zeros(1, 6, 7).shape[-2:]
    ),
}


@pytest.mark.parametrize("name", list(COMPILED))
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled(name, dynamic):
    torch = pytest.importorskip("torch")
    boxes = torch.tensor([[0, 0, 9, 9], [1, 1, 9, 9], [5, 5, 7, 20.0]])
    arguments = boxes, torch.tensor([0.5, 0.7, 0.1])
    got, want = compiled(COMPILED[name], *arguments, dynamic=dynamic), COMPILED[name](*arguments)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("where", ["threshold", "size"])
def test_a_tensor_in_place_of_a_number(where):
    """Its value is read, which breaks the graph: then the result is right; with fullgraph the error says why."""
    torch = pytest.importorskip("torch")
    boxes = torch.tensor([[0, 0, 9, 9], [0, 0, 9, 8.0]])

    def program(boxes, number):
        if where == "size":
            return boxops.clip_boxes_to_image(boxes, number.expand(2))
        return boxops.nms_padded(boxes[None], boxes[None, :, 3], number, 2)

    broken = torch.compile(program, backend="aot_eager")
    for number in (torch.tensor(0.5), torch.tensor(0.95)):
        torch.testing.assert_close(broken(boxes, number), program(boxes, number), rtol=0, atol=0)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r": expected (iou_threshold|size) in Python numbers to co"):
        compiled(program, boxes, torch.tensor(0.5))


def test_a_number_without_a_value():
    """An integer read from a tensor inside of the graph stays in it."""
    torch = pytest.importorskip("torch")
    boxes = torch.tensor([[0, 0, 9, 9], [0, 0, 9, 8.0]])

    def program(boxes, count):
        most = count.item()
        torch._check(most >= 0)
        return boxops.nms_padded(boxes[None], boxes[None, :, 3], 0.5, most)[0]

    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        got = compiled(program, boxes, torch.tensor(3))
    assert got.tolist() == [[0, -1, -1]]


# The binding itself, whose errors are no matter of pybind11's


def test_calls_that_the_binding_refuses():
    boxes, scores = np.ones((2, 4)), np.ones(2)
    with pytest.raises(TypeError, match="nms: expected 3 arguments, got 2"):
        _numpy_ops.nms(boxes, scores)
    with pytest.raises(TypeError, match="nms: expected iou_threshold as a number, got str"):
        _numpy_ops.nms(boxes, scores, "half")
    with pytest.raises(TypeError, match=r"nms: expected arrays \(NumPy, torch or DLPack\), got list"):
        _numpy_ops.nms([1.0], scores, 0.5)
    with pytest.raises(TypeError, match="DLPack"):
        _numpy_ops.DLPack.nms(boxes, boxes, scores, 0.5)
    many = np.zeros((0,) * 17)  # more dims than an Array holds
    with pytest.raises(ValueError, match="expected arrays of at most 16 dims, got 17"):
        _numpy_ops.box_area(many, "xyxy")


def test_items_that_nobody_holds():
    """The binding holds them: a list may make them, or be changed by another thread, while the op runs."""
    made, held = [], []

    class Made:
        def __len__(self):
            return 1

        def __getitem__(self, i):
            if i:
                raise IndexError
            held.extend(array() is not None for array in made)
            array = np.zeros(3)
            made.append(weakref.ref(array))
            return array

    fused = _numpy_ops.weighted_boxes_fusion([np.ones((3, 4))], Made(), Made(), [1.0], 0.5, 0.5, "avg", False)
    assert [len(array) for array in fused] == [0, 0, 0]
    assert held and all(held)


# Names


def test_names():
    code = """
import sys, boxops
listed, late = {*dir(boxops)}, {"patch_torchvision", "provide_torchvision_ops", "reference", "swap"}
assert late | {"models", "data", "training", "evaluation", "draw", "nms"} <= listed
assert boxops.reference.nms.__module__ == "boxops.reference.nms"
print(sorted({"torch", "torchvision"} & {*sys.modules}))
"""
    assert output_of(code) == "[]"
