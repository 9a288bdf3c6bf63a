"""Whatever is passed to an op, it gives the reference's result or an exception with a message: no crash, no hang.

BOXOPS_FUZZ_SECONDS=180 pytest tests/test_fuzz.py looks longer than CI does.
"""

import faulthandler
import functools
import os
import re
import sys
import warnings

import backends
import cases
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import boxops
from boxops import reference
from boxops.ops.backend import SIGNATURES

SECONDS = float(os.environ.get("BOXOPS_FUZZ_SECONDS", "10"))
FUZZ = settings(
    max_examples=max(20, int(40 * SECONDS)),
    deadline=None,
    derandomize="BOXOPS_FUZZ_SECONDS" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
REFUSALS = (ValueError, TypeError, RuntimeError, BufferError, OverflowError, MemoryError)

DTYPES = [*("f2", "f4", "f8"), *("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")]
ODD_DTYPES = ["?", "c8", "c16", "O", "U3", "S2", "M8[s]", "V8", "g", "S0", "f4,f4"]
NUMBERS = [0.0, -0.0, 1.0, 0.5, 3.0, 10.0, 7.25, -2.0, np.nan, np.inf, -np.inf, 1e30, -1e30, 1e308, 1e-40, 65504.0]
ONE = np.array([1])  # a number, or a list of one
KNOBS = [0, 0.5, 1, 1e300, -1, -0.0, 5e-324, np.nan, np.inf, -np.inf, np.float32(0.3), 10**400, None, "0.5", [], 1j,
         True, 2**70, -(10**30), np.array(0.5), ONE, np.zeros(2), np.ones((2, 2)), np.array("x"), np.int8(1),
         {}, object(), b"1", (1, 2), (1, (2, 3)), [None, 1], ["a", "b"], np.float16(2), np.longdouble(1)]  # fmt: skip
HUGE = 2**45  # boxes of no memory of their own: more than can be allocated for

often = st.integers(0, 19)
sizes = st.sampled_from([0, 1, 1, 2, 3, 3, 4, 5, 17])


@st.composite
def arrays(draw, shape=None, dtypes=DTYPES):
    """A NumPy array of the given shape, mostly, in any memory layout."""
    if shape is None or draw(often) == 0:
        shape = (*draw(st.lists(sizes, max_size=4)), draw(st.sampled_from([4, 4, 4, 0, 1, 5])))[: draw(sizes) or None]
    dtype = draw(st.sampled_from(ODD_DTYPES if draw(often) == 0 else dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.integers(0, 20, shape).astype("f8")
    if len(shape) > 0 and shape[-1] == 4 and draw(st.booleans()):
        values[..., 2:] += values[..., :2] + 1
    if draw(st.booleans()):
        values = np.where(rng.random(shape) < 0.2, rng.choice(NUMBERS, shape), values)
    if np.dtype(dtype).kind in "iu":
        values = np.nan_to_num(values, nan=1, posinf=100, neginf=0).clip(0, 100)
    with np.errstate(all="ignore"):
        try:
            array = np.asarray(values).astype(dtype)
        except (TypeError, ValueError):
            array = np.zeros(shape, dtype)
    return draw(st.sampled_from(LAYOUTS))(array)


def structured(array):
    """A field of records: strides that are no multiple of the element."""
    records = np.zeros(array.shape, np.dtype([("pad", "u1"), ("x", array.dtype)]))
    records["x"] = array
    return records["x"]


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, "u1")[1:]
    if array.dtype.kind == "O" or array.nbytes == 0:
        return array
    view = memory.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def reversed_all(array):
    return array[(slice(None, None, -1),) * array.ndim].copy()[(slice(None, None, -1),) * array.ndim]


def broadcast(array):
    """One row, as often as there were rows: strides of 0."""
    return np.broadcast_to(array[:1], array.shape) if array.ndim and len(array) else array


def read_only(array):
    array.flags.writeable = False
    return array


def gapped(array):
    return np.repeat(array, 2, axis=0)[::2] if array.ndim else array


LAYOUTS = [lambda a: a, np.asfortranarray, structured, misaligned, reversed_all, broadcast, read_only, gapped,
           lambda a: a.astype(a.dtype.newbyteorder(">")), lambda a: a.view(np.ma.MaskedArray)]  # fmt: skip


class Drawing:
    """What the random arguments of a call are made of, `DRAWN` in tests/cases: sound parts, now and then one that is
    not."""

    def __init__(self, draw):
        self.draw = draw
        self.n, self.m, self.batch = draw(sizes), draw(sizes), draw(sizes)
        self.dtypes = [draw(st.sampled_from(DTYPES))] if self.often() else DTYPES  # of boxes: of all one, mostly
        self.formats = ("xyxy", "xywh", "cxcywh") if self.often() else ("", None, 3, b"xyxy")

    def often(self):
        return self.draw(often) != 0

    def either(self):
        return self.draw(st.booleans())

    def one_of(self, *values):
        return self.draw(st.sampled_from(values))

    def knob(self, usual):
        return usual if self.often() else self.one_of(*KNOBS)

    def fmt(self):
        return self.one_of(*self.formats)

    def array(self, shape, dtypes=DTYPES):
        return self.draw(arrays(shape, dtypes))

    def boxes(self, *lead):
        return self.array((*lead, 4), self.dtypes)


@st.composite
def arguments(draw, make):
    return make(Drawing(draw))


def elements(value):
    if isinstance(value, (list, tuple)):
        return sum(map(elements, value))
    return value.size if isinstance(value, np.ndarray) else 1


@functools.cache
def small_cases(op):
    return [
        case for case in cases.CASES[op] if "float32" in case.dtypes and elements([*case.arguments().values()]) < 2000
    ]


@st.composite
def spoiled(draw, op):
    """Keyword arguments of a small case, each part now and then of another type, shape, layout or value."""

    def spoil(value):
        odd = draw(often) == 0
        if isinstance(value, list) and value:
            value = [spoil(item) for item in value]
            return value[1:] if odd else value
        if not isinstance(value, np.ndarray):
            return draw(st.sampled_from(KNOBS)) if odd else value
        if odd:
            return draw(arrays())
        if draw(often) == 0:
            value = value[: draw(sizes)] if value.ndim else value
        if draw(often) == 0 and value.dtype.kind in "fiu" and value.size:
            with np.errstate(all="ignore"):
                value = np.where(
                    np.arange(value.size).reshape(value.shape) % 5 == 0, draw(st.sampled_from(NUMBERS)), value
                )
                value = value.astype(draw(st.sampled_from([*DTYPES, "i8", "f4", "f4"])))
        return draw(st.sampled_from(LAYOUTS))(value.copy())

    case = draw(st.sampled_from(small_cases(op)))
    made = case.arguments(draw(st.sampled_from([d for d in ("float32", "float64", "float16") if d in case.dtypes])))
    return {name: spoil(value) for name, value in made.items()}


def calls_of(op):
    return arguments(DRAWN[op]) | spoiled(op) if op in DRAWN else spoiled(op)


def converted(value, convert):
    if isinstance(value, list):
        return [converted(item, convert) for item in value]
    return convert(value) if isinstance(value, np.ndarray) else value


def check_words(op, words):
    """A refusal is in our words, never pybind's, torch's or the C++ library's."""
    name = f"{op.removesuffix('_loss')}(_loss)?"  # a loss without eps is the measure
    assert re.fullmatch(rf"(?s){name}: expected .+, got .+", words), f"{op} refused with {words!r}"


def outcome(op, made, odd=False):
    """The result of the op as NumPy arrays, or None where it refused as it should; of odd tensors torch may."""
    try:
        result = getattr(boxops, op)(**made)
    except REFUSALS as error:
        if odd:
            assert str(error).strip(), f"{type(error).__name__} without a word"
        else:
            check_words(op, str(error))
        return None
    results = result if isinstance(result, tuple) else (result,)
    if any(str(getattr(r, "device", "")) == "meta" for r in results):  # no values to look at
        return None
    return [np.asarray(r) for r in results]


def plain(value):
    """What the reference is given: Python's numbers, and arrays that are native and contiguous."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    if isinstance(value, bool):  # which the ops take as 0 or 1
        return int(value)
    if isinstance(value, np.ndarray) and value.ndim and value is not ONE:
        return np.array(value, value.dtype.newbyteorder("="))
    return value.item() if isinstance(value, (np.number, np.ndarray)) else value


def plainly(op, made):
    kinds = {name: kind for name, (kind, *_) in SIGNATURES.get(op, {}).items()}

    def plain_as(kind, value):
        if kind == "bool":  # whatever is true
            return bool(value)
        return plain([value] if value is ONE and kind in ("ints", "floats") else value)

    return {name: plain_as(kinds.get(name), value) for name, value in made.items()}


def check(op, made, got):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = getattr(reference, op)(**plainly(op, made))
    want = [np.asarray(w) for w in (want if isinstance(want, tuple) else (want,))]
    for g, w in zip(got, want, strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        if g.dtype.kind == "f":  # the cases look for equal bits; here sums may have another order
            one_place = np.finfo(g.dtype).eps  # of float16 1e-3: sums a little apart may round to neighbours
            np.testing.assert_allclose(g, w, rtol=max(1e-4, one_place), atol=1e-5)
        else:
            np.testing.assert_array_equal(g, w)


@pytest.fixture(autouse=True)
def watchdog():
    """A kernel that hangs holds no GIL to be interrupted by: say where, and end."""
    faulthandler.dump_traceback_later(120 + 20 * SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


OPS = list(cases.CASES)
DRAWN = cases.gathered("DRAWN")


@FUZZ
@given(st.data())
def test_numpy(data):
    op = data.draw(st.sampled_from(OPS))
    made = data.draw(calls_of(op))
    got = outcome(op, made)
    if got is not None:
        check(op, made, got)


@FUZZ
@given(st.data())
def test_torch(data):
    backends.TORCH.require()
    op = data.draw(st.sampled_from(OPS))
    made = data.draw(calls_of(op))
    layout = data.draw(st.sampled_from([*backends.TORCH_LAYOUTS.values(), *[lambda t: t] * 4, *TENSOR_ODDITIES]))
    try:
        tensors = {k: converted(v, lambda a: as_tensor(a, layout)) for k, v in made.items()}
    except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError):
        return  # torch has no such array or layout
    got = outcome(op, tensors, odd=layout in TENSOR_ODDITIES)
    if got is not None and layout not in TENSOR_ODDITIES:
        check(op, made, got)


def as_tensor(array, layout):
    import torch

    if array.dtype.kind in "iu" and layout is backends.TORCH_LAYOUTS["lazily negated"]:
        layout = torch.clone
    return layout(torch.from_numpy(np.array(array, array.dtype.newbyteorder("="))))


TENSOR_ODDITIES = [
    lambda t: t.to_sparse(),
    lambda t: t.to("meta"),
    lambda t: t.bool(),
    lambda t: t.to(__import__("torch").float8_e4m3fn),
    lambda t: __import__("torch").quantize_per_tensor(t.float(), 0.1, 0, __import__("torch").qint8),
    lambda t: t.to_mkldnn(),
    lambda t: t.numpy(),
]


def does_not_fit(op, made):
    with pytest.raises(REFUSALS) as error:
        getattr(boxops, op)(**made)
    assert re.fullmatch(rf"{op}: expected (memory|fewer) .+, got (none|more)", str(error.value))


@pytest.mark.parametrize("op", sorted(DRAWN.keys() - {"nms_padded"}))
@backends.FRAMEWORKS
def test_more_boxes_than_memory(op, framework):
    """Sizes that are right, in an array of one box: the result does not fit, and that is said."""
    framework.require()
    made = next(c for c in cases.CASES[op]).arguments("float32")
    one = framework.to_array(np.ones(4, np.float32))

    def stretched(value, *tail):
        shape = (HUGE, *tail)
        return np.broadcast_to(value, shape) if framework is backends.NUMPY else value.expand(shape)

    for name in made:
        if name.startswith("boxes"):
            made[name] = stretched(one, 4)
        elif isinstance(made[name], np.ndarray):
            made[name] = stretched(framework.to_array(np.zeros((), made[name].dtype)))
    does_not_fit(op, made)


@backends.FRAMEWORKS
def test_more_output_than_memory(framework):
    """The candidates of nms_padded are found one by one: its output is what is too large."""
    framework.require()
    made = next(c for c in cases.CASES["nms_padded"]).arguments("float32")
    does_not_fit("nms_padded", {**framework.converted(made), "max_output": 2**60})


@pytest.mark.parametrize("where", ["one end", "spread", "far"])
def test_coordinates_at_the_end_of_float64(where):
    """Boxes whose centre cannot be had as half of a sum, among ordinary ones: found, and without end neither."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, (600, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 20, (600, 2))], axis=1)
    odd = boxes[::7] if where == "spread" else boxes[:40]
    odd[:, 0], odd[:, 2] = (1.2e308, 1.2e308 + 1e295) if where != "far" else (-1.6e308, -1.6e308 + 1e294)
    odd[:, 3] = odd[:, 1] + 1e-10
    scores = rng.random(600)
    np.testing.assert_array_equal(boxops.nms(boxes, scores, 0.5), reference.nms(boxes, scores, 0.5))
