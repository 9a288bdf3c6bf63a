"""Cases of the elementwise ops."""

from itertools import product

from box_sets import BOXES, integer_boxes

from cases.case import FLOATS, FORMATS, INTEGERS, SIZES, Case, shaped, tensors


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


def samples(device):
    boxes, _ = tensors(device)
    batch, _ = tensors(device, lead=(2,))
    return {
        "box_area": [(boxes, 0), (batch.half(), 1), (boxes.double().requires_grad_(), 2)],
        "box_convert": [*((boxes.half(), i, o) for i in range(3) for o in range(3)), (boxes.long(), 0, 1)],
        "clip_boxes": [(boxes, 30.0, 50.0), (boxes.int(), 30.0, 50.0)],
        "remove_small_boxes": [(boxes, 20.0)],
    }


def calls(device):
    import boxops

    boxes, _ = tensors(device)
    return {
        "box_area": (boxops.box_area, (boxes,)),
        "box_convert": (lambda b: boxops.box_convert(b, "xyxy", "xywh"), (boxes,)),
        "clip_boxes_to_image": (lambda b: boxops.clip_boxes_to_image(b, (30, 50)), (boxes,)),
        "remove_small_boxes": (lambda b: boxops.remove_small_boxes(b, 20), (boxes,)),
    }


def drawn(d, **more):
    return {"boxes": d.boxes(d.batch, d.n) if d.either() else d.boxes(d.n), **more}


DRAWN = {
    "box_area": lambda d: drawn(d, fmt=d.fmt()),
    "box_convert": lambda d: drawn(d, in_fmt=d.fmt(), out_fmt=d.fmt()),
    "clip_boxes_to_image": lambda d: drawn(
        d, size=(d.knob(12), d.knob(7.5)) if d.often() else d.one_of(3, (1,), None, "ab")
    ),
    "remove_small_boxes": lambda d: {"boxes": d.boxes(d.n), "min_size": d.knob(3)},
}
