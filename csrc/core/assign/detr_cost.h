// The cost of giving each ground truth each query of its own image, as DETR's matcher weighs it.
//
// cost[g, q] = (box_weight L1 + class_weight class) - giou_weight GIoU, for row g of image b and query q of b:
//   class = -softmax(logits[b, q])[label], or with `focal` Deformable DETR's: with p the sigmoid of the label's logit,
//           0.25 (1 - p)^2 -log(p + 1e-8) - 0.75 p^2 -log(1 - p + 1e-8), where 1 - p is computed without cancellation
//   L1    = |dcx| + |dcy| + |dw| + |dh|;  GIoU of the corners: common/geometry.h
// Never a matrix over all images. NaN in gives NaN out. Equal on all backends but for the error of exp and log.
// Labels are whole numbers in [0, classes); on CUDA, where nobody can look, one outside is taken for the nearest, a
// fraction is cut off, and NaN is 0.
// Floor: B Q C logits read once, G Q costs written once.
#pragma once

#include "common/geometry.h"
#include "common/parallel.h"
#include "common/ragged.h"
#include "common/sort.h"

namespace boxops {

struct DetrCostInput {
  const void* logits;  // [batch, queries, classes]
  DType logits_dtype;
  int64_t batch_stride, query_stride, class_stride;
  int64_t batch, queries, classes;
  Boxes boxes;     // [batch, queries], cxcywh
  Scalars labels;  // [1, G], whole numbers
  Boxes gt_boxes;  // [1, G], cxcywh
  Ragged ragged;   // image b owns rows of G
  double class_weight, box_weight, giou_weight;
  bool focal;

  BOXOPS_HD int64_t logit_at(int64_t b, int64_t q, int64_t c) const {
    return b * batch_stride + q * query_stride + c * class_stride;
  }
  BOXOPS_HD int64_t label(int64_t g) const {
    const int64_t at = g * labels.stride;
    if (labels.dtype >= DType::kFloat16 || labels.dtype == DType::kUInt64) {  // int64 does not hold all of them
      const double v = load<double>(labels.data, labels.dtype, at);
      return !(v >= 0) ? 0 : v < static_cast<double>(classes) ? static_cast<int64_t>(v) : classes - 1;
    }
    const int64_t v = load<int64_t>(labels.data, labels.dtype, at);
    return v < 0 ? 0 : v < classes ? v : classes - 1;
  }
};

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

namespace cpu {

// Writes out[G, queries].
template <class T>
BOXOPS_API void detr_cost(const DetrCostInput& input, T* out, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

// Bytes for the maximum and the sum of each softmax.
BOXOPS_API size_t detr_cost_workspace(const DetrCostInput& input, bool float64);

// Returns a cudaError_t.
template <class T>
BOXOPS_API int detr_cost(const DetrCostInput& input, T* out, void* workspace, void* stream);

}  // namespace cuda
}  // namespace boxops
