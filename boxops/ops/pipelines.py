"""From a head's numbers to boxes in one call: proposals of an RPN, detections of any detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn, TypeVar

from boxops.ops.backend import (
    backend,
    check_flag,
    check_integer,
    check_integers,
    check_number,
    check_numbers,
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

    Of each image and level the anchors of the largest logits are decoded, clipped to the image, rid of small and
    low-scoring boxes, and suppressed within the level; the best of the image come out. Only the best anchors are ever
    decoded. Shapes depend on the arguments alone: no host synchronisation, and CUDA graphs and
    ``torch.compile(fullgraph=True)`` work. Not differentiable.

    Args:
        objectness: ``[B, A]`` floating logits, the levels of an image one after another. Equal logits go by rising
            index, NaN come last.
        deltas: ``[B, A, 4]`` floating codes of the boxes relative to the anchors, as R-CNN's.
        anchors: ``[A, 4]``, or ``[B, A, 4]``, corners in pixels, of any real dtype.
        num_anchors_per_level: how many of the A anchors each level has.
        image_sizes: (height, width) of each image, in pixels.
        pre_nms_top_n: how many anchors of a level are decoded.
        post_nms_top_n: P, how many proposals of an image come out at most.
        iou_threshold: >= 0; within a level, a box goes when its IoU with a better one exceeds it.
        score_threshold: boxes with the sigmoid of the logit >= score_threshold stay.
        min_size: boxes with width and height >= min_size stay, in pixels and after clipping.
        weights: what the codes x, y, w, h were multiplied by, all > 0 and finite.
        clip: the largest code of width and height, after division by the weight.

    Returns:
        boxes: ``[B, P, 4]`` corners by falling score, then zeros; float64 if any input is float64 or the anchors are
            integers of 32 bits or more, else float32.
        scores: ``[B, P]`` sigmoids of the logits, then zeros. Equal scores go by level, then by logit and index.
        counts: int64 ``[B]``, how many of the P are real.

    Raises:
        ValueError: shapes do not fit, logits or codes are not floating, devices differ, the levels do not sum to A, or
            a number is out of its range.
        TypeError: the arrays are not of one kind, or an argument is no number.

    Source: Ren et al. 2015, "Faster R-CNN", section 3; torchvision's ``RegionProposalNetwork.filter_proposals``, of
    which this is the fused form.
    """
    if former:
        return by_new_names(generate_proposals, locals())
    op = "generate_proposals"
    counts = check_integers(op, "num_anchors_per_level", num_anchors_per_level)
    sizes = [float(side) for side in check_pairs(op, "image_sizes", image_sizes)]
    return backend(op, objectness, deltas, anchors).generate_proposals(
        objectness,
        deltas,
        anchors,
        counts,
        sizes,
        check_integer(op, "pre_nms_top_n", pre_nms_top_n),
        check_integer(op, "post_nms_top_n", post_nms_top_n),
        check_number(op, "iou_threshold", iou_threshold),
        check_number(op, "score_threshold", score_threshold),
        check_number(op, "min_size", min_size),
        check_numbers(op, "weights", weights),
        check_number(op, "clip", clip),
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

    The pairs of box and class with a score above the threshold are suppressed within their class, and the best of the
    image come out. Where the first column of the scores is the background, cut it off and shift the labels:
    ``boxes, scores, labels, counts = detect(boxes, scores[..., 1:])``, then ``labels + 1``. Shapes depend on the
    arguments alone: no host synchronisation, and CUDA graphs, ``torch.compile(fullgraph=True)`` and ``torch.export``
    work. Not differentiable.

    Args:
        boxes: ``[B, N, 4]`` corners of any real dtype, or ``[B, N, C, 4]``, a box per class.
        scores: ``[B, N, C]``, any real dtype, ranked exactly; fewer than 2^31 per image.
        score_threshold: pairs with score > score_threshold take part, compared in the score's compute type. NaN never.
        iou_threshold: >= 0, as for :func:`nms`.
        max_output: D, how many detections of an image come out at most.
        topk_per_class: how many pairs of a class take part at most, those of the highest scores.
        min_size: only boxes with width and height >= min_size take part, in the boxes' unit.
        class_agnostic: let boxes suppress boxes of other classes too.

    Returns:
        boxes: ``[B, D, 4]`` by falling score, then zeros; in the dtype of ``boxes``.
        scores: ``[B, D]``, then zeros; in the dtype of ``scores``.
        labels: int64 ``[B, D]``, the column of each score, then -1.
        counts: int64 ``[B]``, how many of the D are real.
        All ties go to the lower box, then the lower class. Degenerate and NaN boxes overlap nothing.

    Raises:
        ValueError: shapes do not fit, a dtype is not real, devices differ, or a number is out of its range.
        TypeError: boxes and scores are not arrays of one kind, or an argument is no number.

    Source: Girshick et al. 2014, section 2.2; Liu et al. 2016, "SSD", section 3; torchvision's
    ``postprocess_detections`` of ``RoIHeads`` and ``SSD``.
    """
    if former:
        return by_new_names(detect, locals())
    op = "detect"
    if topk_per_class is not None:
        topk_per_class = check_integer(op, "topk_per_class", topk_per_class)
    if min_size is not None:
        min_size = check_number(op, "min_size", min_size)
    return backend(op, boxes, scores).detect(
        boxes,
        scores,
        check_number(op, "score_threshold", score_threshold),
        check_number(op, "iou_threshold", iou_threshold),
        check_integer(op, "max_output", max_output),
        topk_per_class,
        min_size,
        check_flag(op, "class_agnostic", class_agnostic),
    )
