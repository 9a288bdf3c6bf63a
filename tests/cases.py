"""One list of cases per op, shared by the tests of correctness, gradients and emulation and by the benchmarks.

`CASES[op]` is a list of `Case`; `case.arguments(dtype)` gives the keyword arguments of the op as NumPy
arrays, the same at every call. bfloat16 values come as float32 arrays that bfloat16 holds exactly.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from box_sets import BOXES, GROUPS, SCORES, integer_boxes, random_boxes, threshold_pairs

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
SIZES = (1, 7, 15, 16, 17, 63, 64, 65, 255, 257, 1000, 4097)  # around SIMD widths, tiles and thread grains
FORMATS = ("xyxy", "xywh", "cxcywh")
PAIRWISE = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou", "box_ioa")
LOSSES = ("generalized_box_iou_loss", "distance_box_iou_loss", "complete_box_iou_loss")


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable  # (generator, dtype) -> keyword arguments
    dtypes: tuple = FLOATS

    def arguments(self, dtype="float32"):
        made = self.make(np.random.default_rng(zlib.crc32(self.name.encode())), dtype)
        for name, value in made.items():
            if name.startswith("boxes"):
                made[name] = as_dtype(value, dtype)
            elif name == "scores":
                made[name] = as_dtype(value, dtype if dtype in FLOATS else "float32")
        return made


def as_dtype(array, dtype):
    array = np.asarray(array)
    with np.errstate(all="ignore"):
        if dtype != "bfloat16":
            return array.astype(dtype)
        bits = array.astype(np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(array), np.float32(np.nan), rounded.view(np.float32))


def each(op):
    """Every (case, dtype) of an op."""
    return [(case, dtype) for case in CASES[op] for dtype in case.dtypes]


def shaped(*shape, **options):
    return lambda rng, dtype: random_boxes(rng, shape, **options)


# Ops on one set of boxes


def of_boxes(name, boxes, dtypes=FLOATS, **arguments):
    return Case(name, lambda rng, dtype: {"boxes": boxes(rng, dtype), **arguments}, dtypes)


def every_set(**arguments):
    yield from (of_boxes(name, boxes, **arguments) for name, boxes in BOXES.items())
    yield from (of_boxes(f"{n} boxes", shaped(n), **arguments) for n in SIZES)
    yield of_boxes("integers", integer_boxes, INTEGERS, **arguments)


def shapes(*shapes, **arguments):
    return [of_boxes(f"shape {shape}, {arguments}", shaped(*shape), **arguments) for shape in shapes]


# Ops on two sets of boxes


def of_pairs(name, boxes, partners, dtypes=FLOATS, **options):
    """`partners`: (generator, boxes1) -> boxes2."""

    def make(rng, dtype):
        boxes1 = boxes(rng, dtype)
        return {"boxes1": boxes1, "boxes2": partners(rng, boxes1), **options}

    return Case(", ".join([name, *(f"{key}={value}" for key, value in options.items())]), make, dtypes)


def of_shapes(shape1, shape2, **options):
    return of_pairs(f"{shape1} x {shape2}", shaped(*shape1), lambda rng, _: random_boxes(rng, shape2), **options)


def shuffled(rng, boxes):
    return rng.permutation(boxes)


def reversed_and_more(rng, boxes):
    return np.concatenate([boxes[::-1], random_boxes(rng, 17).astype(boxes.dtype)])


def pairwise():
    yield from (of_pairs(name, boxes, reversed_and_more) for name, boxes in BOXES.items())
    yield of_pairs("integers", integer_boxes, shuffled, INTEGERS)
    for n, m in [*zip(SIZES[:-1], SIZES[1:-1] + SIZES[:1], strict=True), (1, 4097), (4097, 1), (257, 255)]:
        yield of_shapes((n,), (m,))
    batches = [((2, 3, 5), (2, 3, 7)), ((3, 1, 5), (2, 7)), ((5,), (4, 7)), ((0, 5), (1, 7)), ((2, 0), (7,))]
    yield from (of_shapes(*batch) for batch in batches)
    yield from (of_shapes((65,), (33,), fmt=fmt) for fmt in FORMATS[1:])


def paired(**options):
    yield from (of_pairs(name, boxes, shuffled, **options) for name, boxes in BOXES.items())
    yield of_pairs("integers", integer_boxes, shuffled, INTEGERS, **options)
    yield from (of_shapes((n,), (n,), **options) for n in SIZES)
    batches = [((5, 1), (7,)), ((), ()), ((), (9,)), ((3, 1, 4), (2, 1)), ((0, 5), (5,))]
    yield from (of_shapes(*batch, **options) for batch in batches)


# Suppression


def of_scored(name, boxes, scores="distinct", dtypes=FLOATS, iou_threshold=0.5, **arguments):
    """`arguments` may hold functions (generator, shape of scores) -> value."""

    def make(rng, dtype):
        made = boxes(rng, dtype)
        shape = made.shape[:-1]
        more = {key: value(rng, shape) if callable(value) else value for key, value in arguments.items()}
        return {"boxes": made, "scores": SCORES[scores](rng, shape), "iou_threshold": iou_threshold, **more}

    return Case(name, make, dtypes)


THRESHOLDS = (0.0, 0.001, 0.1, 0.3, 0.45, 0.5, 0.6, 0.7, 0.9, 0.95, 0.999)


def nms():
    varied = [*product(SCORES, (*THRESHOLDS, 1.0, 3.0))]
    for i, (name, boxes) in enumerate(BOXES.items()):
        for scores, threshold in [("distinct", 0.5), *varied[7 * i % 60 :: 31]]:
            yield of_scored(f"{name}, {scores} scores, {threshold}", boxes, scores, iou_threshold=threshold)
    yield from (of_scored(f"{n} boxes", shaped(n)) for n in SIZES)
    yield of_scored("integers", integer_boxes, dtypes=INTEGERS)
    for threshold in THRESHOLDS:
        yield of_scored(f"pairs about {threshold}", about(threshold), "constant", DECISIVE, iou_threshold=threshold)


DECISIVE = ("float32", "float64")  # dtypes that hold the coordinates of threshold_pairs


def about(threshold):
    return lambda rng, dtype: threshold_pairs(rng, dtype, threshold)


def batched_nms():
    for i, (name, boxes) in enumerate(BOXES.items()):
        for scores, groups in list(product(SCORES, GROUPS))[7 * i % 30 :: 11]:
            yield of_scored(f"{name}, {scores} scores, {groups}", boxes, scores, idxs=GROUPS[groups])
    yield from (of_scored(f"{n} boxes", shaped(n), idxs=GROUPS["3 groups"]) for n in SIZES)
    yield of_scored("integers", integer_boxes, dtypes=INTEGERS, idxs=GROUPS["3 groups"])
    for threshold in THRESHOLDS[::3]:
        name, boxes = f"pairs about {threshold}", about(threshold)
        yield of_scored(name, boxes, "constant", DECISIVE, iou_threshold=threshold, idxs=GROUPS["one group"])
    yield of_scored("1200 classes at 1e5", classes_at_1e5, idxs=lambda rng, shape: rng.integers(0, 1200, shape))


def classes_at_1e5(rng, dtype):
    """40 objects of 100 candidates each, anywhere in an image of 1e5 px."""
    return np.tile(random_boxes(rng, 40, 1e5 - 300), (100, 1)) + rng.uniform(-9, 9, (4000, 4))


def nms_padded():
    crowd = {"extent": 60.0, "sides": (20.0, 80.0)}
    options = product((3, 1), (0, 1, 60, 65), (None, 0.5), (None, *GROUPS))
    for i, (batch, max_output, score_threshold, groups) in enumerate(options):
        scores = [*SCORES][i % len(SCORES)]
        name = f"[{batch}, 60] to {max_output}, {scores} scores over {score_threshold}, {groups}"
        yield of_scored(name, shaped(batch, 60, **crowd), scores, max_output=max_output,
                        score_threshold=score_threshold, labels=GROUPS.get(groups))  # fmt: skip
    for shape, max_output in [*product([(0, 5), (2, 0), (2, 1), (5, 257)], (0, 3, 1000)), ((1, 4097), 1000)]:
        yield of_scored(f"{shape} to {max_output}", shaped(*shape), max_output=max_output)
    for name, boxes in BOXES.items():
        yield of_scored(name, stacked(boxes, boxes), iou_threshold=0.3, max_output=50)
    yield of_scored("integers", stacked(integer_boxes), dtypes=INTEGERS, max_output=30)


def stacked(*sets):
    return lambda rng, dtype: np.stack([boxes(rng, dtype) for boxes in sets])


CASES = {
    "box_area": [*every_set(), *shapes((2, 3, 5), (), (0, 3)), *(s for f in FORMATS[1:] for s in shapes((65,), fmt=f))],
    "box_convert": [
        *every_set(in_fmt="xyxy", out_fmt="cxcywh"),
        *(s for i, o in product(FORMATS, FORMATS) for s in shapes((), (0, 3), (2, 35), in_fmt=i, out_fmt=o)),
    ],
    "clip_boxes_to_image": [*every_set(size=(48, 64)), *shapes((), (0, 3), (2, 3, 5), size=(480, 640))],
    "remove_small_boxes": [*every_set(min_size=50), *shapes((65,), min_size=0), *shapes((65,), min_size=63.7)],
    **{op: [*pairwise(), *paired(paired=True)] for op in PAIRWISE},
    **{op: [*paired(), *paired(reduction="mean"), *paired(reduction="sum")] for op in LOSSES},
    "nms": list(nms()),
    "batched_nms": list(batched_nms()),
    "nms_padded": list(nms_padded()),
}
