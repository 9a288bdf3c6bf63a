// The cost of giving each ground truth each query of its own image, as DETR's matcher weighs it.
//
// cost[g, q] = (box_weight L1 + class_weight class) - giou_weight GIoU, for row g of image b and query q of b:
//   class = -softmax(logits[b, q])[label], or with `focal` Deformable DETR's: with p the sigmoid of the label's logit,
//           0.25 (1 - p)^2 -log(p + 1e-8) - 0.75 p^2 -log(1 - p + 1e-8), where 1 - p is computed without cancellation
//   L1    = |dcx| + |dcy| + |dw| + |dh|;  GIoU of the corners: boxops/iou.h
// Never a matrix over all images. NaN in gives NaN out. Equal on all backends but for the error of exp and log.
// Labels are whole numbers in [0, classes); on CUDA, where nobody can look, one outside is taken for the nearest, a
// fraction is cut off, and NaN is 0.
// Floor: B Q C logits read once, G Q costs written once.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/ragged.h>
#include <boxops/types.h>

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
};

namespace cpu {

// Writes out[G, queries].
BOXOPS_API void detr_cost(const DetrCostInput& input, void* out, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

// Bytes for the maximum and the sum of each softmax.
BOXOPS_API size_t detr_cost_workspace(const DetrCostInput& input);

// Returns a cudaError_t.
BOXOPS_API int detr_cost(const DetrCostInput& input, void* out, void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
