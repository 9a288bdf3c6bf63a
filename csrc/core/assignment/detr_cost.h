// The arithmetic of <boxops/assignment.h>: the one copy, for every backend.
#pragma once

#include <cmath>

#include <boxops/assignment.h>
#include "common/geometry.h"
#include "common/sort.h"

namespace boxops {

inline DType compute_type_of(const DetrCostInput& in) {
  return compute_type(in.logits_dtype, in.boxes.dtype, in.gt_boxes.dtype);
}

BOXOPS_HD int64_t logit_at(const DetrCostInput& in, int64_t b, int64_t q, int64_t c) {
  return b * in.batch_stride + q * in.query_stride + c * in.class_stride;
}

BOXOPS_HD int64_t label_of(const DetrCostInput& in, int64_t g) {
  const Scalars& labels = in.labels;
  const int64_t at = g * labels.stride;
  if (labels.dtype >= DType::kFloat16 || labels.dtype == DType::kUInt64) {  // int64 does not hold all of them
    const double v = load<double>(labels.data, labels.dtype, at);
    return !(v >= 0) ? 0 : v < static_cast<double>(in.classes) ? static_cast<int64_t>(v) : in.classes - 1;
  }
  const int64_t v = load<int64_t>(labels.data, labels.dtype, at);
  return v < 0 ? 0 : v < in.classes ? v : in.classes - 1;
}

// Deformable DETR's focal class cost; z = exp(-|x|) of the logit x.
template <class T>
BOXOPS_HD T focal_cost(T x, T z) {
  const T large = T(1) / (T(1) + z), small = z / (T(1) + z);
  const T p = x >= T(0) ? large : small, rest = x >= T(0) ? small : large;
  const T eps = T(1e-8);
  return T(0.25) * (rest * rest) * -std::log(p + eps) - T(0.75) * (p * p) * -std::log(rest + eps);
}

// |a - b| summed over the four numbers of two boxes.
template <class T>
BOXOPS_HD T l1_of(const Box<T>& a, const Box<T>& b) {
  return ((std::abs(a.x1 - b.x1) + std::abs(a.y1 - b.y1)) + std::abs(a.x2 - b.x2)) + std::abs(a.y2 - b.y2);
}

template <class T>
BOXOPS_HD T detr_cost_of(T class_weight, T box_weight, T giou_weight, T class_cost, T l1, T giou) {
  return (box_weight * l1 + class_weight * class_cost) - giou_weight * giou;
}

}  // namespace boxops
