// Assignment: the problem itself, and the costs that DETR's matcher gives it.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/ragged.h>
#include <boxops/types.h>

namespace boxops {

// Minimum cost assignment (the Hungarian problem), exact, for batches of equal and of ragged size.
//
// The smaller side of each problem is assigned to the larger (Jonker, Volgenant 1987; Crouse 2016). Column reduction:
// where the sides are equal, the duals of the columns begin at their least costs, else at 0. Augmenting row reduction:
// one after another takes its nearest column and lowers that column's dual until the second nearest is as near, and who
// had the column goes on. Where nearest columns are tied and all taken, it takes the next after the one that it lost,
// at most 16 times in a row; and all this ends at two steps a member. Who is left is assigned along a shortest
// augmenting path.
//
// All arithmetic is float64 in a fixed order, ties of distance go to a free column and then to the lower index, so
// every backend returns the same of several optimal assignments. Costs of +inf are forbidden. Costs beyond 2^1000 are
// scaled by 2^-64, so that no sum overflows.
//
// A problem with a NaN or -inf cost, or without a finite assignment, is faulty: its columns are -1, and the CPU reports
// the first such problem. Time O(k^2 l) for sides k <= l, mostly far less; a step is bound by one read of a row. Memory
// O(k + l) beyond the costs; those that are not float32 or float64, or whose longer side does not lie in a row, are
// copied: as float32 where it holds them.

// What becomes of a faulty problem: an error (on the CPU; a device is not waited for), or no matches.
enum class OnInvalid : uint8_t { kRaise, kUnmatched };
template <>
inline constexpr std::array<const char*, 2> kNames<OnInvalid> = {"raise", "unmatched"};

struct AssignmentInput {
  const void* data;  // uniform: [batch, rows, columns]; ragged: [R, columns], problem b owns rows as `ragged` says
  DType dtype;
  int64_t batch_stride, row_stride, column_stride;
  bool is_ragged;
  Ragged ragged;
  int64_t batch, rows, columns;  // rows: of each problem, or R
  bool maximize;

  BOXOPS_HD int64_t first_row(int64_t b) const { return is_ragged ? ragged.begin(b) : b * rows; }
  BOXOPS_HD int64_t rows_of(int64_t b) const { return is_ragged ? ragged.count(b) : rows; }
  BOXOPS_HD int64_t offset_of(int64_t b) const { return is_ragged ? ragged.begin(b) * row_stride : b * batch_stride; }
};

struct AssignmentFault {
  int64_t problem = -1;           // none
  int64_t row = -1, column = -1;  // the cost that is NaN or infinite the wrong way; -1: no finite assignment
  double value = 0;
};

namespace cpu {

// Uniform: row_ind and col_ind [batch, min(rows, columns)], rows rising. Ragged: both [R], row_ind the row of the whole
// array and col_ind -1 where the row stays free. A faulty problem has col_ind -1 throughout, and row_ind 0, 1, 2, ...
// where uniform.
BOXOPS_API AssignmentFault linear_sum_assignment(const AssignmentInput& input, int64_t* row_ind, int64_t* col_ind,
                                                 const Parallel& parallel);

}  // namespace cpu

namespace cuda {

constexpr int64_t kMaxAssigned = int64_t(1) << 30;  // rows, and columns, at most

BOXOPS_API size_t linear_sum_assignment_workspace(const AssignmentInput& input);

// As on the CPU, to the bit. Offsets that fall make every problem faulty. Returns a cudaError_t.
BOXOPS_API int linear_sum_assignment(const AssignmentInput& input, int64_t* row_ind, int64_t* col_ind, void* workspace,
                                     void* stream);

}  // namespace cuda

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
