// Measures of ordinary boxes of float32, in few instructions and without a branch, with the same bits as measure_of.
// Whether a box is ordinary is asked of each alone, and not of pairs.
#pragma once

#include "common/divide.cuh"
#include "common/geometry.h"

namespace boxops::cuda {

// Whether operands of all divisions in the measure of two such boxes are in the bounds of divide.h. Coordinates are 0
// or of [2^-19, 2^18), so multiples of 2^-42: differences are 0 or at least that, those of centres half of it,
// intersections and squared distances at least 2^-86, hulls and squared diagonals below 2^40. Angles from 2^-18 on do
// the same for their differences, and areas from 2^-38 on for unions (at least the larger area less a rounding), hulls,
// and what hulls have more than unions.
template <Measure measure, class T>
__device__ bool is_ordinary(const Shape<T>& s) {
  if (sizeof(T) != sizeof(float)) return false;
  const auto lies_well = [](T c) { return (c == T(0)) | ((std::fabs(c) >= T(0x1p-19)) & (std::fabs(c) < T(0x1p18))); };
  return lies_well(s.x1) & lies_well(s.y1) & lies_well(s.x2) & lies_well(s.y2) & (s.area >= T(0x1p-38)) &
         (measure != Measure::kCIoU || s.angle >= T(0x1p-18));
}

// Whether these do not spoil it: they are added to divisors, and CIoU's last one may be 0 without.
template <Measure measure>
bool are_ordinary(double iou_eps, double eps) {
  return iou_eps == 0 && eps <= 0x1p38 && (measure != Measure::kCIoU || eps >= 0x1p-38);
}

struct OrdinarySteps {
  using Pair = const Shape<float>&;
  __device__ static float overlap(Pair a, Pair b) { return quick_intersection(a, b); }
  __device__ static float width(Pair a, Pair b) { return std::fmax(a.x2, b.x2) - std::fmin(a.x1, b.x1); }
  __device__ static float height(Pair a, Pair b) { return std::fmax(a.y2, b.y2) - std::fmin(a.y1, b.y1); }
  __device__ static float distance(Pair a, Pair b) {  // scaled at the end: exact
    const float dx = (a.x1 + a.x2) - (b.x1 + b.x2), dy = (a.y1 + a.y2) - (b.y1 + b.y2);
    return (dx * dx + dy * dy) * 0.25f;
  }
  __device__ static float iou(float inter, float whole, float) { return quotient(inter, whole); }
  __device__ static float ioa(float inter, float area) { return quotient(inter, area); }
  __device__ static float penalty(float num, float den) { return quotient(num, den); }
};

// The measure of two ordinary boxes.
template <Measure measure>
__device__ float ordinary_measure_of(const Shape<float>& a, const Shape<float>& b, float eps) {
  return detail::measure_by<measure, OrdinarySteps>(a, b, 0.0f, eps, 1.0f);
}

}  // namespace boxops::cuda
