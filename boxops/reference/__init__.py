"""The contract in code: every op of boxops in plain NumPy, slow and obvious.

Each function bears the name and the arguments of the public one and defines its result; the kernels
must give the same indices, and the same measures to the bit.
Every step is rounded to the compute type: float64 for float64 and integers of 32 bits or more, else float32.
"""

from boxops.reference.anchors import cell_anchors, grid_anchors, multibox_anchors
from boxops.reference.assignment import detr_cost, linear_sum_assignment
from boxops.reference.boxes import box_area, box_convert, clip_boxes_to_image, remove_small_boxes
from boxops.reference.codecs import decode_boxes, encode_boxes
from boxops.reference.fusion import weighted_boxes_fusion
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
from boxops.reference.masks import masks_to_boxes, paste_masks
from boxops.reference.matching import match_greedy, match_greedy_matrix, match_max_iou
from boxops.reference.nms import batched_nms, nms, nms_padded
from boxops.reference.pipelines import detect, generate_proposals
from boxops.reference.roi import multiscale_roi_align, ps_roi_align, ps_roi_pool, roi_align, roi_pool
from boxops.reference.rotated import batched_rotated_nms, rotated_box_iou, rotated_nms
from boxops.reference.sampling import mine_hard_negatives, sample_matches
from boxops.reference.soft_nms import soft_nms
