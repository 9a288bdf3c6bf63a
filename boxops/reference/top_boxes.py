"""The boxes that count for more than a threshold."""

import numpy as np

from boxops.reference.common import area_of, compute, compute_type, quiet, to_columns


@quiet
def top_boxes(boxes, scores, min_score, *, method="score"):
    values = compute(scores, boxes)
    if method == "area":
        values = values * area_of(to_columns(boxes, "xyxy", scores))
    kept = np.flatnonzero(values > compute_type(boxes, scores).type(min_score))
    return kept, values[kept]
