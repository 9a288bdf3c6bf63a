"""linear_sum_assignment and detr_cost: the same on every backend, and as scipy and DETR's own matcher have it."""

import pathlib
from itertools import pairwise, product

import backends
import cases
import numpy as np
import pytest
from cases.assignment import forbidding, normalised, of_detections, offsets
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops import reference

LSA = "linear_sum_assignment"
ON_CPU = pytest.mark.parametrize("backend", [backends.NUMPY, backends.TORCH], ids=lambda backend: backend.name)
ON_CUDA = pytest.mark.parametrize("backend", [backends.EMULATED, pytest.param(backends.CUDA, marks=pytest.mark.gpu)],
                                  ids=lambda backend: backend.name)  # fmt: skip


@pytest.mark.parametrize("ragged", [False, True])
def test_layouts_of_costs(backend, ragged):
    rng = np.random.default_rng(1)
    if ragged:
        backends.check_layouts(backend, LSA, {"cost": rng.random((12, 7)), "offsets": offsets(3, 0, 9)})
    else:
        for shape, dtype in product([(4, 9, 6), (4, 6, 9), (20, 7), (7, 20), (9, 9)], [np.float32, np.float64]):
            backends.check_layouts(backend, LSA, {"cost": rng.random(shape).astype(dtype)})


def test_layouts_of_detections(backend):
    made = of_detections("layouts", (3, 5), 20, 7).make(np.random.default_rng(1), "float32")
    backends.check_layouts(backend, "detr_cost", made)


def call(backend, op, *arrays, **options):
    options = backend.converted(options)
    result = getattr(backend.ops, op)(*(backend.to_array(np.asarray(array)) for array in arrays), **options)
    return tuple(map(backend.to_numpy, result)) if isinstance(result, tuple) else backend.to_numpy(result)


def test_an_assignment_by_hand(backend):
    cost = np.array([[4.0, 1, 3], [2, 0, 5], [3, 2, 2]])
    np.testing.assert_array_equal(call(backend, LSA, cost), [[0, 1, 2], [1, 0, 2]])
    np.testing.assert_array_equal(call(backend, LSA, cost, maximize=True), [[0, 1, 2], [0, 2, 1]])
    rows, columns = call(backend, LSA, cost[:, :2], offsets=offsets(3))
    np.testing.assert_array_equal(rows, [0, 1, 2])
    np.testing.assert_array_equal(columns, [1, 0, -1])
    rows, columns = call(backend, LSA, np.array([[1.0, 0.0, -0.0]]))
    assert columns == [1], "zeros of both signs are tied"


def test_one_batch_is_its_problems(backend):
    cost = np.random.default_rng(0).integers(0, 6, (7, 9, 5)).astype(np.float32)
    rows, columns = call(backend, LSA, cost)
    for b in range(7):
        np.testing.assert_array_equal((rows[b], columns[b]), call(backend, LSA, cost[b]))


@pytest.mark.parametrize(("shape", "levels", "forbidden"), [((3, 9), 4, 0.6), ((9, 3), 4, 0.6), ((33, 13), 4, 0.6),
                         ((9, 9), 4, 0.6), ((14, 16), 20, 0.3), ((16, 14), 8, 0.3)])  # fmt: skip
def test_many_tied_problems(backend, shape, levels, forbidden):
    """Few costs and forbidden pairs: the nearest columns of a row are often tied, or the only ones."""
    rng = np.random.default_rng(0)
    cost = np.where(rng.random((400, *shape)) < forbidden, np.inf, rng.integers(0, levels, (400, *shape)))
    want = reference.linear_sum_assignment(cost, on_invalid="unmatched")
    assert (want[1][:, 0] >= 0).any()
    for dtype in (np.float32, np.float64):
        got = call(backend, LSA, cost.astype(dtype), on_invalid="unmatched")
        np.testing.assert_array_equal(got, want)


@ON_CPU
def test_costs_are_read_where_they_lie(backend):
    """Memory beyond float32 and float64 costs is O(n + m), where their longer side lies in a row."""
    backend.require()
    status = pathlib.Path("/proc/self/status")

    def peak():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024

    for dtype in (np.float32, np.float64):
        cost = np.ones((1000, 4000), dtype)
        call(backend, LSA, cost[:, :2])
        try:
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            before = peak()
        except (OSError, IndexError):
            pytest.skip("cannot reset the peak of memory here")
        call(backend, LSA, cost)
        call(backend, LSA, cost.T)
        assert peak() - before < 2**22  # a copy has 2^24 bytes or more


def test_more_than_shared_memory_holds(backend):
    rng = np.random.default_rng(0)
    for cost, more in [(rng.random((3, 2, 2500)), {}), (rng.random((2, 2500, 2)), {}),
                       (rng.random((2600, 3)), {"offsets": offsets(2500, 0, 100)})]:  # fmt: skip
        np.testing.assert_array_equal(call(backend, LSA, cost, **more), reference.linear_sum_assignment(cost, **more))


# Faults

BAD = [
    (np.array([[1.0, np.inf], [2, np.inf]]), {}, "a cost matrix with a finite assignment, got none"),
    (np.full((1, 1), -np.inf), {"maximize": True}, "a cost matrix with a finite assignment, got none"),
    (np.array([[1.0, 2], [3, np.nan]]), {}, "costs without NaN or -inf, got nan at [1, 1]"),
    (np.array([[1.0, -np.inf, 2], [3, 4, np.nan]]), {}, "costs without NaN or -inf, got -inf at [0, 1]"),
    (np.array([[1.0, np.inf]]), {"maximize": True}, "costs without NaN or inf, got inf at [0, 1]"),
    (np.array([[[1.0]], [[2]], [[np.inf]], [[np.nan]]]), {},
        "a cost matrix with a finite assignment, got none (problem 2)"),
    (np.array([[[1.0, 2]], [[2, np.nan]], [[np.inf] * 2]]), {},
        "costs without NaN or -inf, got nan at [1, 0, 1] (problem 1)"),
    (np.array([[1.0], [2], [np.nan]]), {"offsets": offsets(1, 2)},
        "costs without NaN or -inf, got nan at [2, 0] (problem 1)"),
    (np.array([[2.0, 3], [1, 0], [0, 1], [2, np.inf]]), {"offsets": offsets(2, 0, 2), "maximize": True},
        "costs without NaN or inf, got inf at [3, 1] (problem 2)"),
    (np.array([[1.0], [np.inf], [np.inf]]), {"offsets": offsets(1, 2)},
        "a cost matrix with a finite assignment, got none (problem 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("cost", "more", "words"), BAD, ids=[words for *_, words in BAD])
@ON_CPU
def test_no_assignment_is_an_error(backend, cost, more, words):
    backend.require()
    with pytest.raises((ValueError, RuntimeError)) as error:
        call(backend, LSA, cost, **more)
    assert str(error.value) == f"{LSA}: expected {words}"


def test_no_assignment_is_minus_one(backend):
    """Where that is asked for; on CUDA it always is so."""
    for (cost, more, _), on_invalid in product(BAD, ["unmatched", "raise"]):
        if on_invalid == "raise" and backend not in (backends.EMULATED, backends.CUDA):
            continue
        rows, columns = call(backend, LSA, cost, **more, on_invalid=on_invalid)
        bounds = [0, len(cost)] if cost.ndim == 2 else range(len(cost) + 1)
        bounds = more.get("offsets", bounds)
        for b, (begin, end) in enumerate(pairwise(bounds)):
            problem, options = cost[begin:end] if cost.ndim == 2 else cost[b], {"maximize": more.get("maximize", False)}
            took = columns[begin:end] if "offsets" in more else columns[b] if cost.ndim == 3 else columns
            try:
                own = {**options, "offsets": offsets(len(problem))} if "offsets" in more else options
                want = reference.linear_sum_assignment(problem, **own)[1]
            except ValueError:
                want = np.full(took.shape, -1)
            np.testing.assert_array_equal(took, want)
        np.testing.assert_array_equal(np.diff(rows), 1)


odd = st.sampled_from([0.0, 1.0, 2.0, 3.0] * 4 + [np.nan, np.inf, -np.inf])


@given(data=st.data(), maximize=st.booleans(), ragged=st.booleans())
def test_some_bad_problems(backend, data, maximize, ragged):
    """The good ones are solved as if each were alone, and the bad ones not at all."""
    counts = data.draw(st.lists(st.integers(0, 5) if ragged else st.just(3), min_size=1, max_size=5))
    cost = data.draw(arrays(np.float32, (sum(counts), data.draw(st.integers(0, 5))), elements=odd))
    bounds, options = offsets(*counts), {"maximize": maximize, "on_invalid": "unmatched"}
    if ragged:
        rows, columns = call(backend, LSA, cost, offsets=bounds, **options)
        found = [(rows[a:b] - a, columns[a:b]) for a, b in pairwise(bounds)]
    else:
        found = zip(*call(backend, LSA, cost.reshape(len(counts), 3, cost.shape[1]), **options), strict=True)
    for (a, b), (rows, columns) in zip(pairwise(bounds), found, strict=True):
        try:
            want = boxops.linear_sum_assignment(cost[a:b], maximize, offsets=offsets(b - a) if ragged else None)
        except ValueError:
            want = np.arange(len(columns)), np.full(len(columns), -1)
        np.testing.assert_array_equal((rows, columns), want)


@ON_CUDA
@pytest.mark.parametrize("bounds", [[0, 9, 4, 12], [5, 3], [-7, 4, 99], [2, 5], [3, 2**62, 12], [0]])
def test_nonsense_offsets_on_the_device(backend, bounds):
    """Nonsense gives nonsense, yet columns that exist, and no access out of bounds."""
    backend.require()
    for columns in (5, 2000):
        rows, took = call(backend, LSA, np.random.default_rng(0).random((12, columns)), offsets=np.array(bounds))
        np.testing.assert_array_equal(rows, np.arange(12))
        assert ((took >= -1) & (took < columns)).all()
        if (np.diff(bounds) < 0).any() or len(bounds) == 1:
            assert (took == -1).all()


def test_too_many_columns_for_the_device():
    backends.EMULATED.require()
    cost = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 2**30 + 1), (0, 0))
    with pytest.raises(ValueError, match=r"at most 2\^30 rows and columns on CUDA, got \[1, 1073741825\]"):
        call(backends.EMULATED, LSA, cost)


@ON_CUDA
def test_nonsense_detections_on_the_device(backend):
    backend.require()
    made = of_detections("nonsense", (3, 5), 9, 7).make(np.random.default_rng(1), "float32")
    for outside, nearest in [
        (np.array([-1, 7, 2**62, -(2**63), 0, 6, 3, 2]), [0, 6, 6, 0, 0, 6, 3, 2]),
        (np.array([2**64 - 1, 2**63, 7, 0, 0, 6, 3, 2], np.uint64), [6, 6, 6, 0, 0, 6, 3, 2]),
        (np.array([-0.5, 6.5, 1.75, np.nan, np.inf, -np.inf, 1e30, 2], np.float32), [0, 6, 1, 0, 6, 0, 6, 2]),
    ]:
        got = call(backend, "detr_cost", **{**made, "gt_labels": outside})
        np.testing.assert_array_equal(got, call(backend, "detr_cost", **{**made, "gt_labels": np.array(nearest)}))
    for bounds in ([0, 99, 8], [5, -3, 2], [8, 8, 8], [2**62, 0, -1]):
        assert np.isfinite(call(backend, "detr_cost", **{**made, "offsets": np.array(bounds)})).all()


@ON_CPU
def test_labels_out_of_range(backend):
    backend.require()
    made = of_detections("labels", (3, 5), 9, 7).make(np.random.default_rng(1), "float32")
    for bad, dtype in ((-1, int), (7, int), (2**40, int), (7, np.float32), (2**12, np.float16), (-1, np.float64)):
        labels = made["gt_labels"].astype(dtype)
        labels[4] = bad
        with pytest.raises(
            (ValueError, RuntimeError), match=rf"^detr_cost: expected gt_labels in 0..6, got {bad} at 4$"
        ):
            call(backend, "detr_cost", **{**made, "gt_labels": labels})


def test_bool_costs(backend):
    """False is 0 and True is 1, in every layout: as SciPy has it."""
    rng = np.random.default_rng(0)
    for shape, more in (((5, 5), {}), ((30, 40), {}), ((3, 9, 6), {}), ((12, 5), {"offsets": offsets(5, 3, 4)})):
        cost = rng.random(shape) < 0.5
        for maximize in (False, True):
            got, want = (call(backend, LSA, some, maximize=maximize, **more) for some in (cost, cost.astype(np.uint8)))
            np.testing.assert_array_equal(got, want)
    scipy = pytest.importorskip("scipy.optimize")
    cost = rng.random((30, 40)) < 0.1
    for some, maximize in ((cost, False), (cost.T, True), (~cost[::-1, ::2], False)):
        rows, columns = call(backend, LSA, some, maximize=maximize)
        assert some[rows, columns].sum() == some[scipy.linear_sum_assignment(some, maximize)].sum()


def test_offsets_that_do_not_fit():
    cost = np.zeros((4, 3))
    for bounds, words in [([0, 3, 2, 4], "offsets that never fall, got 2 after 3 at 2"),
                          ([0, 3], "offsets from 0 to 4, the number of rows, got 0 to 3")]:  # fmt: skip
        with pytest.raises(ValueError) as error:
            boxops.linear_sum_assignment(cost, offsets=np.array(bounds))
        assert str(error.value) == f"{LSA}: expected {words}"


# Second opinion: scipy


def check_optimal(cost, maximize=False):
    """An assignment, of the total that scipy finds; where there is none, neither finds one."""
    scipy = pytest.importorskip("scipy.optimize")
    try:
        want = scipy.linear_sum_assignment(cost, maximize)
    except ValueError:
        with pytest.raises(ValueError, match=r"expected (a cost matrix with a finite|costs without)"):
            boxops.linear_sum_assignment(cost, maximize)
        return
    rows, columns = boxops.linear_sum_assignment(cost, maximize)
    assert len(rows) == len(columns) == min(cost.shape)
    assert (np.diff(rows) > 0).all() and len(set(columns.tolist())) == len(columns)
    got, want = (np.asarray(cost)[pairs].astype(float) for pairs in ((rows, columns), want))
    assert got.sum() == pytest.approx(want.sum(), rel=1e-12, abs=1e-12 * np.abs(want).sum())


@pytest.mark.parametrize("case", cases.CASES[LSA], ids=lambda case: case.name)
def test_as_scipy(case):
    made = case.arguments(case.dtypes[-1])
    cost, maximize = made["cost"], made.get("maximize", False)
    if case.name == "huge" or 0 in cost.shape:
        pytest.skip("scipy's sums overflow" if case.name == "huge" else "nothing to assign")
    bounds = made.get("offsets", [])
    problems = [cost[a:b] for a, b in pairwise(bounds)] if "offsets" in made else cost
    for problem in problems if cost.ndim == 3 or "offsets" in made else [cost]:
        check_optimal(problem, maximize)


some = st.tuples(st.integers(1, 8), st.integers(1, 8))


@given(arrays(np.float64, some, elements=st.integers(-4, 4) | st.just(np.inf) | st.floats(-1e3, 1e3)), st.booleans())
def test_any_matrix_as_scipy(cost, maximize):
    check_optimal(-cost if maximize else cost, maximize)


@given(arrays(np.float64, some, elements=st.sampled_from([0.0, 1.0, 2.0, np.nan, np.inf, -np.inf])))
def test_odd_values_as_scipy(cost):
    check_optimal(cost)


@pytest.mark.parametrize("shape", [(200, 200), (300, 50), (50, 300), (128, 129)])
def test_large_as_scipy(shape):
    rng = np.random.default_rng(0)
    for cost in (rng.random(shape), rng.integers(0, 30, shape), rng.normal(size=shape) ** 3 * 1e6,
                 forbidding(*shape, share=0.9)(rng, "float64")):  # fmt: skip
        check_optimal(cost)


def test_costs_near_the_end_of_float64(backend):
    """Sums of such costs overflow; their order does not."""
    rng = np.random.default_rng(0)
    cost = rng.integers(-8, 9, (9, 9)) * 2.0**1020
    small = boxops.linear_sum_assignment(cost * 2.0**-1020)
    rows, columns = call(backend, LSA, cost)
    assert (cost[rows, columns] / 2.0**1020).sum() == (cost[small] / 2.0**1020).sum()
    cost = rng.uniform(-1, 1, (20, 7, 10))
    np.testing.assert_array_equal(call(backend, LSA, cost * 2.0**1020), boxops.linear_sum_assignment(cost))
    most = np.finfo(np.float64).max
    _, columns = call(backend, LSA, np.array([[-most, most], [most, np.inf]]))  # the path to column 1 costs 3 most
    np.testing.assert_array_equal(columns, [1, 0])


# Second opinion: DETR


def eager_matcher(logits, boxes, gt_labels, gt_boxes, counts, focal):
    """HungarianMatcher of facebookresearch/detr, and its class cost of fundamentalvision/Deformable-DETR."""
    import torch
    from scipy.optimize import linear_sum_assignment
    from torchvision.ops import box_convert, generalized_box_iou

    batch, queries = logits.shape[:2]
    flat = logits.flatten(0, 1)
    if focal:
        p = flat.sigmoid()
        negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
        positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
        class_cost = positive[:, gt_labels] - negative[:, gt_labels]
    else:
        class_cost = -flat.softmax(-1)[:, gt_labels]
    bbox = torch.cdist(boxes.flatten(0, 1), gt_boxes, p=1)
    corners, gt_corners = (box_convert(b, "cxcywh", "xyxy") for b in (boxes.flatten(0, 1), gt_boxes))
    cost = (5 * bbox + class_cost + 2 * -generalized_box_iou(corners, gt_corners)).view(batch, queries, -1)
    own = [c[i] for i, c in enumerate(cost.split(counts, -1))]
    return own, [linear_sum_assignment(c) for c in own]


@pytest.mark.parametrize("focal", [False, True])
def test_the_matcher_of_detr(torchvision, focal):
    import torch

    counts = [7, 0, 20, 1]
    made = of_detections("matcher", tuple(counts), 100, 91, focal=focal).make(np.random.default_rng(5), "float32")
    logits, boxes, labels, gt_boxes = (torch.from_numpy(made[name]).requires_grad_(made[name].dtype == np.float64)
                                       for name in ("logits", "boxes", "gt_labels", "gt_boxes"))  # fmt: skip
    bounds = torch.from_numpy(made["offsets"])
    cost = boxops.detr_cost(logits, boxes, labels, gt_boxes, bounds, focal=focal)
    assert not cost.requires_grad
    _, query = boxops.linear_sum_assignment(cost, offsets=bounds)
    with torch.no_grad():
        costs, matches = eager_matcher(logits, boxes, labels, gt_boxes, counts, focal)
    for begin, want, (queries, gts) in zip(bounds, costs, matches, strict=False):
        own = slice(int(begin), int(begin) + want.shape[1])
        torch.testing.assert_close(cost[own].T, want, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(query[own].numpy()[gts], queries)


def test_normaliser_of_many_classes(backend):
    """Probabilities of all classes sum to 1 over any number of classes, however the sum is cut."""
    rng = np.random.default_rng(0)
    for classes in (1, 15, 16, 17, 33, 300):
        box = normalised(rng, (classes,)).astype(np.float32)
        logits = rng.normal(0, 4, (1, 1, classes)).astype(np.float32)
        made = logits, box[None, :1], np.arange(classes), box, offsets(classes)
        cost = call(backend, "detr_cost", *made, box_weight=0, giou_weight=0)
        assert cost.sum() == pytest.approx(-1, rel=1e-5)


def test_same_bits_again():
    torch = pytest.importorskip("torch")

    made = of_detections("again", (9,) * 16, 300, 91).make(np.random.default_rng(5), "float32")
    tensors = {name: torch.from_numpy(array).float() if array.dtype == np.float64 else torch.from_numpy(array)
               for name, array in made.items()}  # fmt: skip
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        cost = boxops.detr_cost(**tensors)
        results.append((cost, *boxops.linear_sum_assignment(cost, offsets=tensors["offsets"])))
    torch.set_num_threads(threads)
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            assert torch.equal(got, want)


@pytest.mark.gpu
def test_the_device_matcher_never_waits_and_can_be_captured():
    backends.CUDA.require()
    import torch

    made = of_detections("captured", (9, 0, 30), 100, 91).make(np.random.default_rng(5), "float32")
    tensors = {name: torch.from_numpy(array).cuda() for name, array in made.items()}

    def match():
        return boxops.linear_sum_assignment(boxops.detr_cost(**tensors), offsets=tensors["offsets"])[1]

    want = match()
    torch.cuda.set_sync_debug_mode("error")
    try:
        match()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = match()
    captured.zero_()
    graph.replay()
    torch.testing.assert_close(captured, want)
