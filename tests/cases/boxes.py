"""Cases of the elementwise ops."""

from itertools import product

from box_sets import BOXES, integer_boxes

from cases.case import FLOATS, FORMATS, INTEGERS, SIZES, Case, shaped


def of_boxes(name, boxes, dtypes=FLOATS, **arguments):
    return Case(name, lambda rng, dtype: {"boxes": boxes(rng, dtype), **arguments}, dtypes)


def every_set(**arguments):
    yield from (of_boxes(name, boxes, **arguments) for name, boxes in BOXES.items())
    yield from (of_boxes(f"{n} boxes", shaped(n), **arguments) for n in SIZES)
    yield of_boxes("integers", integer_boxes, INTEGERS, **arguments)


def shapes(*shapes, **arguments):
    return [of_boxes(f"shape {shape}, {arguments}", shaped(*shape), **arguments) for shape in shapes]


KEEP_DTYPE = {"box_convert", "clip_boxes_to_image"}
CASES = {
    "box_area": [*every_set(), *shapes((2, 3, 5), (), (0, 3)), *(s for f in FORMATS[1:] for s in shapes((65,), fmt=f))],
    "box_convert": [
        *every_set(in_fmt="xyxy", out_fmt="cxcywh"),
        *(s for i, o in product(FORMATS, FORMATS) for s in shapes((), (0, 3), (2, 35), in_fmt=i, out_fmt=o)),
    ],
    "clip_boxes_to_image": [*every_set(size=(48, 64)), *shapes((), (0, 3), (2, 3, 5), size=(480, 640))],
    "remove_small_boxes": [*every_set(min_size=50), *shapes((65,), min_size=0), *shapes((65,), min_size=63.7)],
}
