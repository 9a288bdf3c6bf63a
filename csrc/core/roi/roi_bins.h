// Where the bins of a region of interest lie and which pixels they read: the one copy, for every backend.
//
// Sources: RoIAlign, He et al. 2017 (Mask R-CNN), section 3; RoI pooling, Girshick 2015 (Fast R-CNN), section 2.1;
// position-sensitive pooling, Dai et al. 2016 (R-FCN), section 3; levels, Lin et al. 2017 (FPN), eq. 1. The arithmetic
// is torchvision's, step by step, each step rounded to T; x and y are independent of each other all the way.
#pragma once

#include <boxops/roi.h>

#include <cmath>

#include "common/geometry.h"

namespace boxops {

// The image of RoI k, or -1 where the number is that of no image: a fraction, NaN, or out of range.
BOXOPS_HD int64_t image_of(const Rois& rois, int64_t k, int64_t images) {
  const double i = load<double>(rois.data, rois.dtype, k * rois.row_stride);
  if (!(i >= 0 && i < static_cast<double>(images))) return -1;
  const int64_t image = static_cast<int64_t>(i);
  return static_cast<double>(image) == i ? image : -1;
}

template <class T>
BOXOPS_HD Box<T> roi_box(const Rois& rois, int64_t k) {
  const int64_t s = rois.column_stride, at = k * rois.row_stride + s;
  return {load<T>(rois.data, rois.dtype, at), load<T>(rois.data, rois.dtype, at + s),
          load<T>(rois.data, rois.dtype, at + 2 * s), load<T>(rois.data, rois.dtype, at + 3 * s)};
}

// The level that a RoI is pooled from; empty and NaN boxes go to the first.
template <class T>
BOXOPS_HD int level_of(const Features& features, const Box<T>& box) {
  if (features.levels == 1) return 0;
  const T side = std::sqrt(area(box));
  int level = 0;
  for (int l = 1; l < features.levels; ++l)
    if (side >= static_cast<T>(features.level[l].min_side)) level = l;
  return level;
}

// The samples of align along one axis.
template <class T>
struct AlignAxis {
  T start, bin;  // of the RoI, and the length of a bin, in pixels
  int samples;   // per bin
};

template <class T>
BOXOPS_HD AlignAxis<T> align_axis(T lo, T hi, T scale, int64_t bins, int64_t sampling_ratio, bool aligned) {
  const T offset = aligned ? T(0.5) : T(0);
  AlignAxis<T> axis;
  axis.start = lo * scale - offset;
  T length = (hi * scale - offset) - axis.start;
  if (!aligned && length < T(1)) length = T(1);
  axis.bin = length / static_cast<T>(bins);
  const T adaptive = std::ceil(axis.bin);  // NaN and negative: no samples
  axis.samples = sampling_ratio > 0           ? static_cast<int>(sampling_ratio)
                 : adaptive >= T(kMaxSamples) ? kMaxSamples
                 : adaptive >= T(1)           ? static_cast<int>(adaptive)
                                              : 0;
  return axis;
}

// What a bin's sum is divided by.
BOXOPS_HD int64_t sample_count(int samples_y, int samples_x) {
  const int64_t count = static_cast<int64_t>(samples_y) * samples_x;
  return count > 1 ? count : 1;
}

// One sample along one axis: the pixels it lies between and their weights. On a pixel both are that one, so that its
// neighbour, whose weight is 0, is not read: it may be infinite.
template <class T>
struct Sample {
  int32_t low, high;
  T low_weight, high_weight;
};

// Sample i of bin p on a map of `extent` pixels; false if it lies outside [-1, extent] or is NaN, and counts as 0.
template <class T>
BOXOPS_HD bool sample_at(const AlignAxis<T>& axis, int64_t p, int i, int64_t extent, Sample<T>* sample) {
  T at = (axis.start + static_cast<T>(p) * axis.bin) +
         ((static_cast<T>(i) + T(0.5)) * axis.bin) / static_cast<T>(axis.samples);
  if (!(at >= T(-1) && at <= static_cast<T>(extent)) || extent == 0) return false;
  if (at <= T(0)) at = T(0);
  int64_t low = static_cast<int64_t>(at);
  if (low >= extent - 1) {
    low = extent - 1;
    at = static_cast<T>(low);
  }
  sample->high_weight = at - static_cast<T>(low);
  sample->low_weight = T(1) - sample->high_weight;
  sample->low = static_cast<int32_t>(low), sample->high = sample->low + (sample->high_weight > T(0) ? 1 : 0);
  return true;
}

// The pixels [begin, end) of a bin of roi_pool or ps_roi_pool along one axis.
struct PixelRange {
  int64_t begin, end;
};

// The RoI of pool along one axis, in whole pixels.
struct PoolAxis {
  int64_t start, length;  // length 0: NaN, every bin is empty
};

// Halves round away from 0; coordinates beyond 2^30 pixels count as 2^30. `inclusive`: the last pixel belongs to the
// RoI (roi_pool); a RoI has at least one pixel.
template <class T>
BOXOPS_HD PoolAxis pool_axis(T lo, T hi, T scale, bool inclusive) {
  constexpr T kLimit = T(1 << 30);
  T a = lo * scale, b = hi * scale;
  if (a != a || b != b) return {0, 0};
  a = std::round(a < -kLimit ? -kLimit : a > kLimit ? kLimit : a);
  b = std::round(b < -kLimit ? -kLimit : b > kLimit ? kLimit : b);
  const int64_t length = static_cast<int64_t>(b) - static_cast<int64_t>(a) + (inclusive ? 1 : 0);
  return {static_cast<int64_t>(a), length < 1 ? 1 : length};
}

// Bin p of `bins`, cut to [0, limit]. ps_roi_pool never reads the last row and column: its limit is extent - 1.
template <class T>
BOXOPS_HD PixelRange pool_range(const PoolAxis& axis, int64_t p, int64_t bins, int64_t limit) {
  if (axis.length == 0) return {0, 0};
  const T bin = static_cast<T>(axis.length) / static_cast<T>(bins);
  const int64_t begin = static_cast<int64_t>(std::floor(static_cast<T>(p) * bin)) + axis.start;
  const int64_t end = static_cast<int64_t>(std::ceil(static_cast<T>(p + 1) * bin)) + axis.start;
  return {begin < 0 ? 0 : begin > limit ? limit : begin, end < 0 ? 0 : end > limit ? limit : end};
}

}  // namespace boxops
