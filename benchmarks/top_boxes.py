"""The boxes above a threshold: one pass over boxes and scores."""

from __future__ import annotations

from functools import partial
from typing import Any

import boxops
from boxops import reference

from .boxes import label
from .case import Case, whole
from .machine import rival
from .nms import scored

torch = rival("torch")
LEAST = 5000.0


def eager(boxes: Any, scores: Any) -> Any:
    values = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) * scores
    kept = torch.nonzero(values > LEAST)[:, 0]
    return kept, values[kept]


CASES = [
    Case(
        "top_boxes",
        label(n),
        n,
        make=partial(scored, n, 1000.0),
        ours=lambda boxes, scores: boxops.top_boxes(boxes, scores, LEAST, method="area"),
        reference=lambda boxes, scores: reference.top_boxes(boxes, scores, LEAST, method="area"),
        rivals={"torch": eager},
        check=whole,
        goal=("torch", 1.0),
    )
    for n in (1, 1_000, 100_000)
]
