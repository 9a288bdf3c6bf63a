"""What a dtype means, for every op that it matters to: integers that float32 does not hold, and mixed dtypes."""

import itertools

import backends
import cases
import numpy as np
import pytest
from backends import results_of
from box_sets import random_boxes

import boxops

WIDE = ("int32", "uint32", "int64", "uint64")
REAL = (*cases.FLOATS, *cases.INTEGERS)


BOXES = ("boxes", "boxes1", "boxes2", "boxes_list", "anchors", "gt_boxes", "ignore_boxes", "deltas", "cost")


def as_array(backend, values, dtype):
    return backend.to_array(cases.as_dtype(values, dtype), dtype)


def as_arrays(backend, arguments, *dtypes):
    """The boxes (or costs) among the arguments in these dtypes by turns, other floating ones in float32."""
    turns = itertools.cycle(dtypes)

    def convert(name, value):
        if isinstance(value, list) and isinstance(value[0], np.ndarray):
            return [convert(name, item) for item in value]
        if not isinstance(value, np.ndarray):
            return value
        if name in BOXES:
            return as_array(backend, value, next(turns))
        return backend.to_array(value.astype(np.float32) if value.dtype == np.float64 else value)

    return {name: convert(name, value) for name, value in arguments.items()}


# Integers of 32 bits and more


TAKES_INTEGERS = sorted(op for op, some in cases.CASES.items() if any("int64" in case.dtypes for case in some))


@pytest.mark.parametrize("op", TAKES_INTEGERS)
def test_large_integers_are_exact(backend, op):
    """As float64 boxes of the same values, which float32 ones are not."""
    arguments = cases.gathered("far", np.random.default_rng(0))[op]
    want, float32 = (results_of(backend, op, as_arrays(backend, arguments, dtype)) for dtype in ("float64", "float32"))
    for dtype in WIDE:
        got = results_of(backend, op, as_arrays(backend, arguments, dtype))
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g, w)
            assert g.dtype == w.dtype or op in ("clip_boxes_to_image", "detect")  # of the boxes' own dtype
    same = all(g.shape == w.shape and (g == w).all() for g, w in zip(float32, want, strict=True))
    assert not same, "the case does not tell float64 from float32"


def test_small_integers_are_computed_in_float32(backend):
    boxes = np.array([[1, 2, 100, 120]])
    for dtype in ("uint8", "int8", "uint16", "int16"):
        assert backend.dtype_of(backend.ops.box_area(as_array(backend, boxes, dtype))) == "float32"
        (iou,) = results_of(
            backend, "box_iou", {name: as_array(backend, boxes, dtype) for name in ("boxes1", "boxes2")}
        )
        assert iou.dtype == np.float32


def test_beyond_float64(backend):
    """From 2^53 on int64 boxes are rounded too, as the contract says."""
    boxes = np.array([[2**53 + 1, 0, 2**53 + 3, 1]])
    assert backend.to_numpy(backend.ops.box_area(backend.to_array(boxes))) == [4]  # to 2^53 and 2^53 + 4


def extremes_of(dtype, count=40):
    """Integers a step of 1 apart at the lower end of what the dtype holds, at 0 and at the upper end."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return sorted({*range(low, low + count), *range(count), *range(high - count + 1, high + 1)})


@pytest.mark.parametrize("dtype", cases.INTEGERS[2:])
def test_integer_scores_rank_exactly(backend, dtype):
    scores = np.random.default_rng(1).permutation(np.array(extremes_of(dtype), dtype))
    falling = sorted(range(len(scores)), key=lambda i: -int(scores[i]))
    boxes = (100 * np.arange(len(scores))[:, None] + [0, 0, 10, 10]).astype(np.float32)
    scored = {"boxes": boxes, "scores": scores}
    turned = {**scored, "boxes": boxes[:, [0, 1, 0, 0, 0]] * np.float32([1, 1, 0, 0, 0]) + np.float32([0, 0, 9, 9, 30])}
    ids = np.arange(len(scores)) % 3
    batch = {"boxes": boxes[None], "scores": scores[None]}
    for op, arguments in [
        ("nms", scored), ("batched_nms", {**scored, "idxs": ids}),
        ("rotated_nms", turned), ("batched_rotated_nms", {**turned, "idxs": ids}),
        ("nms_padded", {**batch, "max_output": 200}), ("nms_padded", {**batch, "max_output": 200, "idxs": ids[None]}),
    ]:  # fmt: skip
        kept = results_of(backend, op, backend.converted(arguments), iou_threshold=0.5)[0]
        assert kept.reshape(-1)[: len(scores)].tolist() == falling, op
    for more in ({}, {"topk_per_class": 40}):
        arguments = {"boxes": boxes[None], "scores": scores[None, :, None], "score_threshold": -np.inf, **more}
        _, got, _, counts = results_of(backend, "detect", backend.converted(arguments), max_output=200)
        want = [int(scores[i]) for i in falling][: more.get("topk_per_class")]
        assert got[0, : counts[0]].tolist() == want


@pytest.mark.parametrize("dtype", WIDE)
def test_thresholds_of_integer_scores(backend, dtype):
    boxes, scores = np.array([[[0, 0, 1, 1], [5, 5, 6, 6]]], np.float32), np.array([[2**24, 2**24 + 1]], dtype)
    arguments = backend.converted({"boxes": boxes, "scores": scores})
    indices, counts = results_of(backend, "nms_padded", arguments, iou_threshold=0.5, max_output=2,
                                 score_threshold=2.0**24)  # fmt: skip
    assert (indices.tolist(), counts.tolist()) == ([[1, -1]], [1])
    arguments["scores"] = backend.to_array(scores[..., None])
    _, _, _, counts = results_of(backend, "detect", arguments, score_threshold=2.0**24)
    assert counts.tolist() == [1]
    flat = backend.converted({"boxes": boxes[0], "scores": scores[0]})
    kept, kept_scores = results_of(backend, "soft_nms", flat, score_threshold=2.0**24)
    assert (kept.tolist(), kept_scores.tolist(), kept_scores.dtype) == ([1], [2**24 + 1], np.float64)


# Mixed dtypes


def calls_on_two(rng):
    """For every op on two arrays of boxes, or three: its arguments, small enough for int8."""
    boxes, others = (np.round(random_boxes(rng, n, 70.0, (5.0, 50.0))) for n in (9, 5))
    pair, turned = {"boxes1": boxes, "boxes2": others}, np.pad(boxes, ((0, 0), (0, 1)), constant_values=30)
    codes = rng.integers(-8, 9, (9, 4)) / 8
    return {
        **{op: pair for op in cases.PAIRWISE},
        **{op: {"boxes1": boxes, "boxes2": boxes[::-1].copy()} for op in cases.LOSSES},
        "rotated_box_iou": {"boxes1": turned, "boxes2": turned[::-1].copy()},
        "match_max_iou": {"anchors": boxes, "gt_boxes": others, "high": 0.5, "low": 0.2},
        "match_greedy": {"anchors": boxes, "gt_boxes": others, "iou_threshold": 0.2},
        "encode_boxes": {"boxes": boxes, "anchors": boxes[::-1].copy()},
        "decode_boxes": {"deltas": codes, "anchors": boxes},
    }


def wide(*dtypes):
    return not {*WIDE, "float64"}.isdisjoint(dtypes)


ON_TWO = calls_on_two(np.random.default_rng(0))


@pytest.mark.parametrize("op", ON_TWO)
def test_mixed_dtypes(backend, op):
    """Of every pair, the result is that of the same values in the larger compute type. The emulator, which is slow, has
    each dtype in each place once."""
    dtypes = [dtype for dtype in (cases.FLOATS if op.endswith("code_boxes") else REAL) if backend.has(dtype)]
    arguments = ON_TWO[op]
    pairs = itertools.product(dtypes, dtypes)
    if backend.name == "emulated-cuda":
        half = len(dtypes) // 2
        pairs = zip(dtypes, dtypes[half:] + dtypes[:half], strict=True)
    for pair in pairs:
        compute = "float64" if wide(*pair) else "float32"
        turns = itertools.cycle(pair)
        rounded = {name: cases.as_dtype(value, next(turns)).astype(compute) if isinstance(value, np.ndarray) else value
                   for name, value in arguments.items()}  # fmt: skip
        got = results_of(backend, op, as_arrays(backend, arguments, *pair))
        want = results_of(backend, op, as_arrays(backend, rounded, compute))
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g, w, f"{pair}")
            assert g.dtype == w.dtype, pair


@pytest.mark.parametrize("third", ["uint8", "float16", "int64", "float64"])
def test_mixed_dtypes_of_ignored_boxes(backend, third):
    boxes, others = ON_TWO["match_max_iou"]["anchors"], ON_TWO["match_max_iou"]["gt_boxes"]
    arguments = {"anchors": boxes, "gt_boxes": others, "ignore_boxes": boxes[:3], "high": 0.9, "ignore_threshold": 0.4}
    got = results_of(backend, "match_max_iou", as_arrays(backend, arguments, "float32", "int16", third))
    compute = "float64" if wide(third) else "float32"
    want = results_of(backend, "match_max_iou", as_arrays(backend, arguments, compute))
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g, w)
        assert g.dtype == w.dtype


@pytest.mark.parametrize("op", ON_TWO)
def test_fake_kernels_promote_alike(op):
    torch = pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode

    for pair in itertools.product(("uint8", "float16", "float32", "int32", "float64", "uint64"), repeat=2):
        if op.endswith("code_boxes") and not {"uint8", "int32", "uint64"}.isdisjoint(pair):
            continue
        arguments = as_arrays(backends.TORCH, ON_TWO[op], *pair)
        real = getattr(boxops, op)(**arguments)
        with FakeTensorMode() as mode:
            fakes = {name: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for name, x in arguments.items()}
            fake = getattr(boxops, op)(**fakes)
        for r, f in zip(*((some if isinstance(some, tuple) else (some,)) for some in (real, fake)), strict=True):
            assert (r.dtype, r.shape) == (f.dtype, f.shape), pair


@pytest.mark.parametrize("op", [op for op in ON_TWO if op not in ("rotated_box_iou", "match_max_iou", "match_greedy")])
def test_gradients_come_in_each_inputs_dtype(device, op):
    import torch

    def gradients(dtypes):
        names = [name for name, value in ON_TWO[op].items() if isinstance(value, np.ndarray)]
        inputs = [
            torch.from_numpy(ON_TWO[op][name]).to(device, dtype) for name, dtype in zip(names, dtypes, strict=True)
        ]
        leaves = [x.requires_grad_() for x in inputs if x.is_floating_point()]
        getattr(boxops, op)(**dict(zip(names, inputs, strict=True))).sum().backward()
        return [leaf.grad for leaf in leaves]

    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    others = () if op.endswith("code_boxes") else (torch.int64, torch.uint8)
    for first, second in itertools.product(floats, (*floats, *others)):
        compute = torch.float64 if {first, second} & {torch.float64, torch.int64} else torch.float32
        got = gradients((first, second))
        want = gradients((compute, compute if second.is_floating_point else second))
        for g, w, dtype in zip(got, want, (first, second), strict=False):
            assert g.dtype == dtype
            torch.testing.assert_close(g, w.to(dtype))
