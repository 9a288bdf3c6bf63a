"""The torch binding: operators from the stable-ABI library, the rest of their registration in Python."""

from pathlib import Path

import torch

torch.ops.load_library(Path(__file__).parent.parent / "lib" / "libboxops_torch.so")

from boxops.torch_ops.boxes import box_area, box_convert, clip_boxes, remove_small_boxes  # noqa: E402
from boxops.torch_ops.fusion import weighted_boxes_fusion  # noqa: E402
from boxops.torch_ops.iou import iou, iou_backward  # noqa: E402
from boxops.torch_ops.masks import masks_to_boxes, paste_masks  # noqa: E402
from boxops.torch_ops.nms import batched_nms, nms, nms_padded  # noqa: E402
from boxops.torch_ops.soft_nms import soft_nms  # noqa: E402

__all__ = [
    "batched_nms",
    "box_area",
    "box_convert",
    "clip_boxes",
    "iou",
    "iou_backward",
    "masks_to_boxes",
    "nms",
    "nms_padded",
    "paste_masks",
    "remove_small_boxes",
    "soft_nms",
    "weighted_boxes_fusion",
]
