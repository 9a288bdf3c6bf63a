"""generate_proposals and detect: the same boxes on every backend, and torchvision's."""

import backends
import numpy as np
import pytest
from box_sets import random_boxes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import boxops
from boxops import reference


def head(seed=0, images=3, count=40, classes=3, per_class=False):
    rng = np.random.default_rng(seed)
    lead = (images, count, classes) if per_class else (images, count)
    boxes = random_boxes(rng, lead, 100.0, (10.0, 60.0)).astype(np.float32)
    return {"boxes": boxes, "scores": rng.random((images, count, classes), np.float32), "score_threshold": 0.3}


def rpn(seed=0, images=3, levels=(30, 20)):
    rng = np.random.default_rng(seed)
    count = sum(levels)
    return {
        "objectness": rng.normal(0, 2, (images, count)).astype(np.float32),
        "deltas": rng.normal(0, 0.3, (images, count, 4)).astype(np.float32),
        "anchors": random_boxes(rng, (images, count), 100.0, (10.0, 60.0)).astype(np.float32),
        "num_anchors_per_level": [*levels],
        "image_sizes": [(90, 110)] * images,
        "pre_nms_top_n": 20,
    }


def call(backend, op, arguments, **more):
    return tuple(map(backend.to_numpy, backend.run(op, {**arguments, **more})))


def test_layouts(backend):
    backends.check_layouts(backend, "generate_proposals", rpn())
    for per_class in (False, True):
        backends.check_layouts(backend, "detect", head(per_class=per_class))


def test_levels_do_not_meet(backend):
    """Two equal anchors suppress each other in one level, and not in two; the tie goes to the first."""
    arguments = {**rpn(images=1, levels=(2,)), "deltas": np.zeros((1, 2, 4), np.float32)}
    arguments |= {"anchors": np.full((2, 4), [1, 2, 31, 42], np.float32), "objectness": np.zeros((1, 2), np.float32)}
    for levels, count in (([2], 1), ([1, 1], 2), ([1, 0, 1], 2)):
        boxes, scores, counts = call(backend, "generate_proposals", arguments, num_anchors_per_level=levels)
        np.testing.assert_array_equal(counts, [count])
        np.testing.assert_array_equal(boxes[0, :count], [[1, 2, 31, 42]] * count)
        np.testing.assert_array_equal(scores[0, :3], [0.5] * count + [0] * (3 - count))


def test_top_n_is_taken_of_logits_not_of_scores(backend):
    """40 and 50 have the same sigmoid, 1; the larger logit is decoded, though it comes later."""
    arguments = {**rpn(images=1, levels=(2,)), "deltas": np.zeros((1, 2, 4), np.float32), "pre_nms_top_n": 1}
    arguments |= {"anchors": np.array([[0, 0, 8, 8], [32, 32, 64, 64]], np.float32)}
    arguments |= {"objectness": np.array([[40, 50]], np.float32)}
    boxes, scores, counts = call(backend, "generate_proposals", arguments)
    np.testing.assert_array_equal(boxes[0, 0], [32, 32, 64, 64])
    assert (scores[0, 0], counts[0]) == (1, 1)


def test_scores_far_above_the_sample_of_the_selection(backend):
    """Where a sample of a large level misleads: high logits nowhere but in the sample's places, or nowhere in them."""
    count, pre = 20000, 3000
    places = (np.arange(2048) * 0.6180339887498949 % 1 * count).astype(int)
    for inside in (3.0, -3.0):
        logits = np.random.default_rng(0).normal(-inside, 0.01, count).astype(np.float32)
        logits[places] += 2 * inside
        arguments = {**rpn(images=1, levels=(1,)), "objectness": logits[None], "num_anchors_per_level": [count]}
        arguments["anchors"] = (np.arange(count)[:, None] * [0.25, 0, 0.25, 0] + [0, 0, 0.25, 10]).astype(np.float32)
        arguments |= {"deltas": np.zeros((1, count, 4), np.float32), "image_sizes": [(10, 5000)]}
        boxes, _, counts = call(backend, "generate_proposals", arguments, pre_nms_top_n=pre, post_nms_top_n=pre)
        assert counts[0] == pre
        np.testing.assert_array_equal(boxes[0, :, 0], np.argsort(-logits, kind="stable")[:pre] * 0.25)


def test_no_logit_counts_as_missing_in_the_sample(backend):
    """Fewer numbers than NaN: the numbers come first."""
    logits = np.full(9000, np.nan, np.float32)
    logits[::1000] = np.arange(9)
    arguments = {**rpn(images=1, levels=(1,)), "objectness": logits[None], "num_anchors_per_level": [9000]}
    arguments["anchors"] = (np.arange(9000)[:, None] * [0.25, 0, 0.25, 0] + [0, 0, 0.25, 10]).astype(np.float32)
    arguments |= {"deltas": np.zeros((1, 9000, 4), np.float32), "image_sizes": [(10, 5000)]}
    boxes, _, counts = call(backend, "generate_proposals", arguments, pre_nms_top_n=100)
    assert counts[0] == 9
    np.testing.assert_array_equal(boxes[0, :9, 0], np.arange(9)[::-1] * 250)


def test_classes_do_not_meet(backend):
    arguments = {
        "boxes": np.full((1, 2, 4), [0, 0, 9, 9], np.float32),
        "scores": np.float32([[[0.5, 0.9], [0.7, 0.5]]]),
    }
    _, scores, labels, counts = call(backend, "detect", arguments, max_output=3)
    np.testing.assert_array_equal(scores, np.float32([[0.9, 0.7, 0]]))
    np.testing.assert_array_equal(labels, [[1, 0, -1]])
    assert counts[0] == 2
    _, scores, labels, counts = call(backend, "detect", arguments, max_output=3, class_agnostic=True)
    np.testing.assert_array_equal(labels, [[1, -1, -1]])


def test_threshold_is_rounded_once_to_the_compute_type(backend):
    # 0.7 as float32 lies below 0.7 as float64: it does not exceed the threshold as rounded.
    arguments = {"boxes": np.float32([[[0, 0, 1, 1]]]), "scores": np.float32([[[0.7]]])}
    assert call(backend, "detect", arguments, score_threshold=0.7)[3] == 0
    assert call(backend, "detect", arguments, score_threshold=0.6999999)[3] == 1


@pytest.mark.parametrize("topk", [1, 600, 3000])
def test_long_lists(backend, topk):
    """More candidates of a class than any shared memory holds, many of them tied."""
    arguments = head(1, 1, 4000, 2)
    arguments["scores"] = (np.round(arguments["scores"] * 64) / 64).astype(np.float32)
    for agnostic in (False, True):
        options = {"topk_per_class": topk, "class_agnostic": agnostic, "iou_threshold": 0.4, "max_output": 60}
        want = reference.detect(**arguments, **options)
        for g, w in zip(call(backend, "detect", arguments, **options), want, strict=True):
            np.testing.assert_array_equal(g, w)


def test_same_bits_every_time(backend):
    for op, arguments in (("detect", head(2, 2, 500, 7)), ("generate_proposals", rpn(2, 2, (400, 100)))):
        first = call(backend, op, arguments)
        for again in (call(backend, op, arguments) for _ in range(3)):
            assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))


# Properties

small = arrays(np.float32, st.tuples(st.integers(0, 7), st.just(4)), elements=st.integers(-3, 6))


@given(small, st.integers(1, 3), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_detect_is_batched_nms_of_the_candidates(boxes, classes, threshold, most, seed):
    scores = np.random.default_rng(seed).integers(0, 4, (len(boxes), classes)).astype(np.float32)
    rows, labels = np.nonzero(scores > 1)
    keep = boxops.batched_nms(boxes[rows], scores[rows, labels], labels, threshold)[:most]
    got = boxops.detect(boxes[None], scores[None], 1.0, threshold, most)
    for g, want in zip(got[:3], (boxes[rows], scores[rows, labels], labels), strict=True):
        np.testing.assert_array_equal(g[0, : len(keep)], want[keep])
    np.testing.assert_array_equal(got[3], [len(keep)])


@given(st.integers(0, 2**32 - 1))
def test_images_do_not_meet(seed):
    for op, arguments in (("detect", head(seed)), ("generate_proposals", rpn(seed))):
        whole = getattr(boxops, op)(**arguments)
        for b in range(3):
            one = {
                k: v[b : b + 1] if isinstance(v, np.ndarray) or k == "image_sizes" else v for k, v in arguments.items()
            }
            for g, w in zip(getattr(boxops, op)(**one), whole, strict=True):
                np.testing.assert_array_equal(g[0], w[b])


# Second opinion: torchvision's own methods


def trained(seed, images=2):
    """What an RPN gives that has learnt: logits and deltas by the IoU with some objects."""
    import torch
    from torchvision.models.detection import _utils
    from torchvision.ops import box_iou

    generator = torch.Generator().manual_seed(seed)
    sides = [(50, 84), (25, 42), (13, 21), (7, 11)]
    levels, anchors = [], []
    for i, (height, width) in enumerate(sides):
        step, size = 4 * 2**i, 16 * 2**i
        y, x = torch.meshgrid(torch.arange(height) * step, torch.arange(width) * step, indexing="ij")
        centre = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        shapes = torch.tensor([[-1, -1, 1, 1], [-1.4, -0.7, 1.4, 0.7], [-0.7, -1.4, 0.7, 1.4]]) * size / 2
        anchors.append((centre + shapes).reshape(-1, 4))
        levels.append(len(anchors[-1]))
    anchors = torch.cat(anchors)
    logits, deltas = [], []
    for _ in range(images):
        corner = torch.rand(12, 2, generator=generator) * torch.tensor([300.0, 180.0])
        objects = torch.cat([corner, corner + 8 + 100 * torch.rand(12, 2, generator=generator)], 1)
        iou, match = box_iou(objects, anchors).max(0)
        codes = _utils.BoxCoder((1.0, 1.0, 1.0, 1.0)).encode_single(objects[match], anchors)
        noise = torch.randn(len(anchors), 4, generator=generator)
        deltas.append(torch.where(iou[:, None] > 0.3, codes, 0) + 0.1 * noise)
        logits.append(iou * 12 - 8 + torch.randn(len(anchors), generator=generator))
    return torch.stack(logits), torch.stack(deltas), anchors, levels


@pytest.mark.parametrize(("pre", "post", "threshold"), [(1000, 1000, 0.7), (300, 50, 0.5), (100, 1000, 0.9)])
def test_torchvision_rpn(torchvision, pre, post, threshold):
    import torch
    from torchvision.models.detection.rpn import RegionProposalNetwork

    sizes, least = [(200, 330), (190, 300)], 0.02
    tops = {"training": pre, "testing": pre}, {"training": post, "testing": post}
    network = RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, *tops, threshold, least)
    logits, deltas, anchors, levels = trained(pre)
    proposals = network.box_coder.decode(deltas.reshape(-1, 4), [anchors] * 2).view(2, -1, 4)
    want = network.filter_proposals(proposals, logits, sizes, levels)
    got = boxops.generate_proposals(logits, deltas, anchors, levels, sizes, pre, post, threshold, score_threshold=least)
    for b, (boxes, scores) in enumerate(zip(*want, strict=True)):
        assert got[2][b] == len(boxes)
        # Another exp, so another last bit.
        torch.testing.assert_close(got[0][b, : len(boxes)], boxes, rtol=0, atol=1e-4)
        torch.testing.assert_close(got[1][b, : len(boxes)], scores, rtol=1e-6, atol=0)
        assert not got[0][b, len(boxes) :].any() and not got[1][b, len(boxes) :].any()


@pytest.mark.parametrize("seed", range(4))
def test_torchvision_roi_heads(torchvision, seed):
    import torch
    from torchvision.models.detection.roi_heads import RoIHeads

    generator, sizes = torch.Generator().manual_seed(seed), [(200, 300), (180, 320)]
    heads = RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, (10.0, 10.0, 5.0, 5.0), 0.05, 0.5, 40)
    centre = torch.rand(2, 15, 2, generator=generator)[:, torch.arange(200) % 15] * 250
    side = torch.exp(torch.rand(2, 200, 2, generator=generator) + 3)
    proposals = torch.cat([centre - side / 2, centre + side / 2], 2)
    logits = 2 * torch.randn(400, 8, generator=generator)
    codes = 0.3 * torch.randn(400, 32, generator=generator)
    want = heads.postprocess_detections(logits, codes, [*proposals], sizes)
    boxes = heads.box_coder.decode(codes, [*proposals]).view(2, 200, 8, 4)
    boxes = torch.stack([boxops.clip_boxes_to_image(b, size) for b, size in zip(boxes, sizes, strict=True)])
    scores = logits.softmax(-1).view(2, 200, 8)
    compare_detections(
        boxops.detect(boxes[:, :, 1:], scores[..., 1:], 0.05, 0.5, 40, min_size=1e-2), zip(*want, strict=True)
    )


@pytest.mark.parametrize("seed", range(4))
def test_torchvision_ssd(torchvision, seed):
    import torch
    from torchvision.models.detection.ssd import SSD

    generator = torch.Generator().manual_seed(seed)
    model = SSD(torch.nn.Sequential(), None, (300, 300), 6, head=torch.nn.Identity(), score_thresh=0.1, nms_thresh=0.45,
                detections_per_img=60, topk_candidates=25)  # fmt: skip
    corner = torch.rand(500, 2, generator=generator) * 250
    anchors = torch.cat([corner, corner + 20 + 60 * torch.rand(500, 2, generator=generator)], 1)
    outputs = {"bbox_regression": torch.randn(2, 500, 4, generator=generator),
               "cls_logits": torch.randn(2, 500, 6, generator=generator)}  # fmt: skip
    want = model.postprocess_detections(outputs, [anchors, anchors], [(300, 300)] * 2)
    boxes = torch.stack([model.box_coder.decode_single(codes, anchors) for codes in outputs["bbox_regression"]])
    scores = outputs["cls_logits"].softmax(-1)[..., 1:]
    got = boxops.detect(boxops.clip_boxes_to_image(boxes, (300, 300)), scores, 0.1, 0.45, 60, topk_per_class=25)
    compare_detections(got, ((w["boxes"], w["scores"], w["labels"]) for w in want))


def compare_detections(got, want):
    """torchvision's labels count the background as 0."""
    for b, (boxes, scores, labels) in enumerate(want):
        count = len(boxes)
        assert got[3][b] == count > 0
        for g, w in zip(got[:3], (boxes, scores, labels - 1), strict=True):
            assert g[b, :count].equal(w)


def test_export(device):
    """With sizes left open, as one program."""
    import torch

    class Detector(torch.nn.Module):
        def forward(self, boxes, scores):
            return boxops.detect(boxes, scores, 0.3, topk_per_class=9, max_output=11)

    boxes, scores = (torch.from_numpy(head()[name]).to(device) for name in ("boxes", "scores"))
    count = torch.export.Dim("count", min=2, max=4096)
    program = torch.export.export(Detector(), (boxes, scores), dynamic_shapes=({1: count}, {1: count}))
    longer = [torch.cat([x, x.flip(1)], 1) for x in (boxes, scores)]
    torch.testing.assert_close(program.module()(*longer), Detector()(*longer), rtol=0, atol=0)


def test_compile_with_sizes_of_the_batch(device):
    """The image sizes and levels may come from shapes, which are symbols then."""
    import torch

    def propose(images, objectness, deltas, anchors):
        height, width = images.shape[-2:]
        sizes, levels = [(height, width)] * len(images), [objectness.shape[1] - 20, 20]
        return boxops.generate_proposals(objectness, deltas, anchors, levels, sizes, 20, 9)

    torch._dynamo.reset()
    compiled = torch.compile(propose, fullgraph=True, dynamic=True, backend="aot_eager")
    for side, count in ((90, 30), (70, 35)):
        arrays = [torch.from_numpy(rpn(levels=(count, 20))[n]).to(device) for n in ("objectness", "deltas", "anchors")]
        images = torch.zeros(3, 3, side, side + 20, device=device)
        torch.testing.assert_close(compiled(images, *arrays), propose(images, *arrays), rtol=0, atol=0)


@pytest.mark.gpu
def test_no_synchronisation():
    """Both run in a captured CUDA graph, which refuses whatever waits."""
    backends.CUDA.require()
    import torch

    detector, proposer = head(), rpn()
    on_device = [{k: torch.from_numpy(v).cuda() if isinstance(v, np.ndarray) else v for k, v in a.items()}
                 for a in (detector, proposer)]  # fmt: skip
    want = [boxops.detect(**on_device[0]), boxops.generate_proposals(**on_device[1])]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = [boxops.detect(**on_device[0]), boxops.generate_proposals(**on_device[1])]
    graph.replay()
    torch.testing.assert_close(got, want, rtol=0, atol=0)
