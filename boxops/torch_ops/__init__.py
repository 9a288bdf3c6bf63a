"""The torch binding: operators from the stable-ABI library, the rest of their registration in Python."""

from pathlib import Path

import torch

torch.ops.load_library(Path(__file__).parent.parent / "lib" / "libboxops_torch.so")

from boxops.torch_ops.boxes import box_area, box_convert, clip_boxes, remove_small_boxes  # noqa: E402
from boxops.torch_ops.iou import iou, iou_backward  # noqa: E402
from boxops.torch_ops.nms import batched_nms, nms, nms_padded  # noqa: E402
from boxops.torch_ops.pipelines import detect, generate_proposals  # noqa: E402

__all__ = [
    "batched_nms",
    "box_area",
    "box_convert",
    "clip_boxes",
    "detect",
    "generate_proposals",
    "iou",
    "iou_backward",
    "nms",
    "nms_padded",
    "remove_small_boxes",
]
