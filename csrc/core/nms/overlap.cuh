// What greedy NMS on the device holds of a box, and whether two boxes overlap too much.
#pragma once

#include <cmath>

#include "common/rotated_geometry.h"
#include "nms/nms.h"

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

// Whether iou_of(kept, other) exceeds the threshold t, to the bit, mostly without a division. Rounding never swaps two
// numbers, so for i = intersection and u = union:
//   rounded(i / u) > t   only if  i / u > t,           that is i > t u,       and then  i >= rounded(t u);
//   i > rounded(next u)  only if  i >= next u,         that is i / u >= next, and then  rounded(i / u) > t.
// What lies in between is divided. A union that overflows makes next u infinite or NaN, and leaves it to iou_of too.
// Shapes hold no NaN but for areas, so that fmax and fmin, one instruction each, give the lengths of geometry.h.
template <class T>
__device__ bool exceeds(const Upright<T>& kept, const Upright<T>& other, const Threshold<T>& t) {
  const T w = std::fmax(std::fmin(kept.x2, other.x2) - std::fmax(kept.x1, other.x1), T(0));
  const T h = std::fmax(std::fmin(kept.y2, other.y2) - std::fmax(kept.y1, other.y1), T(0));
  const T inter = w * h;
  if (!(inter > T(0))) return false;
  const T uni = (kept.area + other.area) - inter, least = t.next * uni;
  if (inter > least) return true;
  if (inter < t.value * uni && least < std::numeric_limits<T>::infinity()) return false;
  return iou_of(static_cast<const Shape<T>&>(kept), static_cast<const Shape<T>&>(other)) > t.value;
}
template <class T>
__device__ bool exceeds(const RotatedBox<T>& kept, const RotatedBox<T>& other, const Threshold<T>& t) {
  return iou_of(kept, other) > t.value;
}

}  // namespace
}  // namespace boxops::cuda
