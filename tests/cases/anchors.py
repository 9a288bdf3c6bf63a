"""Cases of the anchors."""

import numpy as np

from cases.case import Case, zeros


def like(name, **arguments):
    """`like` is float64, and becomes the dtype under test."""
    return Case(name, lambda rng, dtype: {"like": np.zeros((2, 0)), **arguments})


def multibox():
    few, some = {"sizes": (0.5,), "aspect_ratios": (1.0,)}, {"sizes": (0.75, 0.5, 0.25), "aspect_ratios": (1, 2, 0.5)}
    grids = [(0, 0), (0, 5), (5, 0), (1, 1), (1, 7), (9, 1), (3, 5), (16, 16), (17, 15), (61, 83), (257, 63)]
    for grid in grids:
        for normalized in (True, False):
            yield like(f"{grid}, normalized={normalized}", grid_size=grid, normalized=normalized, **some)
    yield like("one box", grid_size=(33, 65), **few)
    yield like("a list", grid_size=[4, 6], sizes=[0.3, 1.0], aspect_ratios=[3.0])
    yield like("sizes only", grid_size=(7, 9), sizes=tuple(np.linspace(0.01, 1.2, 21)), aspect_ratios=(1.7,))
    yield like("ratios only", grid_size=(7, 9), sizes=(0.3,), aspect_ratios=tuple(np.linspace(0.1, 9, 21)))
    yield like(
        "more anchors than a launch holds",
        grid_size=(3, 5),
        sizes=tuple(np.linspace(0.01, 1, 150)),
        aspect_ratios=(2, 1),
    )
    yield like("huge and tiny", grid_size=(3, 5), sizes=(1e30, 1e-30, 1e300, 1e-300), aspect_ratios=(1e20, 1e-20))


PYRAMID = {
    "sizes": ((32,), (64,), (128,), (256,), (512,)),
    "aspect_ratios": ((0.5, 1.0, 2.0),) * 5,
    "grid_sizes": [(40, 67), (20, 34), (10, 17), (5, 9), (3, 5)],
    "image_size": (160, 267),
}


def grids():
    yield like("pyramid", **PYRAMID)
    yield like("lists and strides", **{**PYRAMID, "sizes": [[32, 40]] * 5}, strides=[4, (8, 7), [16, 16], 32, 64])
    uneven = {"sizes": ((8, 9.5, 10), (33,), (1, 2, 3, 4)), "aspect_ratios": ((1,), (0.3, 0.7, 1.9, 3), (2.0, 0.5))}
    yield like("uneven", image_size=(37, 41), grid_sizes=((7, 5), (1, 3), (2, 2)), **uneven)
    yield like("no cells in some", image_size=(37, 41), grid_sizes=((0, 5), (4, 3), (2, 0)), **uneven)
    yield like("no cells", image_size=(0, 0), grid_sizes=((0, 5), (0, 0), (2, 0)), strides=(1, 2, 3), **uneven)
    yield like("one cell", image_size=(8, 8), grid_sizes=((1, 1),), sizes=((3,),), aspect_ratios=((1.0,),))
    # Half sides that end in .5, and go to the even integer.
    yield like("half to even", image_size=(64, 64), grid_sizes=((3, 5),), sizes=((1, 3, 5, 7, 9, 11),),
               aspect_ratios=((1, 4, 0.25),))  # fmt: skip
    many = {"sizes": ((16, 32),) * 19, "aspect_ratios": ((1.0, 2.0),) * 19}
    yield like("more levels than a launch holds", image_size=(99, 99), grid_sizes=[(i % 4, 3) for i in range(19)],
               **many)  # fmt: skip
    yield like("more anchors than a launch holds", image_size=(9, 9), grid_sizes=[(3, 2), (2, 2)],
               sizes=(tuple(range(1, 51)),) * 2, aspect_ratios=((1, 2, 0.5),) * 2)  # fmt: skip
    yield like("far", image_size=(40000, 40000), grid_sizes=((2, 400), (300, 3)), sizes=((512,), (1e5,)),
               aspect_ratios=((1.3, 2), (0.1, 7)))  # fmt: skip


def cells():
    priors = [(116, 90), (156, 198), (373, 326)]
    for grid in [(0, 4), (1, 1), (13, 13), (7, 9), (26, 52)]:
        yield like(f"{grid}", grid_size=grid, priors=priors, stride=32)
    yield like("stride (y, x)", grid_size=(5, 3), priors=((1.3221, 1.73145),), stride=(0.7, 1.3))
    yield like("whole image", grid_size=[7, 7], priors=[[448, 448]], stride=64.0)
    yield like(
        "more priors than a launch holds", grid_size=(2, 3), priors=[(i, 2 * i) for i in range(1, 120)], stride=8
    )


KEEP_DTYPE = {"multibox_anchors", "grid_anchors", "cell_anchors"}
CASES = {"multibox_anchors": [*multibox()], "grid_anchors": [*grids()], "cell_anchors": [*cells()]}

BOX, GRID, CELL = {"grid_size": (3, 4), "sizes": (0.5,), "aspect_ratios": (1,)}, {**PYRAMID, "strides": (1,) * 5}, \
    {"grid_size": (3, 4), "priors": ((1, 2),), "stride": 8}  # fmt: skip
INTEGERS = {"like": np.zeros(3, np.int32)}
ONE = {"image_size": (8, 8), "grid_sizes": ((2, 2),), "sizes": ((8,),), "aspect_ratios": ((1,),)}
POSITIVE = "> 0 and finite, got"
WRONG_VALUES = [
    ("multibox_anchors", {**BOX, **INTEGERS}, "like of a floating type, got int32"),
    ("multibox_anchors", {**BOX, "like": np.zeros(3, bool)}, "like of a real number type, got bool"),
    ("multibox_anchors", {**BOX, "grid_size": (-1, 4)}, "grid_size = (height, width), both >= 0, got (-1, 4)"),
    ("multibox_anchors", {**BOX, "grid_size": (2**40, 2**40)}, "fewer than 2^58 anchors, got more"),
    ("multibox_anchors", {**BOX, "sizes": ()}, "sizes with at least one number, got none"),
    ("multibox_anchors", {**BOX, "sizes": (0.5, 0)}, f"sizes {POSITIVE} 0"),
    ("multibox_anchors", {**BOX, "sizes": (np.inf,)}, f"sizes {POSITIVE} inf"),
    ("multibox_anchors", {**BOX, "aspect_ratios": []}, "aspect_ratios with at least one number, got none"),
    ("multibox_anchors", {**BOX, "aspect_ratios": (-0.5,)}, f"aspect_ratios {POSITIVE} -0.5"),
    ("multibox_anchors", {**BOX, "aspect_ratios": (1, np.nan)}, f"aspect_ratios {POSITIVE} nan"),
    ("grid_anchors", {**GRID, **INTEGERS}, "like of a floating type, got int32"),
    ("grid_anchors", {**GRID, "grid_sizes": []}, "at least one level, got none"),
    ("grid_anchors", {**GRID, "sizes": ((8,),)}, "sizes for 5 levels, as grid_sizes has, got 1"),
    ("grid_anchors", {**GRID, "aspect_ratios": ((1,),) * 6}, "aspect_ratios for 5 levels, as grid_sizes has, got 6"),
    ("grid_anchors", {**GRID, "strides": (1,)}, "strides for 5 levels, as grid_sizes has, got 1"),
    ("grid_anchors", {**GRID, "strides": (1, 2, (0, 3), 4, 5)}, "strides >= 1, got (0, 3)"),
    ("grid_anchors", {**ONE, "image_size": (8, 1)}, "strides >= 1, got (4, 0)"),
    ("grid_anchors", {**ONE, "grid_sizes": ((2, -2),)}, "grid_sizes = (height, width), both >= 0, got (2, -2)"),
    ("grid_anchors", {**ONE, "sizes": ((8, -8),)}, f"sizes {POSITIVE} -8"),
    ("grid_anchors", {**ONE, "sizes": ((),)}, "sizes with at least one number, got none"),
    ("grid_anchors", {**ONE, "aspect_ratios": ((np.nan,),)}, f"aspect_ratios {POSITIVE} nan"),
    ("grid_anchors", {**ONE, "grid_sizes": ((2, 2),) * 2, "sizes": ((8,), ()), "aspect_ratios": ((1,),) * 2},
        "at least one size and one aspect ratio for every level, got none for level 1"),
    ("cell_anchors", {**CELL, **INTEGERS}, "like of a floating type, got int32"),
    ("cell_anchors", {**CELL, "grid_size": (3, -4)}, "grid_size = (height, width), both >= 0, got (3, -4)"),
    ("cell_anchors", {**CELL, "priors": ()}, "priors with at least one number, got none"),
    ("cell_anchors", {**CELL, "priors": ((1, 0),)}, f"priors {POSITIVE} 0"),
    ("cell_anchors", {**CELL, "stride": 0}, f"stride {POSITIVE} 0"),
    ("cell_anchors", {**CELL, "stride": (1, np.nan)}, f"stride {POSITIVE} nan"),
]  # fmt: skip
PAIR = "(height, width)"
WRONG_TYPES = [
    ("multibox_anchors", {**BOX, "like": [1.0]}, "arrays (NumPy, torch or DLPack), got list"),
    ("multibox_anchors", {**BOX, "grid_size": 3}, f"grid_size = {PAIR}, got 3"),
    ("multibox_anchors", {**BOX, "grid_size": (3.0, 4)}, "grid_size as an integer, got float"),
    ("multibox_anchors", {**BOX, "sizes": 0.5}, "sizes as numbers in a list or tuple, got float"),
    ("multibox_anchors", {**BOX, "aspect_ratios": ("1",)}, "aspect_ratios as a number, got str"),
    ("grid_anchors", {**ONE, "image_size": None}, f"image_size = {PAIR}, got None"),
    ("grid_anchors", {**ONE, "grid_sizes": (2, 2)}, f"grid_sizes = {PAIR}, got 2"),
    ("grid_anchors", {**ONE, "grid_sizes": 2}, "grid_sizes as a list or tuple, got int"),
    ("grid_anchors", {**ONE, "sizes": (8,)}, "sizes as numbers in a list or tuple, got int"),
    ("grid_anchors", {**ONE, "strides": (1.5,)}, "strides as an integer or (y, x), got 1.5"),
    ("cell_anchors", {**CELL, "grid_size": (1, 2, 3)}, f"grid_size = {PAIR}, got (1, 2, 3)"),
    ("cell_anchors", {**CELL, "priors": (8, 9)}, "priors = (width, height), got 8"),
    ("cell_anchors", {**CELL, "priors": ((8, "9"),)}, "priors as a number, got str"),
    ("cell_anchors", {**CELL, "stride": (1, 2, 3)}, "stride as a number or (y, x), got (1, 2, 3)"),
    ("cell_anchors", {**CELL, "stride": None}, "stride as a number or (y, x), got None"),
]


_LIKE = {"like": zeros(3, 4)}
NUMBERS = {
    "multibox_anchors": [(_LIKE, {"grid_size": (2, 3), "sizes": [0.5, 0.2], "aspect_ratios": [1.0, 2.0]})],
    "grid_anchors": [
        (
            _LIKE,
            {
                "image_size": (8, 8),
                "grid_sizes": [(2, 2)],
                "sizes": [[8.0]],
                "aspect_ratios": [[1.0]],
                "strides": [(4, 4)],
            },
        )
    ],
    "cell_anchors": [(_LIKE, {"grid_size": (2, 2), "priors": [(3.0, 4.0)], "stride": (8.0, 8.0)})],
}


def samples(device):
    import torch

    like = torch.zeros(1, device=device)
    return {
        "multibox_anchors": [(like, 3, 4, [0.5, 0.2], [1.0, 2.0], True), (like.bfloat16(), 0, 4, [0.5], [1.0], False)],
        "grid_anchors": [(like, [3, 4, 1, 2], [8, 8, 16, 20], [8.0, 16.0, 32.0], [2, 1], [1.0, 2.0], [1, 1])],
        "cell_anchors": [(like.double(), 3, 4, [10.0, 13.0, 16.0, 30.0], 8.0, 8.0)],
    }


def calls(device):
    import torch

    import boxops

    maps = torch.zeros(1, 8, 5, 7, device=device), torch.zeros(1, 8, 3, 4, device=device)
    return {
        "multibox_anchors": (lambda x: boxops.multibox_anchors(x.shape[-2:], (0.5, 0.2), (1, 2), like=x), maps[:1]),
        "grid_anchors": (
            lambda *x: boxops.grid_anchors(
                (160, 225), [m.shape[-2:] for m in x], ((8, 16), (32,)), ((1, 2),) * 2, like=x[0]
            ),
            maps,
        ),
        "cell_anchors": (lambda x: boxops.cell_anchors(x.shape[-2:], ((10, 13), (16, 30)), 8, like=x), maps[:1]),
    }
