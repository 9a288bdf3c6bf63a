"""The L1 cost of pairs, bound by writing the matrix."""

from __future__ import annotations

from functools import partial

import boxops
from boxops import reference

from .case import Case, whole
from .iou import two
from .machine import rival

torch = rival("torch")

CASES = [
    Case(
        "box_l1_cost",
        f"{n:,} x {n:,}" if n > 1 else "1 x 1",
        n,
        make=partial(two, n),
        ours=lambda boxes1, boxes2: boxops.box_l1_cost(boxes1, boxes2),
        reference=lambda boxes1, boxes2: reference.box_l1_cost(boxes1, boxes2),
        rivals={"torch": lambda boxes1, boxes2: torch.cdist(boxes1, boxes2, p=1)},
        check=whole,
        goal=("torch", 1.0),
        limit="fill",
    )
    for n in (1, 100, 1000)
]
