"""Encoding boxes as deltas relative to anchors, and decoding them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from boxops.ops.backend import backend, check_choice, check_numbers, check_one_or_pair, check_pair_or_pairs, choices
from boxops.ops.deprecated import by_new_names, renamed

Array = TypeVar("Array")

_CODINGS = choices("encode_boxes", "coding")
_ONES = [1, 1, 1, 1]
LARGEST_LOG = math.log(1000 / 16)  # of a ratio, before exp; torchvision's


def _check(op: str, weights: Any, variances: Any, coding: Any, stride: Any) -> tuple[list[Any], list[Any]]:
    """The weights, and the stride as (y, x), empty for R-CNN."""
    is_yolo = check_choice(op, "coding", coding, _CODINGS) != "rcnn"
    weights = check_numbers(op, "weights", weights)
    if variances is not None:
        if weights != _ONES:
            raise ValueError(f"{op}: expected weights or variances, got both")
        variances = check_numbers(op, "variances", variances)
        for variance in variances:
            if not 0 < variance < math.inf:
                raise ValueError(f"{op}: expected variances > 0 and finite, got {variance:g}")
        weights = [1 / variance for variance in variances]
    if is_yolo and (variances is not None or weights != _ONES):
        raise ValueError(f"{op}: expected no weights or variances for coding {coding!r}, got {weights}")
    if (stride is None) == is_yolo:
        raise ValueError(f"{op}: expected {'a' if is_yolo else 'no'} stride for coding {coding!r}, got {stride!r}")
    return weights, [] if stride is None else check_one_or_pair(op, "stride", stride, "(y, x)")


def encode_boxes(
    boxes: Array,
    anchors: Array,
    weights: Sequence[float] = (1, 1, 1, 1),
    *,
    variances: Sequence[float] | None = None,
    coding: str = "rcnn",
    stride: float | tuple[float, float] | None = None,
) -> Array:
    """Deltas of boxes relative to anchors: the regression targets of a detector.

    There are three parameterizations:

    - ``"rcnn"`` (R-CNN, SSD): the centre's offset in units of the anchor's sides, and logs of the sides' ratios, times
      the weights.
    - ``"yolo_v1"``: the centre in cells from its cell's corner, and square roots of the sides' ratios.
    - ``"yolo_v2"``, ``"yolo_v3"``: logits of the centre in its cell, and logs of the sides' ratios.

    Args:
        boxes, anchors: ``[..., 4]`` corners in one unit, each of any floating dtype and strides. Leading dims
            broadcast. For YOLO, anchors are those of :func:`cell_anchors`; v1's is the whole image, around each cell.
        weights: 4 factors > 0 of the deltas x, y, w, h, as in torchvision's ``BoxCoder``; for ``"rcnn"`` only.
        variances: the inverses of the weights instead, as in SSD: ``(0.1, 0.1, 0.2, 0.2)``.
        coding: the parameterization, see above.
        stride: for YOLO a cell's side in the boxes' unit, > 0; a number or ``(y, x)``.

    Returns:
        ``[..., 4]`` of the broadcast shape in float32, or float64 if either is: torchvision's ``BoxCoder``, but
        for the last bit of log. The logit of 0 or 1 is infinite: a centre on its cell's border or beyond is held 1e-6
        cells inside, with gradient 0. Boxes and anchors without width or height give what the formulas give, infinity
        or NaN. Differentiable once for tensors, in reverse and forward mode.

    Raises:
        ValueError: shapes do not fit, a dtype is not floating, devices differ, weights, variances or stride
            are not positive and finite, or do not go with the coding.
        TypeError: the two are not arrays of one kind, or other arguments are not numbers.

    Source: Girshick et al., CVPR 2014, appendix C; Redmon et al., CVPR 2016, section 2; Redmon, Farhadi, CVPR 2017,
    section 2.
    """
    op = "encode_boxes"
    weights, side = _check(op, weights, variances, coding, stride)
    return backend(op, boxes, anchors).encode_boxes(boxes, anchors, coding, weights, side)


@renamed(codes="deltas", size="image_size")
def decode_boxes(
    deltas: Array,
    anchors: Array,
    weights: Sequence[float] = (1, 1, 1, 1),
    *,
    variances: Sequence[float] | None = None,
    coding: str = "rcnn",
    stride: float | tuple[float, float] | None = None,
    clip: float | None = LARGEST_LOG,
    image_size: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    **former: NoReturn,
) -> Array:
    """Boxes from the deltas that a detector predicts: the inverse of :func:`encode_boxes`.

    Args:
        deltas: ``[..., 4]`` of any floating dtype.
        anchors: ``[..., 4]`` corners of any floating dtype; leading dims broadcast, so deltas ``[N, C, 4]`` of C
            classes take anchors ``[N, 1, 4]``.
        weights, variances, coding, stride: as for :func:`encode_boxes`.
        clip: upper bound of the deltas w and h (logs of the sides' ratios, after the weights are taken off), which
            keeps exp from overflowing; log(1000 / 16), as torchvision's ``bbox_xform_clip``. Not for ``"yolo_v1"``.
            None: no bound.
        image_size: ``(height, width)`` of the image, both >= 0: the boxes are clipped to it, as by
            :func:`clip_boxes_to_image`, in the same pass. A list ``[B, 2]`` has the size of each image along the first
            dim of the result, ``[B, ..., 4]``; with one size it serves all.

    Returns:
        ``[..., 4]`` corners of the broadcast shape in float32, or float64 if either is: torchvision's
        ``BoxCoder``, but for the last bit of exp. NaN stays NaN. Differentiable once for tensors, in reverse and
        forward mode; what is clipped, or lies at the bound, passes no gradient, as torch's clamp since 2.14.

    Raises:
        ValueError, TypeError: as :func:`encode_boxes`; also for a NaN ``clip``, or an ``image_size`` that is negative
            or NaN, or sizes of another number of images.

    Source: as :func:`encode_boxes`.
    """
    if former:
        return by_new_names(decode_boxes, locals())
    op = "decode_boxes"
    weights, side = _check(op, weights, variances, coding, stride)
    limit = math.inf if clip is None else clip
    limits = [] if image_size is None else check_pair_or_pairs(op, "image_size", image_size)
    return backend(op, deltas, anchors).decode_boxes(deltas, anchors, coding, weights, side, limit, limits)
