"""Calls on emulated kernels of the sizes that goals are set for, as far as the emulator comes in a minute."""

import numpy as np

import cuda_emulator
from cuda_emulator.calls import around, boxes, call, fuse, on_device, rois, rois_around, scores

LARGE = {}


@call("nms, 5,000 crowded boxes", LARGE)
def _(rng, ops):
    ops.nms(boxes(rng, 5000, extent=600), scores(rng, 5000), 0.5)


@call("nms, 20,000 boxes", LARGE)
def _(rng, ops):
    ops.nms(boxes(rng, 20_000, extent=4500), scores(rng, 20_000), 0.5)


@call("nms, 100,000 boxes", LARGE)
def _(rng, ops):
    ops.nms(boxes(rng, 100_000, extent=10_000), scores(rng, 100_000), 0.5)


@call("nms_padded, 8 images of 4,000 boxes, 300 wanted", LARGE)
def _(rng, ops):
    ops.nms_padded(boxes(rng, 8, 4000, extent=1300), scores(rng, 8, 4000), 0.5, 300)


@call("nms_padded, 8 images of 1,000 boxes of 80 classes", LARGE)
def _(rng, ops):
    labels = on_device(rng.integers(0, 80, (8, 1000)), np.int64)
    ops.nms_padded(boxes(rng, 8, 1000, extent=1300), scores(rng, 8, 1000), 0.5, 1000, labels=labels)


@call("generate_proposals, 2 images, 5 levels, 2,000 of each", LARGE)
def _(rng, ops):
    levels = [160_000, 40_000, 10_000, 2500, 640]
    deltas = on_device(rng.normal(0, 0.2, (2, sum(levels), 4)))
    anchors = boxes(rng, sum(levels), extent=1200)
    ops.generate_proposals(scores(rng, 2, sum(levels)), deltas, anchors, levels, [(800, 1333)] * 2, 2000, 1000)


@call("detect, R-CNN: 2 images, 1,000 boxes of 90 classes", LARGE)
def _(rng, ops):
    ops.detect(boxes(rng, 2, 1000, extent=1200), on_device(rng.dirichlet(np.ones(90) / 20, (2, 1000))))


@call("detect, SSD: 8,732 boxes of 90 classes, 400 of each", LARGE)
def _(rng, ops):
    probabilities = on_device(rng.dirichlet(np.ones(90) / 20, (1, 8732)))
    ops.detect(boxes(rng, 1, 8732, extent=300), probabilities, 0.01, 0.45, 200, topk_per_class=400)


@call("soft_nms, 1,000 boxes", LARGE)
def _(rng, ops):
    ops.soft_nms(boxes(rng, 1000, extent=1200), scores(rng, 1000), method="linear")


@call("soft_nms, 1,000 crowded boxes, gaussian", LARGE)
def _(rng, ops):
    ops.soft_nms(boxes(rng, 1000, extent=300), scores(rng, 1000))


@call("soft_nms, 5,000 boxes", LARGE)
def _(rng, ops):
    ops.soft_nms(boxes(rng, 5000, extent=1200), scores(rng, 5000), method="linear")


@call("soft_nms, 1,000 boxes around 60 objects, gaussian", LARGE)
def _(rng, ops):
    ops.soft_nms(around(rng, 1000, boxes(rng, 60, extent=1200)), scores(rng, 1000))


@call("soft_nms, 5,000 boxes around 60 objects, gaussian", LARGE)
def _(rng, ops):
    ops.soft_nms(around(rng, 5000, boxes(rng, 60, extent=1200)), scores(rng, 5000))


@call("weighted_boxes_fusion, 3 models of 2,000 boxes of one label", LARGE)
def _(rng, ops):
    fuse(ops, [boxes(rng, 2000, extent=1200) for _ in range(3)], 1)


@call("weighted_boxes_fusion, 2,000 boxes of one label", LARGE)
def _(rng, ops):
    fuse(ops, [boxes(rng, 2000, extent=1200)], 1)


@call("weighted_boxes_fusion, 3 models of 2,000 boxes that see the same", LARGE)
def _(rng, ops):
    seen = boxes(rng, 2000, extent=1200)
    fuse(ops, [on_device(seen + rng.normal(0, 2, seen.shape)) for _ in range(3)], 1)


@call("weighted_boxes_fusion, 3 models of 2,000 boxes around 60 objects", LARGE)
def _(rng, ops):
    objects = boxes(rng, 60, extent=1000)
    fuse(ops, [around(rng, 2000, objects) for _ in range(3)], 1)


@call("weighted_boxes_fusion, 3 models of 2,000 boxes around one object", LARGE)
def _(rng, ops):
    object_ = boxes(rng, 1, extent=1000)
    fuse(ops, [around(rng, 2000, object_) for _ in range(3)], 1)


@call("weighted_boxes_fusion, 3 models of 2,000 boxes of 80 labels", LARGE)
def _(rng, ops):
    fuse(ops, [boxes(rng, 2000, extent=1200) for _ in range(3)], 80)


@call("box_iou, 2,000 x 2,000", LARGE)
def _(rng, ops):
    ops.box_iou(boxes(rng, 2000, extent=1200), boxes(rng, 2000, extent=1200))


@call("match_max_iou, 200,000 anchors x 50", LARGE)
def _(rng, ops):
    ops.match_max_iou(boxes(rng, 200_000, extent=800), boxes(rng, 50, extent=800), 0.7, 0.3, True)


@call("match_greedy, 200,000 anchors x 50", LARGE)
def _(rng, ops):
    ops.match_greedy(boxes(rng, 200_000, extent=800), boxes(rng, 50, extent=800))


@call("roi_align, 512 RoIs, 64 channels", LARGE)
def _(rng, ops):
    ops.roi_align(on_device(rng.random((2, 64, 100, 168))), rois(rng, 512, extent=800), 7, 0.125, 2)


def roi_align_backward(stride, objects, sides):
    """Of 512 RoIs around so many objects, or spread, on a map of an image of 800 x 1,088."""

    def called(rng, ops):
        regions = rois_around(rng, 512, objects, (800, 1088), sides)
        grad, regions = map(cuda_emulator.DeviceArray, (on_device(rng.random((512, 256, 7, 7))), regions))
        cuda_emulator.module().roi_align_backward(grad, regions, 1, 800 // stride, 1088 // stride, 1 / stride, 2, False)

    height, width, where = 800 // stride, 1088 // stride, "spread" if objects == 512 else f"around {objects} objects"
    call(f"roi_align backward, 512 RoIs {where}, 256 channels of {height} x {width}", LARGE)(called)


for objects in (512, 10):
    roi_align_backward(16, objects, (64, 400))
    roi_align_backward(4, objects, (16, 112))
