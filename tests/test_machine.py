"""What must not depend on the machine: bits on instruction sets and threads, memory on sizes."""

import os
import subprocess
import sys
import tempfile

import backends
import cases
import numpy as np
import pytest
from box_sets import random_boxes

import boxops


def fresh_python(code, *arguments, **environment):
    """Run outside the clone, whose sources are not built."""
    command, environment = [sys.executable, "-c", code, *map(str, arguments)], {**os.environ, **environment}
    away = tempfile.gettempdir()
    return subprocess.run(command, env=environment, cwd=away, capture_output=True, text=True, timeout=300)


def output_of(code, **environment):
    """What a fresh Python prints."""
    done = fresh_python(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# A digest of all ops on all sorts of boxes, of sizes that several threads share.
DIGEST = """
import hashlib, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
import numpy as np, boxops, cases
from box_sets import BOXES, SCORES, random_boxes
digest = hashlib.sha256()
rng = np.random.default_rng(0)
sets = [make(rng, "float32") for make in BOXES.values()] + [random_boxes(rng, 40_000, 4000.0)]
for boxes in sets:
    for boxes in (boxes.astype(dtype) for dtype in ("float32", "float64")):
        for op in cases.PAIRWISE:
            digest.update(np.nan_to_num(getattr(boxops, op)(boxes[:3000], boxes[:400]), nan=2).tobytes())
        scores = SCORES["tied"](rng, len(boxes))
        digest.update(boxops.nms(boxes, scores, 0.3).tobytes())
        digest.update(boxops.batched_nms(boxes, scores, np.arange(len(boxes)) % 7, 0.3).tobytes())
        digest.update(np.nan_to_num(boxops.box_area(boxes), nan=2).tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_instruction_sets_and_threads_change_no_bit():
    code = DIGEST.format(tests=os.path.dirname(__file__))
    digests = {
        (isa, threads): output_of(code, BOXOPS_ISA=isa, BOXOPS_NUM_THREADS=threads)
        for isa, threads in [("baseline", "1"), ("avx2", "1"), ("avx512", "1"), ("avx512", "3")]
    }
    assert len(set(digests.values())) == 1, digests


def test_number_of_threads_changes_no_bit():
    backends.TORCH.require()
    import torch

    rng = np.random.default_rng(0)
    boxes, scores = torch.from_numpy(random_boxes(rng, 3000, 100.0)), torch.from_numpy(rng.random(3000))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            result = [getattr(boxops, op)(boxes[:700], boxes[:300]) for op in cases.PAIRWISE]
            leaf = boxes[:700].clone().requires_grad_()
            result += torch.autograd.grad(boxops.complete_box_iou(leaf, leaf).sum(), leaf)
            result += [boxops.nms(boxes * 5, scores, 0.3), boxops.box_area(boxes), boxops.remove_small_boxes(boxes, 50)]
            results.append(result)
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0)


# The growth of the peak over one call, as a multiple of its output, for each op.
MEMORY = """
import numpy, {framework} as framework, boxops
peak = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
boxes = numpy.random.rand(4000, 4).astype("float32")
boxes = boxes if framework is numpy else framework.from_numpy(boxes)
for op in {ops}:
    op = getattr(boxops, op)
    op(boxes[:1500], boxes[:1500])
    open("/proc/self/clear_refs", "w").write("5")
    before = peak()
    op(boxes, boxes)
    print((peak() - before) / (4000 * 4000 * 4 / 1024))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self")
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_pairwise_memory_is_its_output(framework):
    pytest.importorskip(framework)
    used = output_of(MEMORY.format(ops=cases.PAIRWISE, framework=framework)).split()
    assert len(used) == len(cases.PAIRWISE) and max(map(float, used)) < 1.1, used
