"""Calls on emulated kernels that are counted in seconds: `CALLS[name]()` runs one."""

import numpy as np

import cuda_emulator

CALLS = {}


def call(name, calls=CALLS):
    """Lists a function of a random generator and the emulated public functions."""

    def listed(function):
        calls[name] = lambda: function(np.random.default_rng(0), cuda_emulator.load())
        return function

    return listed


def on_device(array, dtype=np.float32):
    """A copy that begins where a device's memory would: at a multiple of 256 bytes."""
    array = np.asarray(array, dtype)
    memory = np.empty(array.nbytes + 256, np.uint8)
    first = -memory.ctypes.data % 256
    copy = memory[first : first + array.nbytes].view(dtype).reshape(array.shape)
    copy[...] = array
    return copy


def boxes(rng, *shape, extent, sides=(16, 128)):
    corner = rng.uniform(0, extent, (*shape, 2))
    return on_device(np.concatenate([corner, corner + rng.uniform(*sides, (*shape, 2))], axis=-1))


def around(rng, count, objects):
    """As a detector puts them out: about objects, corners off by 12 % of their sides."""
    corners = objects[np.arange(count) % len(objects)]
    sides = np.tile(corners[:, 2:] - corners[:, :2], 2)
    return on_device(corners + rng.normal(0, 0.12, corners.shape) * sides)


def scores(rng, *shape):
    return on_device(rng.random(shape))


def rotated(rng, count):
    numbers = [rng.uniform(0, count, (count, 2)), rng.uniform(16, 64, (count, 2)), rng.uniform(0, 180, (count, 1))]
    return on_device(np.concatenate(numbers, 1))


def matches(rng, *shape):
    return on_device(rng.integers(-2, 10, shape), np.int64)


@call("nms, 1,000 boxes")
def _(rng, ops):
    ops.nms(boxes(rng, 1000, extent=1300), scores(rng, 1000), 0.5)


@call("nms, 3,000 crowded boxes")
def _(rng, ops):
    ops.nms(boxes(rng, 3000, extent=400), scores(rng, 3000), 0.5)


@call("batched_nms, 2,000 boxes of 80 classes")
def _(rng, ops):
    ops.batched_nms(
        boxes(rng, 2000, extent=600), scores(rng, 2000), on_device(rng.integers(0, 80, 2000), np.int64), 0.5
    )


@call("nms_padded, 4 images of 1,000 boxes, 100 wanted")
def _(rng, ops):
    ops.nms_padded(boxes(rng, 4, 1000, extent=600), scores(rng, 4, 1000), 0.5, 100)


@call("rotated_nms, 300 boxes")
def _(rng, ops):
    ops.rotated_nms(rotated(rng, 300), scores(rng, 300), 0.5)


@call("soft_nms, 300 boxes")
def _(rng, ops):
    ops.soft_nms(boxes(rng, 300, extent=400), scores(rng, 300))


@call("weighted_boxes_fusion, 2 models of 300 boxes")
def _(rng, ops):
    sets = [
        (boxes(rng, 300, extent=400), scores(rng, 300), on_device(rng.integers(0, 3, 300), np.int64)) for _ in range(2)
    ]
    ops.weighted_boxes_fusion(*map(list, zip(*sets, strict=True)))


def fuse(ops, models, labels):
    """Boxes of each model, whose labels are below a number."""
    rng = np.random.default_rng(1)
    lists = [models, *zip(*((scores(rng, len(m)), labels_of(rng, len(m), labels)) for m in models), strict=True)]
    ops.weighted_boxes_fusion(*map(list, lists))


def labels_of(rng, count, labels):
    return on_device(rng.integers(0, labels, count), np.int64)


@call("weighted_boxes_fusion, 3 models of 200 boxes of one label")
def _(rng, ops):
    fuse(ops, [boxes(rng, 200, extent=400) for _ in range(3)], 1)


@call("weighted_boxes_fusion, 3 models of 200 boxes around 20 objects")
def _(rng, ops):
    fuse(ops, [around(rng, 200, boxes(rng, 20, extent=400)) for _ in range(3)], 1)


@call("weighted_boxes_fusion, 3 models of 1,000 boxes of 80 labels")
def _(rng, ops):
    fuse(ops, [boxes(rng, 1000, extent=1200) for _ in range(3)], 80)


@call("box_iou, 512 x 512")
def _(rng, ops):
    ops.box_iou(boxes(rng, 512, extent=600), boxes(rng, 512, extent=600))


@call("match_max_iou, 10,000 anchors x 50")
def _(rng, ops):
    ops.match_max_iou(boxes(rng, 10_000, extent=800), boxes(rng, 50, extent=800), 0.7, 0.3, True)


@call("match_greedy, 2,000 anchors x 20")
def _(rng, ops):
    ops.match_greedy(boxes(rng, 2000, extent=400), boxes(rng, 20, extent=400))


@call("linear_sum_assignment, 100 x 20")
def _(rng, ops):
    ops.linear_sum_assignment(scores(rng, 100, 20))


@call("generate_proposals, 2 images, 3 levels")
def _(rng, ops):
    levels = [1200, 300, 75]
    anchors = boxes(rng, sum(levels), extent=300)
    deltas = on_device(rng.normal(0, 0.2, (2, sum(levels), 4)))
    ops.generate_proposals(scores(rng, 2, sum(levels)), deltas, anchors, levels, [(320, 320)] * 2, 500, 300)


@call("detect, 2 images, 200 boxes of 20 classes")
def _(rng, ops):
    ops.detect(boxes(rng, 2, 200, extent=400), on_device(rng.dirichlet(np.ones(20) / 5, (2, 200))))


@call("decode_boxes, 10,000")
def _(rng, ops):
    ops.decode_boxes(on_device(rng.normal(0, 0.2, (10_000, 4))), boxes(rng, 10_000, extent=800))


def rois(rng, count, extent=192):
    return on_device(np.concatenate([rng.integers(0, 2, (count, 1)), boxes(rng, count, extent=extent)], 1))


def rois_around(rng, count, objects, image_size, sides):
    """Of one image, around so many objects within it."""
    side = rng.uniform(*sides, (objects, 2))
    corner = rng.uniform(0, 1, (objects, 2)) * (np.array(image_size[::-1]) - side)
    regions = around(rng, count, np.concatenate([corner, corner + side], 1))
    return on_device(np.concatenate([np.zeros((count, 1)), regions], 1))


@call("roi_align, 64 RoIs, 16 channels")
def _(rng, ops):
    ops.roi_align(on_device(rng.random((2, 16, 32, 32))), rois(rng, 64), 7, 0.125, 2)


@call("roi_align backward, 64 RoIs, 16 channels")
def _(rng, ops):
    grad, regions = map(cuda_emulator.DeviceArray, (on_device(rng.random((64, 16, 7, 7))), rois(rng, 64)))
    cuda_emulator.module().roi_align_backward(grad, regions, 2, 32, 32, 0.125, 2, False)


@call("roi_align backward, 64 RoIs around one object, 16 channels")
def _(rng, ops):
    regions = rois_around(rng, 64, 1, (256, 256), (40, 80))
    grad, regions = map(cuda_emulator.DeviceArray, (on_device(rng.random((64, 16, 7, 7))), regions))
    cuda_emulator.module().roi_align_backward(grad, regions, 1, 32, 32, 0.125, 2, False)


@call("roi_align backward, 1 RoI, 64 channels")
def _(rng, ops):
    grad, regions = map(cuda_emulator.DeviceArray, (on_device(rng.random((1, 64, 7, 7))), rois(rng, 1)))
    cuda_emulator.module().roi_align_backward(grad, regions, 2, 32, 32, 0.125, 2, False)


@call("ps_roi_align backward, 64 RoIs, 8 channels a bin")
def _(rng, ops):
    grad, regions = map(cuda_emulator.DeviceArray, (on_device(rng.random((64, 8, 3, 3))), rois(rng, 64)))
    cuda_emulator.module().ps_roi_align_backward(grad, regions, 2, 32, 32, 0.125, 2)


@call("roi_pool backward, 64 RoIs, 8 channels")
def _(rng, ops):
    features, grad = (on_device(rng.random(shape)) for shape in ((2, 8, 32, 32), (64, 8, 7, 7)))
    regions = cuda_emulator.DeviceArray(rois(rng, 64))
    _, argmax = cuda_emulator.module().roi_pool_with_argmax(cuda_emulator.DeviceArray(features), regions, 7, 7, 0.125)
    argmax = cuda_emulator.DeviceArray(on_device(cuda_emulator.to_host(argmax), np.int32))
    cuda_emulator.module().roi_pool_backward(cuda_emulator.DeviceArray(grad), argmax, regions, 2, 32, 32, 0.125)


@call("paste_masks, 8 masks on 160 x 160")
def _(rng, ops):
    ops.paste_masks(scores(rng, 8, 28, 28), boxes(rng, 8, extent=100), (160, 160), threshold=0.5)


def call_of(name, arguments):
    """Lists a call of the public function that the name begins with."""
    call(name)(lambda rng, ops: getattr(ops, name.split(",")[0])(*arguments(rng)))


# What is left, so that of every function the operations of the stream are known.
call_of("nms, 100 boxes", lambda rng: (boxes(rng, 100, extent=400), scores(rng, 100), 0.5))
call_of(
    "batched_rotated_nms, 100 boxes of 10 classes",
    lambda rng: (rotated(rng, 100), scores(rng, 100), on_device(rng.integers(0, 10, 100), np.int64), 0.5),
)
call_of("rotated_box_iou, 20 x 20", lambda rng: (rotated(rng, 20), rotated(rng, 20)))
for measure in ("box_ioa", "generalized_box_iou", "distance_box_iou", "complete_box_iou"):
    call_of(f"{measure}, 64 x 64", lambda rng: (boxes(rng, 64, extent=400), boxes(rng, 64, extent=400)))
for loss in ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss"):
    call_of(f"{loss}, 64", lambda rng: (boxes(rng, 64, extent=400), boxes(rng, 64, extent=400)))
call_of("box_area, 1,000", lambda rng: (boxes(rng, 1000, extent=400),))
call_of("box_convert, 1,000", lambda rng: (boxes(rng, 1000, extent=400), "xyxy", "cxcywh"))
call_of("clip_boxes_to_image, 1,000", lambda rng: (boxes(rng, 1000, extent=400), (320, 320)))
call_of("remove_small_boxes, 1,000", lambda rng: (boxes(rng, 1000, extent=400), 64.0))
call_of("encode_boxes, 1,000", lambda rng: (boxes(rng, 1000, extent=400), boxes(rng, 1000, extent=400)))
call_of("match_greedy_matrix, 20 x 200", lambda rng: (scores(rng, 20, 200), 0.5))
call_of(
    "detr_cost, 2 images of 100 queries x 10",
    lambda rng: (
        *(on_device(rng.normal(size=(2, 100, 20))), boxes(rng, 2, 100, extent=1, sides=(0.1, 0.5))),
        *(on_device(rng.integers(0, 20, 20), np.int64), boxes(rng, 20, extent=1, sides=(0.1, 0.5))),
        on_device([0, 10, 20], np.int64),
    ),
)
call("sample_matches, 2 images of 1,000")(lambda rng, ops: ops.sample_matches(matches(rng, 2, 1000), 256, seed=0))
call_of("mine_hard_negatives, 2 images of 1,000", lambda rng: (scores(rng, 2, 1000), matches(rng, 2, 1000)))
call_of("masks_to_boxes, 4 masks of 64 x 64", lambda rng: (on_device(rng.random((4, 64, 64)) > 0.9, bool),))
for pool in ("roi_pool", "ps_roi_pool", "ps_roi_align"):
    call_of(f"{pool}, 16 RoIs", lambda rng: (on_device(rng.random((2, 18, 16, 16))), rois(rng, 16), 3, 0.125))
call_of(
    "multiscale_roi_align, 16 RoIs, 2 levels",
    lambda rng: ([on_device(rng.random((2, 4, n, n))) for n in (32, 16)], rois(rng, 16), 7, [0.125, 0.0625]),
)


@call("cell_anchors, 20 x 20")
def _(rng, ops):
    ops.cell_anchors((20, 20), [(1.0, 2.0)], 16, like=scores(rng, 1))


@call("multibox_anchors, 20 x 20")
def _(rng, ops):
    ops.multibox_anchors((20, 20), [0.2], [1.0, 2.0], like=scores(rng, 1))


@call("grid_anchors, 2 levels")
def _(rng, ops):
    ops.grid_anchors((320, 320), [(20, 20), (10, 10)], [[32.0], [64.0]], [[1.0, 2.0]] * 2, like=scores(rng, 1))
