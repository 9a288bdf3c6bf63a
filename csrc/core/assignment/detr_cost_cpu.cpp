#include "assignment/detr_cost.h"
#include "common/blocks.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/isa.h"
#include "common/simd_tile.h"

namespace boxops {
namespace {

constexpr int kSumLanes = 16;

// The numbers of a tile of boxes.
template <class T>
struct Numbers {
  alignas(64) T cx[cpu::kTile];
  alignas(64) T cy[cpu::kTile];
  alignas(64) T w[cpu::kTile];
  alignas(64) T h[cpu::kTile];
};

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "assignment/detr_cost_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

constexpr double kLogitNs = 1;  // the cost of a logit, or of a pair, on one core

template <class T>
struct Scratch {
  Tile<T> tile;
  Numbers<T> numbers;
  T max[kTile], sum[kTile], logits[kTile], class_cost[kTile];
  std::vector<T> row;  // the logits of one query
};

// Logits from `at` on, in steps of `stride`.
template <class T>
void load_logits(const DetrCostInput& in, int64_t at, int64_t stride, int64_t n, T* out) {
  if (in.logits_dtype == (sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32)) {
    const T* data = static_cast<const T*>(in.logits) + at;
    for (int64_t i = 0; i < n; ++i) out[i] = data[i * stride];
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = load<T>(in.logits, in.logits_dtype, at + i * stride);
  }
}

// The costs of queries [first, first + n) of image b, n <= kTile, for all ground truths of that image.
template <class T>
void costs_of_tile(const DetrCostInput& in, int64_t b, int64_t first, int n, Scratch<T>& s, T* out) {
  const int64_t begin = in.ragged.begin(b), end = in.ragged.end(b);
  if (begin == end) return;
  load_tile<Measure::kGIoU>(in.boxes, b, first, n, s.tile);
  for (int q = 0; q < n; ++q) {
    const Box<T> box = load_numbers<T>(in.boxes, b, first + q);
    s.numbers.cx[q] = box.x1, s.numbers.cy[q] = box.y1, s.numbers.w[q] = box.x2, s.numbers.h[q] = box.y2;
    if (in.focal) continue;
    load_logits(in, logit_at(in, b, first + q, 0), in.class_stride, in.classes, s.row.data());
    s.sum[q] = BOXOPS_BY_ISA(softmax_sum<T>)(s.row.data(), in.classes, &s.max[q]);
  }
  for (int64_t g = begin; g < end; ++g) {
    load_logits(in, logit_at(in, b, first, label_of(in, g)), in.query_stride, n, s.logits);
    if (in.focal) BOXOPS_BY_ISA(focal_costs<T>)(s.logits, n, s.class_cost);
    else BOXOPS_BY_ISA(softmax_cost<T>)(s.logits, s.max, s.sum, n, s.class_cost);
    const Box<T> gt = load_numbers<T>(in.gt_boxes, 0, g);
    const Shape<T> shape = shape_of<Measure::kGIoU>(to_corners(gt, in.gt_boxes.format));
    const auto cost_row =
        s.tile.huge || is_huge<Measure::kGIoU>(shape) ? baseline::cost_row<true, T> : BOXOPS_BY_ISA(cost_row<false, T>);
    cost_row(gt, shape, s.numbers, s.tile, n, s.class_cost, static_cast<T>(in.class_weight),
             static_cast<T>(in.box_weight), static_cast<T>(in.giou_weight), out + g * in.queries + first);
  }
}

}  // namespace

void detr_cost(const DetrCostInput& in, void* out, const Parallel& parallel) {
  with_compute_type(compute_type_of(in), [&](auto t) {
    using T = decltype(t);
    const int64_t tiles = blocks_of(in.queries, kTile);
    const int64_t rows = in.ragged.total / std::max<int64_t>(1, in.batch);
    const int64_t per_tile = std::min<int64_t>(in.queries, kTile) * (in.classes + rows);
    parallel.share(in.batch * tiles, kLogitNs * per_tile, [&](int64_t begin, int64_t end) {
      Scratch<T> scratch;
      scratch.row.resize(in.classes);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % tiles * kTile;
        const int n = static_cast<int>(std::min<int64_t>(kTile, in.queries - first));
        costs_of_tile(in, task / tiles, first, n, scratch, static_cast<T*>(out));
      }
    });
  });
}

}  // namespace boxops::cpu
