"""The torch binding: operators from the stable-ABI library, the rest of their registration in Python."""

from pathlib import Path

import torch

torch.ops.load_library(Path(__file__).parent.parent / "lib" / "libboxops_torch.so")

from boxops.torch_ops.boxes import box_area, box_convert, clip_boxes, remove_small_boxes  # noqa: E402
from boxops.torch_ops.iou import iou, iou_backward  # noqa: E402
from boxops.torch_ops.nms import batched_nms, nms, nms_padded  # noqa: E402
from boxops.torch_ops.rotated import batched_rotated_nms, rotated_box_iou, rotated_nms  # noqa: E402

__all__ = [
    "batched_nms",
    "batched_rotated_nms",
    "box_area",
    "box_convert",
    "clip_boxes",
    "iou",
    "iou_backward",
    "nms",
    "nms_padded",
    "remove_small_boxes",
    "rotated_box_iou",
    "rotated_nms",
]
