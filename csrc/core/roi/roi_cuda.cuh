// What the kernels of all four poolings share.
#pragma once

#include <type_traits>

#include <boxops/roi.h>
#include "common/cuda_utils.cuh"
#include "roi/roi_bins.h"

namespace boxops::cuda {

// ps_roi_align and ps_roi_pool are position-sensitive: input channel = output channel x bins + bin.
enum class Pooling { kAlign, kSensitiveAlign, kMax, kSensitiveMean };
constexpr bool is_align(Pooling p) { return p == Pooling::kAlign || p == Pooling::kSensitiveAlign; }
constexpr bool is_sensitive(Pooling p) { return p == Pooling::kSensitiveAlign || p == Pooling::kSensitiveMean; }

// Calls f with the storage dtype as a compile-time constant, so that load() and store() of the inner loops have no
// switch: float32, float16 and bfloat16 for T = float, float64 for double.
template <class T, class F>
int with_storage(DType dtype, F&& f) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return f(std::integral_constant<DType, DType::kFloat64>());
  } else {
    if (dtype == DType::kFloat16) return f(std::integral_constant<DType, DType::kFloat16>());
    if (dtype == DType::kBFloat16) return f(std::integral_constant<DType, DType::kBFloat16>());
    return f(std::integral_constant<DType, DType::kFloat32>());
  }
}
constexpr int storage_bytes(DType t) { return t == DType::kFloat64 ? 8 : t == DType::kFloat32 ? 4 : 2; }

// Where a RoI lies along both axes, in the words of roi_bins.h.
template <Pooling pooling, class T>
using AxisOf = std::conditional_t<is_align(pooling), AlignAxis<T>, PoolAxis>;

template <Pooling pooling, class T>
struct Place {
  AxisOf<pooling, T> y, x;
};

template <Pooling pooling, class T>
BOXOPS_HD Place<pooling, T> place_of(const FeatureMap& map, const Box<T>& box, const Bins& bins) {
  const T scale = static_cast<T>(map.scale);
  if constexpr (is_align(pooling))
    return {align_axis(box.y1, box.y2, scale, bins.height, bins.sampling_ratio, bins.aligned),
            align_axis(box.x1, box.x2, scale, bins.width, bins.sampling_ratio, bins.aligned)};
  else
    return {pool_axis(box.y1, box.y2, scale, pooling == Pooling::kMax),
            pool_axis(box.x1, box.x2, scale, pooling == Pooling::kMax)};
}

// level * images + image of a RoI; behind all of these, that of no image.
template <class T>
__device__ int64_t segment_of(const Features& gradients, const Rois& rois, int64_t k) {
  const int64_t image = image_of(rois, k, gradients.images);
  const int64_t level = image < 0 ? gradients.levels : level_of(gradients, roi_box<T>(rois, k));
  return level * gradients.images + max_of<int64_t>(image, 0);
}

// [begin, end): rows and columns of a map, and bins along an axis, are counted in 32 bits.
struct Steps {
  int begin, end;
};

// Of n steps of this length from `start`, a superset of those that reach into [low, high].
template <class T>
__device__ Steps steps_within(T start, T step, int n, T low, T high) {
  const T reach = static_cast<T>(n) * step;
  const T slack = (std::fabs(start) + std::fabs(reach)) * (std::numeric_limits<T>::epsilon() * T(8));
  if (!(std::fabs(step) > std::numeric_limits<T>::min())) return {0, n};
  const T a = (low - slack - start) / step, b = (high + slack - start) / step;
  const T first = step > T(0) ? a : b, last = step > T(0) ? b : a;  // NaN: all
  return {first > T(0) ? (first < static_cast<T>(n) ? static_cast<int>(first) : n) : 0, last < T(0) ? 0
                                                                                        : last < static_cast<T>(n)
                                                                                            ? static_cast<int>(last) + 1
                                                                                            : n};
}

// A superset of bin p's samples in [low, high]: few of a huge RoI's lie anywhere near the map.
template <class T>
__device__ Steps samples_within(const AlignAxis<T>& axis, int p, T low, T high) {
  if (axis.samples <= 8) return {0, axis.samples};
  return steps_within(axis.start + static_cast<T>(p) * axis.bin, axis.bin / static_cast<T>(axis.samples), axis.samples,
                      low, high);
}

// The pixels of bin p along one axis; ps_roi_pool never reads the last row and column.
template <Pooling pooling, class T>
BOXOPS_HD Steps range_of(const PoolAxis& axis, int64_t p, int64_t bins, int64_t extent) {
  const PixelRange range =
      pool_range<T>(axis, p, bins, pooling == Pooling::kMax ? extent : max_of<int64_t>(extent - 1, 0));
  return {static_cast<int>(range.begin), static_cast<int>(range.end)};
}

}  // namespace boxops::cuda
