"""Fake kernels of the pipelines; nothing to differentiate."""

from __future__ import annotations

import torch

from boxops.torch_ops.common import check_dims, compute_type, loop_over_batch, not_differentiable


@torch.library.register_fake("boxops::generate_proposals")
def _(objectness, deltas, anchors, num_anchors_per_level, image_sizes, pre_nms_top_n, post_nms_top_n, *rest):
    check_dims("generate_proposals", "objectness of shape [B, A]", objectness, 2)
    batch = objectness.shape[0]
    dtype = compute_type(objectness.dtype, deltas.dtype, anchors.dtype)
    return (
        objectness.new_empty(batch, post_nms_top_n, 4, dtype=dtype),
        objectness.new_empty(batch, post_nms_top_n, dtype=dtype),
        objectness.new_empty(batch, dtype=torch.int64),
    )


@torch.library.register_fake("boxops::detect")
def _(boxes, scores, score_threshold, iou_threshold, max_detections, *rest):
    check_dims("detect", "scores of shape [B, N, C]", scores, 3)
    batch = scores.shape[0]
    return (
        boxes.new_empty(batch, max_detections, 4),
        scores.new_empty(batch, max_detections),
        boxes.new_empty(batch, max_detections, dtype=torch.int64),
        boxes.new_empty(batch, dtype=torch.int64),
    )


not_differentiable("generate_proposals", "detect")
loop_over_batch("generate_proposals", "detect")
