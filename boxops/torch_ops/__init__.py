"""The torch binding: operators from the stable-ABI library, the rest of their registration in Python."""

import sys
from pathlib import Path

import torch

# Where CMakeLists.txt installs it.
_NAMES = {"win32": "boxops_torch.dll", "darwin": "lib/libboxops_torch.dylib"}
LIBRARY = Path(__file__).parent.parent / _NAMES.get(sys.platform, "lib/libboxops_torch.so")
torch.ops.load_library(LIBRARY)

from boxops.torch_ops.anchors import cell_anchors, grid_anchors, multibox_anchors  # noqa: E402
from boxops.torch_ops.assignment import detr_cost, linear_sum_assignment  # noqa: E402
from boxops.torch_ops.boxes import box_area, box_convert, clip_boxes, remove_small_boxes  # noqa: E402
from boxops.torch_ops.codecs import (  # noqa: E402
    decode_boxes,
    decode_boxes_backward,
    encode_boxes,
    encode_boxes_backward,
)
from boxops.torch_ops.fusion import weighted_boxes_fusion  # noqa: E402
from boxops.torch_ops.iou import iou, iou_backward  # noqa: E402
from boxops.torch_ops.masks import masks_to_boxes, paste_masks  # noqa: E402
from boxops.torch_ops.matching import match_greedy, match_greedy_matrix, match_max_iou  # noqa: E402
from boxops.torch_ops.nms import batched_nms, nms, nms_padded  # noqa: E402
from boxops.torch_ops.pipelines import detect, generate_proposals  # noqa: E402
from boxops.torch_ops.roi import multiscale_roi_align, ps_roi_align, ps_roi_pool, roi_align, roi_pool  # noqa: E402
from boxops.torch_ops.rotated import batched_rotated_nms, rotated_box_iou, rotated_nms  # noqa: E402
from boxops.torch_ops.sampling import mine_hard_negatives, sample_matches, seed_tensor  # noqa: E402
from boxops.torch_ops.soft_nms import soft_nms  # noqa: E402

__all__ = [
    "batched_nms",
    "batched_rotated_nms",
    "box_area",
    "box_convert",
    "cell_anchors",
    "clip_boxes",
    "decode_boxes",
    "decode_boxes_backward",
    "detect",
    "detr_cost",
    "encode_boxes",
    "encode_boxes_backward",
    "generate_proposals",
    "grid_anchors",
    "iou",
    "iou_backward",
    "linear_sum_assignment",
    "masks_to_boxes",
    "match_greedy",
    "match_greedy_matrix",
    "match_max_iou",
    "mine_hard_negatives",
    "multibox_anchors",
    "multiscale_roi_align",
    "nms",
    "nms_padded",
    "paste_masks",
    "ps_roi_align",
    "ps_roi_pool",
    "remove_small_boxes",
    "roi_align",
    "roi_pool",
    "rotated_box_iou",
    "rotated_nms",
    "sample_matches",
    "seed_tensor",
    "soft_nms",
    "weighted_boxes_fusion",
]
