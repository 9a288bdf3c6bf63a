"""What only a CUDA device can show: streams, graphs, and sizes that need its memory."""

import backends
import numpy as np
import pytest
from box_sets import random_boxes

import boxops

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device():
    backends.CUDA.require()


def tensors(count, lead=()):
    rng = np.random.default_rng(0)
    arrays = random_boxes(rng, (*lead, count), 100.0), rng.random((*lead, count))
    return [torch.tensor(array, dtype=torch.float32, device="cuda") for array in arrays]


def test_padded_never_waits_and_can_be_captured():
    boxes, scores = tensors(300, lead=(4,))
    want = boxops.nms_padded(boxes, scores, 0.5, 50)
    torch.cuda.set_sync_debug_mode("error")
    try:
        boxops.nms_padded(boxes, scores, 0.5, 50, idxs=(scores * 0).long(), score_threshold=0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    inputs, graph = [boxes.clone(), scores.clone()], torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = boxops.nms_padded(*inputs, 0.5, 50)
    inputs[0].zero_()
    graph.replay()
    assert (captured[1] == 50).all()  # boxes of no size suppress nothing
    inputs[0].copy_(boxes)
    graph.replay()
    torch.testing.assert_close(captured, want)


def test_runs_on_the_current_stream():
    boxes, scores = tensors(2000)
    want = boxops.nms(boxes, scores, 0.5)
    late, stream = torch.zeros_like(boxes), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late.copy_(boxes)
        torch.testing.assert_close(boxops.nms(late, scores, 0.5), want)


@pytest.mark.slow
def test_more_than_2_to_the_31_pairs():
    boxes, _ = tensors(50_000)
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of device memory")
    iou = boxops.box_iou(boxes, boxes)
    torch.testing.assert_close(iou[-9:], boxops.box_iou(boxes[-9:], boxes), rtol=0, atol=0)
    assert torch.cuda.max_memory_allocated() < iou.nbytes * 1.01 + 2**24


@pytest.mark.slow
def test_a_million_boxes_need_no_mask():
    rng = np.random.default_rng(0)
    boxes = torch.from_numpy(random_boxes(rng, 1_000_000, 30_000.0).astype(np.float32))
    scores = torch.from_numpy(rng.random(1_000_000, np.float32))
    on_device = boxes.to("cuda"), scores.to("cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    keep = boxops.nms(*on_device, 0.5)
    assert torch.cuda.max_memory_allocated() - before < 2**28
    torch.testing.assert_close(keep.cpu(), boxops.nms(boxes, scores, 0.5))
