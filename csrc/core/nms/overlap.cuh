// What greedy NMS on the device holds of a box, and whether two boxes overlap too much.
#pragma once

#include <cmath>

#include <boxops/nms.h>
#include "common/rotated_geometry.h"

namespace boxops::cuda {
namespace {

// The corners are one load of 16 bytes, and the whole of a float box is one sector.
template <class T>
struct alignas(16) Upright : Shape<T> {};

template <class T>
__device__ void fetch(const Boxes& boxes, int64_t batch, int64_t i, Upright<T>* box) {
  static_cast<Shape<T>&>(*box) = shape_of<Measure::kIoU>(load_box<T>(boxes, batch, i));
}
template <class T>
__device__ void fetch(const Boxes& boxes, int64_t batch, int64_t i, RotatedBox<T>* box) {
  *box = load_rotated_box<T>(boxes, batch, i);
}

template <class T>
struct Threshold {
  T value, next;  // next: the number after it
  explicit Threshold(T t) : value(t), next(std::nextafter(t, std::numeric_limits<T>::infinity())) {}
};

// The intersection of two boxes, which settles most pairs: 0 if none. Of rotated boxes, whether their hulls meet.
template <class T>
__device__ T coarse_overlap(const Upright<T>& kept, const Upright<T>& other) {
  return quick_intersection<T>(kept, other);
}
template <class T>
__device__ T coarse_overlap(const RotatedBox<T>& kept, const RotatedBox<T>& other) {
  return hulls_meet(kept, other) ? T(1) : T(0);
}

// Whether the IoU of boxes that share something exceeds the threshold t, to the bit, mostly without a division.
// Rounding never swaps two numbers, so for i = intersection and u = union:
//   rounded(i / u) > t   only if  i / u > t,           that is i > t u,       and then  i >= rounded(t u);
//   i > rounded(next u)  only if  i >= next u,         that is i / u >= next, and then  rounded(i / u) > t.
// What lies in between is divided. A union that overflows makes next u infinite or NaN, and leaves it to iou_of too.
template <class T>
__device__ bool exceeds(T inter, const Upright<T>& kept, const Upright<T>& other, const Threshold<T>& t) {
  const T uni = union_of(inter, kept.area, other.area), least = t.next * uni;
  if (inter > least) return true;
  if (inter < t.value * uni && least < std::numeric_limits<T>::infinity()) return false;
  return iou_of(static_cast<const Shape<T>&>(kept), static_cast<const Shape<T>&>(other)) > t.value;
}
template <class T>
__device__ bool exceeds(T, const RotatedBox<T>& kept, const RotatedBox<T>& other, const Threshold<T>& t) {
  return iou_of_meeting(kept, other) > t.value;
}

// Whether a pair that meets costs so much that the threads of boxes which are out already had better not look at it.
template <class S>
constexpr bool kCostly = false;
template <class T>
constexpr bool kCostly<RotatedBox<T>> = true;

// Bit c: column c of `count`, at most 32, which comes before the box and is one of `among`, overlaps it too much; where
// any_is_enough, of some of them. First all that overlap at all, without a branch; then a lane goes through its own of
// these, so that the lanes of a warp look at different columns at a time.
template <int count, bool any_is_enough, class S, class T>
__device__ unsigned overlapping_of(const S* columns, const S& box, const Threshold<T>& threshold,
                                   unsigned among = ~0u) {
  if (among == 0) return 0;
  unsigned meeting = 0, bits = 0;
#pragma unroll
  for (int c = 0; c < count; ++c) meeting |= static_cast<unsigned>(coarse_overlap(columns[c], box) > T(0)) << c;
  for (meeting &= among; meeting != 0; meeting &= meeting - 1) {
    const int c = __ffs(static_cast<int>(meeting)) - 1;
    if (!exceeds(coarse_overlap(columns[c], box), columns[c], box, threshold)) continue;
    bits |= 1u << c;
    if (any_is_enough) break;
  }
  return bits;
}

// The same of 64 columns.
template <bool any_is_enough, class S, class T>
__device__ unsigned long long overlapping(const S* columns, const S& box, const Threshold<T>& threshold) {
  const unsigned low = overlapping_of<32, any_is_enough>(columns, box, threshold);
  if (any_is_enough && low != 0) return low;
  return static_cast<unsigned long long>(overlapping_of<32, any_is_enough>(columns + 32, box, threshold)) << 32 | low;
}

}  // namespace
}  // namespace boxops::cuda
