"""torchvision's own detectors on boxops' kernels: ``boxops.patch_torchvision()``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import boxops
from boxops.swap import steps

__all__ = ["TABLE", "Patch", "patch_torchvision"]


class Patch:
    """What :func:`patch_torchvision` gives: call it, or leave it as a context, to undo."""

    _depth = 0
    _saved: list[tuple[Any, str, Any]] = []  # noqa: RUF012  # owner, attribute, torchvision's own

    def __init__(self) -> None:
        if Patch._depth == 0:
            places = [place for row in TABLE for place in _places(*row)]  # all are found before one is changed
            Patch._saved = [(owner, name, original) for owner, name, original, _ in places]
            for owner, name, _, replacement in places:
                setattr(owner, name, replacement)
        Patch._depth += 1
        self.active = True

    def __call__(self) -> None:
        """Undoes this patch; torchvision is itself again when all are undone. A second call does nothing."""
        if not self.active:
            return
        self.active = False
        Patch._depth -= 1
        if Patch._depth == 0:
            for owner, name, original in Patch._saved:
                setattr(owner, name, original)

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self()


def patch_torchvision() -> Patch:
    """Puts boxops' kernels under ``torchvision.ops`` and ``torchvision.models.detection``, models made before too.

    ``undo = patch_torchvision()`` holds until ``undo()``; ``with patch_torchvision():`` holds inside. Both nest. The
    functions keep torchvision's signatures and results: see ``TABLE`` in boxops/swap. Where a subclass has its own
    version of a step, and for rotated formats, torchvision's code runs. Names that a program imported before
    (``from torchvision.ops import nms``) stay torchvision's. An AnchorGenerator is read by its sizes and ratios, not by
    ``cell_anchors`` that were set by hand. For the whole process; not for torch.jit.

    Raises:
        RuntimeError: this torchvision lacks something that the patch replaces; nothing is changed then.
    """
    return Patch()


def _places(path: str, name: str, replacement: Callable[..., Any]) -> list[tuple[Any, str, Any, Any]]:
    """Where torchvision holds what path.name is: there, and under that name in the modules that imported it."""
    try:
        owner = pkgutil.resolve_name(path)
        original = vars(owner)[name]
    except (ImportError, AttributeError, KeyError):
        version = importlib.import_module("torchvision").__version__
        raise RuntimeError(f"patch_torchvision: expected {path}.{name} in torchvision, got {version} without") from None
    owners = [owner] + [
        module
        for path, module in list(sys.modules.items())
        if path.startswith(("torchvision.ops", "torchvision.models.detection"))
        and module is not owner
        and vars(module).get(name) is original
    ]
    return [(owner, name, original, replacement) for owner in owners]


_DETECTION = "torchvision.models.detection"
TABLE: list[tuple[str, str, Callable[..., Any]]] = [  # owner, attribute, replacement
    ("torchvision.ops.boxes", "nms", boxops.nms),
    ("torchvision.ops.boxes", "batched_nms", boxops.batched_nms),
    ("torchvision.ops.boxes", "box_area", boxops.box_area),
    ("torchvision.ops.boxes", "box_convert", steps.box_convert),
    ("torchvision.ops.boxes", "clip_boxes_to_image", boxops.clip_boxes_to_image),
    ("torchvision.ops.boxes", "remove_small_boxes", boxops.remove_small_boxes),
    ("torchvision.ops.boxes", "masks_to_boxes", boxops.masks_to_boxes),
    ("torchvision.ops.boxes", "box_iou", steps.box_iou),
    ("torchvision.ops.boxes", "generalized_box_iou", boxops.generalized_box_iou),
    ("torchvision.ops.boxes", "distance_box_iou", boxops.distance_box_iou),
    ("torchvision.ops.boxes", "complete_box_iou", boxops.complete_box_iou),
    ("torchvision.ops", "generalized_box_iou_loss", boxops.generalized_box_iou_loss),
    ("torchvision.ops", "distance_box_iou_loss", boxops.distance_box_iou_loss),
    ("torchvision.ops", "complete_box_iou_loss", boxops.complete_box_iou_loss),
    ("torchvision.ops", "roi_align", boxops.roi_align),
    ("torchvision.ops", "roi_pool", boxops.roi_pool),
    ("torchvision.ops", "ps_roi_align", boxops.ps_roi_align),
    ("torchvision.ops", "ps_roi_pool", boxops.ps_roi_pool),
    ("torchvision.ops.poolers.MultiScaleRoIAlign", "forward", steps.pooler_forward),
    (f"{_DETECTION}.anchor_utils.AnchorGenerator", "forward", steps.anchors_forward),
    (f"{_DETECTION}._utils.BoxCoder", "encode_single", steps.encode_single),
    (f"{_DETECTION}._utils.BoxCoder", "decode_single", steps.decode_single),
    (f"{_DETECTION}.rpn.RegionProposalNetwork", "forward", steps.rpn_forward),
    (f"{_DETECTION}.rpn.RegionProposalNetwork", "assign_targets_to_anchors", steps.assign_targets_to_anchors),
    (f"{_DETECTION}.roi_heads.RoIHeads", "assign_targets_to_proposals", steps.assign_targets_to_proposals),
    (f"{_DETECTION}.roi_heads.RoIHeads", "postprocess_detections", steps.roi_postprocess),
    (f"{_DETECTION}.roi_heads", "paste_masks_in_image", steps.paste_masks_in_image),
    (f"{_DETECTION}.ssd.SSD", "postprocess_detections", steps.ssd_postprocess),
]
