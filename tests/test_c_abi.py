"""boxops_c.h by way of ctypes: the results and the words of the errors are those of NumPy's binding."""

import ctypes as C
import pathlib
import re
import threading

import numpy as np
import pytest

import boxops

ROOT = pathlib.Path(__file__).parent.parent
HEADER = ROOT / "csrc" / "include" / "boxops" / "boxops_c.h"
DTYPES = [
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "bool",
]
OK, INVALID, NO_MEMORY = 0, 1, 2


class Tensor(C.Structure):
    _fields_ = [
        ("data", C.c_void_p), ("shape", C.POINTER(C.c_int64)), ("strides", C.POINTER(C.c_int64)), ("ndim", C.c_int32),
        ("dtype", C.c_int32), ("device_type", C.c_int32), ("device_index", C.c_int32),
    ]  # fmt: skip


TYPES = {"const boxops_tensor*": C.POINTER(Tensor), "boxops_tensor**": C.POINTER(C.POINTER(Tensor)),
         "boxops_tensor*": C.POINTER(Tensor), "double": C.c_double, "int64_t": C.c_int64, "int": C.c_int,
         "const double*": C.POINTER(C.c_double), "const int64_t*": C.POINTER(C.c_int64), "void*": C.c_void_p,
         "const char*": C.c_char_p, "void": None}  # fmt: skip


def load():
    """The library, with the functions' types as the header has them; enums are ints."""
    path = pathlib.Path(boxops.__file__).parent / "lib" / "libboxops.so"
    if not path.exists():
        pytest.skip("the emulator has no libboxops", allow_module_level=True)
    library = C.CDLL(str(path))
    text = re.sub(r"//.*", "", HEADER.read_text())
    for result, name, arguments in re.findall(r"BOXOPS_API ([\w ]+\*?) ?(boxops_\w+)\(([^)]*)\);", text):
        function = getattr(library, name)
        names = [re.match(r"(.*?[ *])\w+$", a.strip())[1].strip() for a in arguments.split(",") if a.strip() != "void"]
        function.argtypes = [TYPES.get(a, C.c_int) for a in names]
        function.restype = TYPES.get(result.strip(), C.c_int)
    return library


LIBRARY = load()


def view(array):
    """A Tensor of a NumPy array, strides included, and what must outlive it."""
    shape = (C.c_int64 * array.ndim)(*array.shape)
    strides = (C.c_int64 * array.ndim)(*(s // array.itemsize for s in array.strides))
    tensor = Tensor(array.ctypes.data, shape, strides, array.ndim, DTYPES.index(array.dtype.name), 0, 0)
    tensor.keep = array, shape, strides
    return tensor


def numpy(result):
    tensor = result.contents
    shape = tuple(tensor.shape[: tensor.ndim])
    dtype = np.dtype(DTYPES[tensor.dtype])
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(C.string_at(tensor.data, count), dtype).reshape(shape)


def call(name, *arguments, results=1):
    """(status, results or the error's words)"""
    out = [C.POINTER(Tensor)() for _ in range(results)]
    views = [view(a) if isinstance(a, np.ndarray) else a for a in arguments]
    passed = [C.byref(a) if isinstance(a, (Tensor, C.c_double, C.c_int64)) else a for a in views]
    status = getattr(LIBRARY, f"boxops_{name}")(*passed, *(C.byref(o) for o in out), None)
    if status != OK:
        assert not any(out)
        return status, LIBRARY.boxops_last_error().decode()
    arrays = [numpy(o) for o in out]
    for o in out:
        LIBRARY.boxops_free(o)
    return status, arrays[0] if results == 1 else arrays


def scene(n=60, dtype=np.float32):
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 100, (n, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (n, 2))], 1).astype(dtype)
    return boxes, rng.uniform(0, 1, n).astype(dtype), rng.integers(0, 3, n)


BOXES, SCORES, LABELS = scene()
ROTATED = np.concatenate([BOXES, SCORES[:, None] * 90], 1)
FEATURES = np.random.default_rng(5).normal(size=(2, 8, 20, 24)).astype(np.float32)
ROIS = np.concatenate([LABELS[:, None] % 2, BOXES / 5], 1).astype(np.float32)
MASKS = np.random.default_rng(7).uniform(0, 1, (60, 6, 6)).astype(np.float32)
OFFSETS = np.random.default_rng(9).normal(size=(60, 4)).astype(np.float32)
CLASSES = np.random.default_rng(11).uniform(0, 1, (1, 60, 3)).astype(np.float32)
WEIGHTS = (C.c_double * 4)(10, 10, 5, 5)

# name, arguments, how many results, and what NumPy's binding gives
CALLS = [
    ("box_area", (BOXES, 1), 1, lambda: boxops.box_area(BOXES, fmt="xywh")),
    ("box_convert", (BOXES, 0, 2), 1, lambda: boxops.box_convert(BOXES, "xyxy", "cxcywh")),
    ("clip_boxes_to_image", (BOXES, 50.0, 70.0), 1, lambda: boxops.clip_boxes_to_image(BOXES, (50, 70))),
    ("remove_small_boxes", (BOXES, 20.0), 1, lambda: boxops.remove_small_boxes(BOXES, 20)),
    ("encode_boxes", (BOXES, BOXES[::-1], 0, WEIGHTS, None), 1,
     lambda: boxops.encode_boxes(BOXES, BOXES[::-1], weights=(10, 10, 5, 5))),
    ("decode_boxes", (OFFSETS, BOXES, 0, WEIGHTS, None, 4.0, (C.c_double * 2)(50, 70)), 1,
     lambda: boxops.decode_boxes(OFFSETS, BOXES, weights=(10, 10, 5, 5), clip=4.0, image_size=(50, 70))),
    ("box_iou", (BOXES, BOXES[::-2], 0, 0, 0, 0.0), 1, lambda: boxops.box_iou(BOXES, BOXES[::-2])),
    ("box_iou", (BOXES, BOXES[::-1], 4, 0, 1, 1e-7), 1,
     lambda: boxops.complete_box_iou(BOXES, BOXES[::-1], paired=True)),
    ("rotated_box_iou", (ROTATED, ROTATED, 0), 1, lambda: boxops.rotated_box_iou(ROTATED, ROTATED)),
    ("nms", (BOXES, SCORES, 0.3), 1, lambda: boxops.nms(BOXES, SCORES, 0.3)),
    ("batched_nms", (BOXES, SCORES, LABELS, 0.3), 1, lambda: boxops.batched_nms(BOXES, SCORES, LABELS, 0.3)),
    ("nms_padded", (BOXES[None], SCORES[None], 0.3, 80, LABELS[None], C.c_double(0.2)), 2,
     lambda: boxops.nms_padded(BOXES[None], SCORES[None], 0.3, 80, idxs=LABELS[None], score_threshold=0.2)),
    ("soft_nms", (BOXES, SCORES, 0.3, 1, 0.5, 0.05, None), 2,
     lambda: boxops.soft_nms(BOXES, SCORES, 0.3, method="gaussian", sigma=0.5, score_threshold=0.05)),
    ("rotated_nms", (ROTATED, SCORES, 0.3), 1, lambda: boxops.rotated_nms(ROTATED, SCORES, 0.3)),
    ("batched_rotated_nms", (ROTATED, SCORES, LABELS, 0.3), 1,
     lambda: boxops.batched_rotated_nms(ROTATED, SCORES, LABELS, 0.3)),
    ("detect", (BOXES[None], CLASSES, 0.3, 0.4, 20, C.c_int64(9), C.c_double(6.0), 0), 4,
     lambda: boxops.detect(BOXES[None], CLASSES, 0.3, 0.4, 20, topk_per_class=9, min_size=6.0)),
    ("match_max_iou", (BOXES, BOXES[:9], 0.6, 0.3, 1, None, BOXES[9:12], None, 0.5), 2,
     lambda: boxops.match_max_iou(BOXES, BOXES[:9], 0.6, 0.3, True, ignore_boxes=BOXES[9:12])),
    ("match_greedy", (BOXES, BOXES[:9], C.c_double(0.5), None), 2,
     lambda: boxops.match_greedy(BOXES, BOXES[:9], iou_threshold=0.5)),
    ("linear_sum_assignment", (SCORES.reshape(6, 10), 0, None, 0), 2,
     lambda: boxops.linear_sum_assignment(SCORES.reshape(6, 10))),
    ("roi_align", (FEATURES, ROIS, 7, 5, 0.5, 2, 1), 1,
     lambda: boxops.roi_align(FEATURES, ROIS, (7, 5), 0.5, 2, True)),
    ("roi_pool", (FEATURES, ROIS, 7, 5, 0.5), 1, lambda: boxops.roi_pool(FEATURES, ROIS, (7, 5), 0.5)),
    ("ps_roi_align", (FEATURES, ROIS, 2, 2, 0.5, 2), 1,
     lambda: boxops.ps_roi_align(FEATURES, ROIS, (2, 2), 0.5, 2)),
    ("ps_roi_pool", (FEATURES, ROIS, 2, 2, 0.5), 1, lambda: boxops.ps_roi_pool(FEATURES, ROIS, (2, 2), 0.5)),
    ("paste_masks", (MASKS, BOXES, 40, 50, 1, C.c_double(0.5)), 1,
     lambda: boxops.paste_masks(MASKS, BOXES, (40, 50), threshold=0.5)),
    ("masks_to_boxes", (MASKS > 0.8,), 1, lambda: boxops.masks_to_boxes(MASKS > 0.8)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "results", "expected"), CALLS, ids=[one[0] for one in CALLS])
def test_results_are_those_of_numpy(name, arguments, results, expected):
    status, got = call(name, *arguments, results=results)
    assert status == OK, got
    want = expected()
    for a, b in zip([got] if results == 1 else got, [want] if results == 1 else want, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_every_op_is_called():
    ops = set(re.findall(r"boxops_status boxops_(\w+)\(", HEADER.read_text()))
    assert ops == {name for name, *_ in CALLS}


def test_dtype_numbers_and_version():
    for name in ("uint8", "int64", "float16", "float64"):
        array = np.arange(8).reshape(2, 4).astype(name)
        np.testing.assert_array_equal(call("box_area", array, 0)[1], boxops.box_area(array))
    toml = (ROOT / "pyproject.toml").read_text()
    assert LIBRARY.boxops_version().decode() == re.search(r'^version = "(.*)"', toml, re.M)[1]
    assert "cpu" in LIBRARY.boxops_build_info().decode()


@pytest.mark.parametrize("boxes", [BOXES[:, :3], BOXES[None], BOXES[:5]], ids=["3 numbers", "rank 3", "5 boxes"])
def test_errors_in_the_words_of_numpy(boxes):
    with pytest.raises(ValueError) as error:
        boxops.nms(boxes, SCORES, 0.5)
    assert call("nms", boxes, SCORES, 0.5) == (INVALID, str(error.value))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": 13}, "nms: expected boxes of a boxops_dtype, got 13"),
        ({"device_type": 2}, "nms: expected boxes on a boxops_device, got 2"),
        ({"ndim": 17}, "nms: expected boxes of 0 to 16 dims, got 17"),
        ({"shape": None}, "nms: expected boxes with a shape, got NULL"),
        ({"data": None}, "nms: expected boxes with data, got NULL"),
        ({"shape": (C.c_int64 * 2)(-1, 4)}, "nms: expected boxes with sizes >= 0, got -1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_a_struct_may_hold(change, words):
    boxes = view(BOXES)
    for field, value in change.items():
        setattr(boxes, field, value)
    assert call("nms", boxes, SCORES, 0.5) == (INVALID, words)


def test_null_and_memory():
    assert call("nms", None, SCORES, 0.5) == (INVALID, "nms: expected boxes to be an array, got NULL")
    assert LIBRARY.boxops_nms(C.byref(view(BOXES)), C.byref(view(SCORES)), 0.5, None, None) == INVALID
    assert LIBRARY.boxops_last_error() == b"nms: expected a place for each result, got NULL"
    LIBRARY.boxops_free(None)
    many = Tensor(BOXES.ctypes.data, (C.c_int64 * 2)(1 << 40, 4), (C.c_int64 * 2)(0, 1), 2, DTYPES.index("float32"))
    status, words = call("box_iou", many, many, 0, 0, 0, 0.0)
    assert status == NO_MEMORY
    assert words.startswith("box_iou: expected memory for [1099511627776, 1099511627776] float32")
    huge = Tensor(BOXES.ctypes.data, (C.c_int64 * 3)(1 << 40, 1 << 40, 4), None, 3, DTYPES.index("float32"))
    assert call("box_area", huge, 0)[0] == NO_MEMORY


def test_errors_belong_to_their_thread():
    assert call("nms", BOXES, SCORES[:5], 0.5)[0] == INVALID
    here = LIBRARY.boxops_last_error()
    there = []
    thread = threading.Thread(target=lambda: there.append((LIBRARY.boxops_last_error(), call("box_area", BOXES, 7))))
    thread.start()
    thread.join()
    assert there[0][0] == b"" and there[0][1][0] == INVALID
    assert here == LIBRARY.boxops_last_error() != b""


def test_threads():
    before = LIBRARY.boxops_get_num_threads()
    LIBRARY.boxops_set_num_threads(3)
    assert LIBRARY.boxops_get_num_threads() == 3
    LIBRARY.boxops_set_num_threads(before)
