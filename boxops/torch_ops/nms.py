"""Fake kernels and autocast for the NMS operators; nothing to differentiate."""

from __future__ import annotations

import torch
from torch import Tensor

from boxops.torch_ops.common import check_dims, loop_over_batch


def _indices(boxes: Tensor) -> Tensor:
    size = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(size, dtype=torch.int64)


@torch.library.register_fake("boxops::nms")
def _(boxes, scores, iou_threshold):
    return _indices(boxes)


@torch.library.register_fake("boxops::batched_nms")
def _(boxes, scores, idxs, iou_threshold):
    return _indices(boxes)


@torch.library.register_fake("boxops::nms_padded")
def _(boxes, scores, iou_threshold, max_output, idxs, score_threshold):
    check_dims("nms_padded", "boxes of shape [B, N, 4]", boxes, 3)
    batch = boxes.shape[0]
    return boxes.new_empty(batch, max_output, dtype=torch.int64), boxes.new_empty(batch, dtype=torch.int64)


loop_over_batch("nms", "batched_nms", "nms_padded")
