"""Many callers at once: Python threads, and the binding's own threads."""

import functools
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import backends
import cases
import numpy as np
import pytest
from box_sets import random_boxes
from test_machine import output_of

import boxops

FRAMEWORKS = [pytest.param(b, id=b.name) for b in (backends.NUMPY, backends.TORCH)]


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    request.param.require()
    return request.param


def arrays(framework, count, seed=0):
    rng = np.random.default_rng(seed)
    made = random_boxes(rng, count, 400.0).astype(np.float32), rng.random(count), rng.integers(0, 9, count)
    return [framework.to_array(array) for array in made]


def calls(framework):
    """One call of each op, on inputs large enough for several threads."""
    boxes, scores, groups = arrays(framework, 20_000)
    some, few = boxes[:700], boxes[700:1000]
    return {
        "box_area": lambda: boxops.box_area(boxes, "cxcywh"),
        "box_convert": lambda: boxops.box_convert(boxes, "xyxy", "cxcywh"),
        "clip_boxes_to_image": lambda: boxops.clip_boxes_to_image(boxes, (300, 200)),
        "remove_small_boxes": lambda: boxops.remove_small_boxes(boxes, 60),
        "box_iou": lambda: boxops.box_iou(some, few),
        "box_ioa": lambda: boxops.box_ioa(some, few),
        "generalized_box_iou": lambda: boxops.generalized_box_iou(some, few),
        "distance_box_iou": lambda: boxops.distance_box_iou(some, few),
        "complete_box_iou": lambda: boxops.complete_box_iou(some, few),
        "generalized_box_iou_loss": lambda: boxops.generalized_box_iou_loss(some[:300], few, "sum"),
        "distance_box_iou_loss": lambda: boxops.distance_box_iou_loss(some[:300], few, "sum"),
        "complete_box_iou_loss": lambda: boxops.complete_box_iou_loss(some[:300], few),
        "nms": lambda: boxops.nms(boxes, scores, 0.5),
        "batched_nms": lambda: boxops.batched_nms(boxes, scores, groups, 0.5),
        "nms_padded": lambda: boxops.nms_padded(
            boxes.reshape(10, 2000, 4), scores.reshape(10, 2000), 0.5, 300, idxs=groups.reshape(10, 2000)
        ),
    }


def bits(framework, result):
    results = result if isinstance(result, tuple) else (result,)
    return [framework.to_numpy(r).tobytes() for r in results]


def elements(arguments):
    arrays = (item for v in arguments.values() for item in (v if isinstance(v, list) else [v]))
    return sum(item.size for item in arrays if isinstance(item, np.ndarray))


def test_eight_threads_give_the_bits_of_one(framework):
    work = calls(framework)
    for op, some in cases.CASES.items():
        if op not in work:  # the fifth part of its cases, the largest of them
            made = max((case.arguments() for case in some[::5] if "float32" in case.dtypes), key=elements)
            work[op] = functools.partial(getattr(boxops, op), **framework.converted(made))
    serial = {op: bits(framework, call()) for op, call in work.items()}
    start = threading.Barrier(8)

    def worker(seed):
        start.wait(30)
        order = np.random.default_rng(seed).permutation(list(work)).tolist()
        return [op for op in order if bits(framework, work[op]()) != serial[op]]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(worker, range(8))) == [[]] * 8


FINE = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
import backends, cases, numpy, boxops
from boxops import _numpy_ops
framework = backends.{framework}
if framework is backends.TORCH:
    import torch
set_num_threads = _numpy_ops.set_num_threads if framework is backends.NUMPY else torch.set_num_threads

def bits(result):
    return [framework.to_numpy(r).tobytes() for r in (result if isinstance(result, tuple) else (result,))]

for op, some in cases.CASES.items():
    for case in [case for case in some if "float32" in case.dtypes][::5]:
        arguments, results = framework.converted(case.arguments()), []
        for threads in (1, 3):
            set_num_threads(threads)
            results.append(bits(getattr(boxops, op)(**arguments)))
        assert results[0] == results[1], (op, case)
print("same")
"""


@pytest.mark.parametrize("framework", ["NUMPY", "TORCH"])
def test_threads_change_no_bit_however_fine_the_ranges(framework):
    """All ops, with threads wherever there are two items to divide."""
    if framework == "TORCH":
        pytest.importorskip("torch")
    code = FINE.format(tests=os.path.dirname(__file__), framework=framework)
    assert output_of(code, BOXOPS_WAKE_US="0") == "same"


def test_errors_on_eight_threads(framework):
    """An error in one thread stays in it."""
    boxes, scores, _ = arrays(framework, 300)
    want = bits(framework, boxops.nms(boxes, scores, 0.5))

    def worker(i):
        for _ in range(100):
            if i % 2:
                assert bits(framework, boxops.nms(boxes, scores, 0.5)) == want
            else:
                with pytest.raises(
                    (ValueError, RuntimeError), match=rf"^nms: expected scores of shape \[300\], got \[{i}"
                ):
                    boxops.nms(boxes, scores[:i], 0.5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(worker, range(8)))


LONG = ("box_iou", "nms", "batched_nms", "nms_padded", "gradient")


@pytest.mark.parametrize("op", LONG)
def test_python_runs_beside_a_kernel(framework, op):
    """The GIL is free: with a switch interval of minutes, another thread only runs if a kernel lets go of it."""
    count = 3000
    boxes, scores, groups = arrays(framework, count)
    boxes, scores, groups = boxes[None], scores[None], groups[None] * 0
    # One crowd of boxes that barely overlap by the threshold: every pair is looked at.
    call = {
        "box_iou": lambda: boxops.complete_box_iou(boxes[0], boxes[0]),
        "nms": lambda: boxops.nms(boxes[0], scores[0], 0.95),
        "batched_nms": lambda: boxops.batched_nms(boxes[0], scores[0], groups[0], 0.95),
        "nms_padded": lambda: boxops.nms_padded(boxes, scores, 0.95, count),
        "gradient": None,
    }[op]
    if op == "gradient":
        if framework is backends.NUMPY:
            pytest.skip("NumPy has no gradients")
        leaf = boxes[0].clone().requires_grad_()
        loss = boxops.complete_box_iou(leaf, leaf).sum()
        call = lambda: loss.backward(retain_graph=True)  # noqa: E731
    ticks, stop, started = [], threading.Event(), threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            started.set()
            time.sleep(0.0001)

    before = sys.getswitchinterval()
    ticker = threading.Thread(target=tick)
    try:
        ticker.start()
        assert started.wait(30)
        sys.setswitchinterval(600)
        for _ in range(50):  # a busy machine may need several
            begin = time.perf_counter()
            call()
            end = time.perf_counter()
            if any(begin < t < end for t in list(ticks)):
                return
    finally:
        sys.setswitchinterval(before)
        stop.set()
        ticker.join()
    pytest.fail("no other thread ran during 50 calls")


THREADS = """
import numpy, boxops, hashlib
from boxops import _numpy_ops
boxes = numpy.random.default_rng(0).random((3000, 4)).astype("float32") * 50
boxes[:, 2:] += boxes[:, :2]
import threading, os
most, stop = [0], threading.Event()
def watch():
    while not stop.is_set():
        most[0] = max(most[0], len(os.listdir("/proc/self/task")))
before = len(os.listdir("/proc/self/task"))
watcher = threading.Thread(target=watch); watcher.start()
for _ in range(8):
    result = boxops.complete_box_iou(boxes, boxes)
stop.set(); watcher.join()
print(_numpy_ops.get_num_threads(), most[0] - before - 1, hashlib.sha256(result.tobytes()).hexdigest())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_number_of_threads_is_as_asked():
    seen = {n: output_of(THREADS, BOXOPS_NUM_THREADS=n).split() for n in ("1", "5", "junk")}
    for asked, (number, more, _) in seen.items():
        wanted = int(asked) if asked.isdigit() else 1
        assert int(number) == wanted
        # Threads live for one call, and a busy machine may not show all of them at once.
        assert min(wanted - 1, 1) <= int(more) <= wanted - 1, f"{asked}: {more} more threads were seen"
    assert len({digest for *_, digest in seen.values()}) == 1


def test_set_num_threads():
    from boxops import _numpy_ops

    boxes, scores, groups = arrays(backends.NUMPY, 40_000)
    before, results = _numpy_ops.get_num_threads(), []
    try:
        for n, got in ((1, 1), (2, 2), (7, 7), (0, 1), (-1, 1)):
            _numpy_ops.set_num_threads(n)
            assert _numpy_ops.get_num_threads() == got
            results.append(
                bits(
                    backends.NUMPY,
                    (
                        boxops.box_area(boxes),
                        boxops.box_iou(boxes[:900], boxes[:700]),
                        boxops.batched_nms(boxes, scores, groups, 0.5),
                    ),
                )
            )
    finally:
        _numpy_ops.set_num_threads(before)
    assert all(result == results[0] for result in results)
