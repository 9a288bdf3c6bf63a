"""The contract in code: every op of boxops in plain NumPy, slow and obvious.

Each function bears the name and the arguments of the public one and defines its result; the kernels
must give the same indices, and the same measures to the bit (CIoU within the error of atan2).
Every step is rounded to the compute type: float64 for float64 boxes, float32 for all others.
"""

from boxops.reference.boxes import box_area, box_convert, clip_boxes_to_image, remove_small_boxes
from boxops.reference.iou import (
    box_ioa,
    box_iou,
    complete_box_iou,
    complete_box_iou_loss,
    distance_box_iou,
    distance_box_iou_loss,
    generalized_box_iou,
    generalized_box_iou_loss,
)
from boxops.reference.nms import batched_nms, nms, nms_padded
from boxops.reference.pipelines import detect, generate_proposals
