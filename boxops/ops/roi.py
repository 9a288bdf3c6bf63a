"""Pooling of regions of interest to a fixed number of bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from boxops.ops.backend import backend, check_one_or_pair

Array = TypeVar("Array")


def roi_align(
    input: Array,
    boxes: Array | Sequence[Array],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Array:
    """RoIAlign: each bin is the mean of bilinear samples. He et al. 2017 (Mask R-CNN), section 3.

    Args:
        input: ``[N, C, H, W]`` features, any floating dtype and strides; NCHW and channels_last are both fast.
        boxes: ``[K, 5]`` rows (image index, x1, y1, x2, y2), or for each image ``[L, 4]`` corners; any floating dtype.
        output_size: bins as (height, width), or one number for both.
        spatial_scale: feature pixels per unit of the boxes.
        sampling_ratio: samples of a bin along each axis, at most 4096; <= 0 takes ceil(RoI size / bins) for each
            RoI and axis, so that samples are a pixel apart or less, and at most 4096.
        aligned: take half a pixel off the scaled coordinates, so that pixel centres lie at whole numbers, and leave
            RoIs smaller than a pixel as they are; otherwise they grow to one pixel.

    Returns:
        ``[K, C, height, width]``, contiguous, of the input's dtype; computed in float32, or float64 for float64.
        Samples more than a pixel outside of the features count as 0, and so do those at NaN; a bin without samples
        is 0. An infinite or NaN feature spoils the samples that it has a weight in, and no others. The features have a
        derivative, in reverse and forward mode, the same to the bit for any number of threads. The boxes have none:
        they are constants to reverse mode, and a tangent of theirs raises.

    Raises:
        ValueError: shapes do not fit, dtypes are not floating, devices differ, an image index is not a whole number in
            ``[0, N)`` (on CUDA such RoIs give zeros), or a number is out of range.
        TypeError: arrays of different kinds, or other arguments that are not numbers.
    """
    op = "roi_align"
    boxes, ops = _prepared(op, input, boxes)
    height, width = _size(op, output_size)
    return ops.roi_align(input, boxes, height, width, spatial_scale, sampling_ratio, aligned)


def roi_pool(
    input: Array, boxes: Array | Sequence[Array], output_size: int | tuple[int, int], spatial_scale: float = 1.0
) -> Array:
    """RoI pooling: each bin is the largest value of its pixels. Girshick 2015 (Fast R-CNN), section 2.1.

    Scaled coordinates are rounded to whole pixels, halves away from 0, and the last pixel belongs to the RoI. Bins that
    are no whole number of pixels overlap.

    Args:
        input, boxes, output_size, spatial_scale: as for :func:`roi_align`.

    Returns:
        ``[K, C, height, width]``, contiguous, of the input's dtype; 0 where a bin has no pixel on the features or the
        box is NaN. NaN features count as larger than any number. The gradient goes to the first of equal maxima.

    Raises:
        ValueError, TypeError: as :func:`roi_align`.
    """
    op = "roi_pool"
    boxes, ops = _prepared(op, input, boxes)
    height, width = _size(op, output_size)
    return ops.roi_pool(input, boxes, height, width, spatial_scale)


def ps_roi_align(
    input: Array,
    boxes: Array | Sequence[Array],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Array:
    """Position-sensitive RoIAlign: every bin has channels of its own. Li et al. 2017 (Light-Head R-CNN), section 3.

    Args:
        input: ``[N, C, H, W]``, C divisible by the number of bins: output channel c of bin (y, x) is pooled from
            input channel (c height + y) width + x.
        boxes, output_size, spatial_scale, sampling_ratio: as for :func:`roi_align`, with ``aligned=True``.

    Returns:
        ``[K, C / (height width), height, width]``, otherwise as :func:`roi_align`. A bin without samples is 0
        (torchvision: NaN).

    Raises:
        ValueError, TypeError: as :func:`roi_align`; also where the channels cannot be divided so.
    """
    op = "ps_roi_align"
    boxes, ops = _prepared(op, input, boxes)
    height, width = _size(op, output_size)
    return ops.ps_roi_align(input, boxes, height, width, spatial_scale, sampling_ratio)


def ps_roi_pool(
    input: Array, boxes: Array | Sequence[Array], output_size: int | tuple[int, int], spatial_scale: float = 1.0
) -> Array:
    """Position-sensitive RoI pooling: each bin is the mean of its pixels. Dai et al. 2016 (R-FCN), section 3.

    Scaled coordinates are rounded to whole pixels, halves away from 0. As in the paper's code and torchvision, neither
    the last pixel of the RoI nor the last row and column of the features are read.

    Args:
        input: as for :func:`ps_roi_align`.
        boxes, output_size, spatial_scale: as for :func:`roi_align`.

    Returns:
        ``[K, C / (height width), height, width]``, contiguous, of the input's dtype; 0 where a bin has no pixel.

    Raises:
        ValueError, TypeError: as :func:`ps_roi_align`.
    """
    op = "ps_roi_pool"
    boxes, ops = _prepared(op, input, boxes)
    height, width = _size(op, output_size)
    return ops.ps_roi_pool(input, boxes, height, width, spatial_scale)


def multiscale_roi_align(
    features: Sequence[Array],
    boxes: Array | Sequence[Array],
    output_size: int | tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
    *,
    canonical_scale: float = 224,
    canonical_level: int = 4,
) -> Array:
    """RoIAlign from a feature pyramid, all levels in one launch. Lin et al. 2017 (FPN), section 4.2 and eq. 1.

    A RoI is pooled from the level k = floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6), or from the
    nearest there is. The level of features with scale s is -log2(s), without its fraction; where levels are missing
    between two, the finer one serves. Empty and NaN boxes go to the finest.

    Args:
        features: up to 8 arrays ``[N, C, H, W]`` of one dtype, of descending scale; otherwise as for :func:`roi_align`.
        boxes: as for :func:`roi_align`, in one unit for all levels.
        output_size, sampling_ratio, aligned: as for :func:`roi_align`.
        scales: the spatial scale of each level.
        canonical_scale, canonical_level: a box of that side, > 0 and finite, belongs to that level.

    Returns:
        ``[K, C, height, width]``, for each RoI what :func:`roi_align` gives on its level.

    Raises:
        ValueError, TypeError: as :func:`roi_align`; also for features that do not fit each other or their scales.
    """
    op = "multiscale_roi_align"
    if not isinstance(features, list | tuple) or not features:
        raise TypeError(f"{op}: expected features as a list of arrays, got {_kind(features)}")
    boxes, ops = _prepared(op, features[0], boxes, *features[1:])
    height, width = _size(op, output_size)
    return ops.multiscale_roi_align(
        list(features),
        boxes,
        height,
        width,
        scales,
        sampling_ratio,
        aligned,
        canonical_scale,
        canonical_level,
    )


def _kind(value: Any) -> str:
    return "an empty list" if isinstance(value, list | tuple) and not value else type(value).__name__


def _size(op: str, output_size: Any) -> list[Any]:
    return check_one_or_pair(op, "output_size", output_size, "(height, width)", integers=True)


def _prepared(op: str, input: Any, boxes: Any, *more: Any) -> tuple[Any, Any]:
    """RoIs [K, 5], and the ops that serve."""
    if not isinstance(boxes, list | tuple):
        return boxes, backend(op, input, boxes, *more)
    ops = backend(op, input, *boxes, *more)
    for some in boxes:
        if not hasattr(some, "shape"):
            raise TypeError(f"{op}: expected boxes of each image as an array, got {type(some).__name__}")
    return ops.boxes_to_rois(input, list(boxes), op), ops
