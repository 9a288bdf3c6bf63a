"""Object detection's box operations as fast kernels, for torch tensors, NumPy arrays and DLPack.

Importing boxops imports no torch; the torch binding is loaded when the first tensor arrives.
"""

from boxops.ops.boxes import box_area, box_convert, clip_boxes_to_image, remove_small_boxes
from boxops.ops.iou import (
    box_ioa,
    box_iou,
    complete_box_iou,
    complete_box_iou_loss,
    distance_box_iou,
    distance_box_iou_loss,
    generalized_box_iou,
    generalized_box_iou_loss,
)
from boxops.ops.nms import batched_nms, nms, nms_padded
from boxops.ops.pipelines import detect, generate_proposals

__version__ = "0.1.0"

__all__ = [
    "batched_nms",
    "box_area",
    "box_convert",
    "box_ioa",
    "box_iou",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "detect",
    "distance_box_iou",
    "distance_box_iou_loss",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "generate_proposals",
    "nms",
    "nms_padded",
    "remove_small_boxes",
]
