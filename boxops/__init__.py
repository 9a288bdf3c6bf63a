"""Object detection's box operations as fast kernels, for torch tensors, NumPy arrays and DLPack.

Importing boxops imports no torch; the torch binding is loaded when the first tensor arrives, and what stands on torch
(models, data, training, evaluation, draw, patch_torchvision) when it is first asked for.
"""

import os.path
from importlib import import_module
from typing import Any

from boxops.ops.anchors import cell_anchors, grid_anchors, multibox_anchors
from boxops.ops.assignment import detr_cost, linear_sum_assignment
from boxops.ops.boxes import box_area, box_convert, clip_boxes_to_image, remove_small_boxes
from boxops.ops.codecs import decode_boxes, encode_boxes
from boxops.ops.fusion import weighted_boxes_fusion
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
from boxops.ops.masks import masks_to_boxes, paste_masks
from boxops.ops.matching import match_greedy, match_greedy_matrix, match_max_iou
from boxops.ops.nms import batched_nms, nms, nms_padded
from boxops.ops.pipelines import detect, generate_proposals
from boxops.ops.roi import multiscale_roi_align, ps_roi_align, ps_roi_pool, roi_align, roi_pool
from boxops.ops.rotated import batched_rotated_nms, rotated_box_iou, rotated_nms
from boxops.ops.sampling import mine_hard_negatives, sample_matches
from boxops.ops.soft_nms import soft_nms

__version__ = "0.1.0"

#: For CMake's ``find_package(boxops)``: the folder with ``include`` and ``lib``, as ``torch.utils.cmake_prefix_path``.
cmake_prefix_path = os.path.dirname(os.path.abspath(__file__))

# Loaded when they are first asked for, and most of them stand on torch.
_MODULES = ("reference", "models", "data", "training", "evaluation", "draw", "swap")
_FUNCTIONS = {"patch_torchvision": "boxops.swap", "provide_torchvision_ops": "boxops.torch_ops.torchvision"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"boxops.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'boxops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_FUNCTIONS})


__all__ = [
    "batched_nms",
    "batched_rotated_nms",
    "box_area",
    "box_convert",
    "box_ioa",
    "box_iou",
    "cell_anchors",
    "clip_boxes_to_image",
    "complete_box_iou",
    "complete_box_iou_loss",
    "decode_boxes",
    "detect",
    "detr_cost",
    "distance_box_iou",
    "distance_box_iou_loss",
    "encode_boxes",
    "generalized_box_iou",
    "generalized_box_iou_loss",
    "generate_proposals",
    "grid_anchors",
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
    "soft_nms",
    "weighted_boxes_fusion",
]
