"""Masks: pasting small masks into the image, and boxes around masks."""

from __future__ import annotations

from typing import TypeVar

from boxops.ops.backend import backend, check_pair

Array = TypeVar("Array")


def paste_masks(
    masks: Array, boxes: Array, image_size: tuple[int, int], *, padding: int = 1, threshold: float | None = None
) -> Array:
    """Pastes the masks of a mask head into the image, each resized to its box.

    This is torchvision's ``paste_masks_in_image`` in one pass: the mask is padded with zeros, the box grows by the same
    factor about its centre and is truncated to integers, its last pixel included, and the mask is resized to it
    bilinearly. Outside of the box everything is 0.

    Args:
        masks: ``[N, M, M]`` or ``[N, 1, M, M]``, any floating dtype and strides.
        boxes: ``[N, 4]`` corners in pixels, any real dtype. Coordinates beyond 2^30 count as 2^30; a box with a NaN
            pastes nothing.
        image_size: ``(height, width)`` of the image, integers.
        padding: zeros around each mask before resizing, 0 to 1024.
        threshold: with it, the result is bool: where the mask, in float32 or float64, is > threshold.

    Returns:
        ``[N, height, width]``, or ``[N, 1, height, width]`` as the masks came, of the masks' dtype, or bool.
        Not differentiable.

    Raises:
        ValueError: shapes do not fit, masks are not floating, devices differ, a size or the padding is out of range,
            or the threshold is NaN.
        TypeError: the arrays are not of one kind, or an argument is not a number.

    Source: He et al. 2017, Mask R-CNN, section 3.1; torchvision, models/detection/roi_heads.py.
    """
    op = "paste_masks"
    height, width = check_pair(op, "image_size", image_size, integers=True)
    return backend(op, masks, boxes).paste_masks(masks, boxes, height, width, padding, threshold)


def masks_to_boxes(masks: Array) -> Array:
    """The smallest box around each mask.

    Args:
        masks: ``[N, H, W]``, bool or any real dtype and strides; a pixel belongs to the mask if it is not 0.

    Returns:
        float32 ``[N, 4]``: the least x and y and the greatest x and y of the mask's pixels; 0, 0, 0, 0 for an empty
        mask, as torchvision gives.

    Raises:
        ValueError: masks are not ``[N, H, W]``, or neither bool nor of a real dtype.
    """
    return backend("masks_to_boxes", masks).masks_to_boxes(masks)
