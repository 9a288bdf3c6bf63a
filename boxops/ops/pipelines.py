"""Post-processing in one call: proposals of an RPN, detections of any detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, TypeVar

from boxops.ops.backend import (
    backend,
    check_pairs,
)
from boxops.ops.codecs import LARGEST_LOG
from boxops.ops.deprecated import by_new_names, renamed

Array = TypeVar("Array")


@renamed(nms_threshold="iou_threshold")
def generate_proposals(
    objectness: Array,
    deltas: Array,
    anchors: Array,
    num_anchors_per_level: Sequence[int],
    image_sizes: Sequence[tuple[float, float]],
    pre_nms_top_n: int = 1000,
    post_nms_top_n: int = 1000,
    iou_threshold: float = 0.7,
    *,
    score_threshold: float = 0.0,
    min_size: float = 1e-3,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    clip: float = LARGEST_LOG,
    **former: NoReturn,
) -> tuple[Array, Array, Array]:
    """The proposals of a region proposal network, from its raw output.

    For each image and level, the anchors of the largest logits are decoded, clipped to the image, filtered by size and
    score, and suppressed within the level; the best of all levels are returned. No other anchor is decoded. Shapes
    depend on the arguments alone: no host synchronisation, and CUDA graphs and ``torch.compile(fullgraph=True)`` work.
    Not differentiable.

    Args:
        objectness: ``[B, A]`` floating logits, the levels of an image one after another. Equal logits go by ascending
            index, NaN come last.
        deltas: ``[B, A, 4]`` floating, relative to the anchors, as R-CNN's; see :func:`decode_boxes`.
        anchors: ``[A, 4]``, or ``[B, A, 4]``, corners in pixels, of any real dtype.
        num_anchors_per_level: how many of the A anchors each level has.
        image_sizes: (height, width) of each image, in pixels.
        pre_nms_top_n: number of anchors of each level to decode, at most.
        post_nms_top_n: P, number of proposals of an image to return, at most.
        iou_threshold: >= 0; within a level, a box is suppressed when its IoU with a better one exceeds it.
        score_threshold: boxes with the sigmoid of the logit >= score_threshold stay.
        min_size: boxes with width and height >= min_size stay, in pixels and after clipping.
        weights: 4 finite factors > 0 of the deltas x, y, w, h, as for :func:`decode_boxes`.
        clip: upper bound of the deltas w and h, as for :func:`decode_boxes`.

    Returns:
        boxes: ``[B, P, 4]`` corners by descending score, then zeros; float64 if any input is float64 or the anchors are
            integers of 32 bits or more, else float32.
        scores: ``[B, P]`` sigmoids of the logits, then zeros. Equal scores go by level, then by logit and index.
        counts: int64 ``[B]``, how many of the P are not padding.

    Raises:
        ValueError: shapes do not fit, logits or deltas are not floating, devices differ, the levels do not sum to A, or
            a number is out of its range.
        TypeError: the arrays are not of one kind, or an argument is not a number.

    Source: Ren et al. 2015, "Faster R-CNN", section 3; torchvision's ``RegionProposalNetwork.filter_proposals``, of
    which this is the fused form.
    """
    if former:
        return by_new_names(generate_proposals, locals())
    op = "generate_proposals"
    sizes = check_pairs(op, "image_sizes", image_sizes)
    return backend(op, objectness, deltas, anchors).generate_proposals(
        objectness,
        deltas,
        anchors,
        num_anchors_per_level,
        sizes,
        pre_nms_top_n,
        post_nms_top_n,
        iou_threshold,
        score_threshold,
        min_size,
        weights,
        clip,
    )


@renamed(max_detections="max_output")
def detect(
    boxes: Array,
    scores: Array,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    max_output: int = 100,
    *,
    topk_per_class: int | None = None,
    min_size: float | None = None,
    class_agnostic: bool = False,
    **former: NoReturn,
) -> tuple[Array, Array, Array, Array]:
    """The last step of a detector: from a score per box and class to the detections of each image.

    Pairs of a box and a class whose score exceeds the threshold are suppressed within their class, and the best of each
    image are returned. Where the first column of the scores is the background, cut it off and shift the labels:
    ``boxes, scores, labels, counts = detect(boxes, scores[..., 1:])``, then ``labels + 1``. Shapes depend on the
    arguments alone: no host synchronisation, and CUDA graphs, ``torch.compile(fullgraph=True)`` and ``torch.export``
    work. Not differentiable.

    Args:
        boxes: ``[B, N, 4]`` corners of any real dtype, or ``[B, N, C, 4]``, a box per class.
        scores: ``[B, N, C]``, any real dtype, ranked exactly; fewer than 2^31 per image.
        score_threshold: pairs with score > score_threshold take part, compared in the score's compute type. NaN scores
            never do.
        iou_threshold: >= 0, as for :func:`nms`.
        max_output: D, number of detections of an image to return, at most.
        topk_per_class: number of pairs of each class that take part, at most: those of the highest scores.
        min_size: only boxes with width and height >= min_size take part, in the boxes' unit.
        class_agnostic: let boxes suppress boxes of other classes too.

    Returns:
        boxes: ``[B, D, 4]`` by descending score, then zeros; in the dtype of ``boxes``.
        scores: ``[B, D]``, then zeros; in the dtype of ``scores``.
        labels: int64 ``[B, D]``, the column of each score, then -1.
        counts: int64 ``[B]``, how many of the D are not padding.
        All ties go to the lower box, then the lower class. Degenerate and NaN boxes overlap nothing.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, devices differ, or a number is out of its range.
        TypeError: boxes and scores are not arrays of one kind, or an argument is not a number.

    Source: Girshick et al. 2014, section 2.2; Liu et al. 2016, "SSD", section 3; torchvision's
    ``postprocess_detections`` of ``RoIHeads`` and ``SSD``.
    """
    if former:
        return by_new_names(detect, locals())
    return backend("detect", boxes, scores).detect(
        boxes, scores, score_threshold, iou_threshold, max_output, topk_per_class, min_size, class_agnostic
    )
