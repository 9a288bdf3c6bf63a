"""boxops in other processes, and beside them: forked and spawned children, and small calls that wake no thread."""

import os
import sys

import pytest
from test_machine import output_of

CALLS = """
import multiprocessing, numpy, os, sys
import boxops
boxes = numpy.random.default_rng(0).random((20_000, 4)).astype("float32") * 50
boxes[:, 2:] += boxes[:, :2]
scores, groups = numpy.random.default_rng(1).random(len(boxes)), numpy.arange(len(boxes)) % 9
if {torch}:
    import torch
    torch.set_num_threads(3)
    boxes, scores, groups = (torch.from_numpy(array) for array in (boxes, scores, groups))

def work():  # each on several threads; of torch's own operators only such as need none
    return [boxops.batched_nms(boxes, scores, groups, 0.5).tolist(),
            boxops.complete_box_iou(boxes[:2000], boxes[:1000])[::100, ::100].tolist()]
"""

FORK = """
def child(pipe):
    pipe.send(work())

def ask(target=child, seconds=30):
    mine, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs,))
    process.start()
    if not mine.poll(seconds):
        process.kill()
        raise AssertionError("the child hangs")
    result = mine.recv()
    process.join(30)
    assert process.exitcode == 0, process.exitcode
    return result

def grandchild(pipe):
    pipe.send(ask(child, 15))

context = multiprocessing.get_context("fork")
{before}
for target in (child, child, grandchild):
    assert ask(target) == want  # each child after the parent's threads have run
assert work() == want
"""

# What the parent has done before it forks. In "torch itself" only torch's own pool ran, and boxops loads in the child.
FORKS = {
    "numpy": (False, "want = work()"),
    "torch": (True, "want = work()"),
    "torch itself": (True, "(torch.rand(2000, 2000) + 1).exp_(); want = ask()"),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("name", FORKS)
def test_fork_after_threads(name):
    """Children of a process whose threads have run can use boxops, though torch's own pool does not survive fork."""
    uses_torch, before = FORKS[name]
    if uses_torch:
        pytest.importorskip("torch")
    script = CALLS.format(torch=uses_torch) + FORK.format(before=before) + "print('same')"
    assert output_of(script, BOXOPS_NUM_THREADS="4") == "same"


LOADER = """
want = work()
from torch.utils.data import DataLoader, Dataset

class Works(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, i):
        return work()

for start in (None, lambda worker: torch.set_num_threads(2)):  # the loader itself sets one thread
    loader = DataLoader(Works(), batch_size=None, num_workers=2, timeout=30, worker_init_fn=start,
                        multiprocessing_context="fork")
    assert [got == want for got in loader] == [True] * 4
print("same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_data_loader_after_threads():
    pytest.importorskip("torch")
    assert output_of(CALLS.format(torch=True) + LOADER) == "same"


SPAWN = """
from concurrent.futures import ProcessPoolExecutor
want = boxops.batched_nms(boxes, scores, groups, 0.5)
with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
    got = pool.submit(boxops.batched_nms, boxes, scores, groups, 0.5).result(60)
assert got.tolist() == want.tolist()
print("same")
"""


def test_spawned_process():
    assert output_of(CALLS.format(torch=False) + SPAWN) == "same"


SMALL = """
def threads():
    return len(os.listdir("/proc/self/task"))

few, before = boxes[:1000], threads()
masks, features = (torch.from_numpy(numpy.ones(shape, "float32")) for shape in ((4, 60, 80), (1, 256, 50, 50)))
for call in (
    lambda: boxops.box_area(boxes),
    lambda: boxops.box_convert(boxes, "xyxy", "cxcywh"),
    lambda: boxops.clip_boxes_to_image(boxes, (30, 20)),
    lambda: boxops.encode_boxes(boxes, boxes),
    lambda: boxops.decode_boxes(boxes, boxes),
    lambda: boxops.box_iou(few, few[:500]),
    lambda: boxops.complete_box_iou(few[:500], few[:500]),
    lambda: boxops.rotated_box_iou(boxes.new_ones(300, 5), boxes.new_ones(300, 5)),
    lambda: boxops.complete_box_iou_loss(few, few),
    lambda: boxops.batched_nms(few, scores[:1000], groups[:1000], 0.5),
    lambda: boxops.nms_padded(few.view(4, 250, 4), scores[:1000].view(4, 250), 0.5, 100),
    lambda: boxops.soft_nms(few, scores[:1000], idxs=groups[:1000]),
    lambda: boxops.match_max_iou(boxes, boxes[:30], 0.7, 0.3),
    lambda: boxops.match_greedy(boxes, boxes[:30]),
    lambda: boxops.linear_sum_assignment(torch.rand(8, 100, 20)),
    lambda: boxops.sample_matches(groups.view(2, -1) - 4, 256, 0.5, seed=1),
    lambda: boxops.roi_align(features, [few[:4]], 7, sampling_ratio=2),
    lambda: boxops.roi_pool(features, [few[:4]], 7),
    lambda: boxops.masks_to_boxes(masks),
    lambda: boxops.paste_masks(torch.rand(4, 1, 28, 28), few[:4], (100, 100)),
):
    call()
small = threads() - before
work()
print(small, threads() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_small_calls_wake_no_thread():
    """Beside busy processes torch's pool costs milliseconds a call: work of tens of microseconds leaves it alone."""
    pytest.importorskip("torch")
    assert output_of(CALLS.format(torch=True) + SMALL, BOXOPS_WAKE_US="") == "0 2"
