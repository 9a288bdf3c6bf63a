#include <boxops/iou.h>

#include <algorithm>
#include <cstddef>

#include "common/blocks.h"
#include "common/isa.h"
#include "common/simd_tile.h"

#define BOXOPS_SIMD_SOURCE "iou/iou_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

constexpr int64_t kRows = 64;  // rows that share one loaded tile

// The cost of a pair on one core.
constexpr double pair_ns(Measure m) { return m == Measure::kCIoU ? 0.6 : 0.2; }
constexpr double kPairedNs = 5;
constexpr double gradient_ns(bool paired) { return paired ? 8 : 1; }

// load_tile, with the angles in vectors.
template <Measure measure, class T>
void load(const Boxes& boxes, int64_t batch, int64_t begin, int n, Tile<T>& tile) {
  load_tile<measure == Measure::kCIoU ? Measure::kDIoU : measure>(boxes, batch, begin, n, tile);
  if (measure == Measure::kCIoU) BOXOPS_BY_ISA(set_angles<T>)(tile, n);
}

// Tasks are blocks of kRows x kTile, a row of blocks after another, so that a thread's range of
// tasks writes one piece of memory.
template <Measure measure, class T>
void pairwise(const Boxes& boxes1, const Boxes& boxes2, T iou_eps, T eps, T* out, const Parallel& parallel) {
  const int64_t rows = blocks_of(boxes1.count, kRows), columns = blocks_of(boxes2.count, kTile);
  const auto row_kernel = BOXOPS_BY_ISA(measure_row<measure, false, T>),
             guarded = baseline::measure_row<measure, true, T>;
  const int64_t pairs = std::min(boxes1.count, kRows) * std::min<int64_t>(boxes2.count, kTile);
  parallel.share(boxes1.batch * rows * columns, pair_ns(measure) * pairs, [&](int64_t begin, int64_t end) {
    Tile<T> tile;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / (rows * columns), row = task / columns % rows * kRows,
                    column = task % columns * kTile;
      const int n = static_cast<int>(std::min<int64_t>(kTile, boxes2.count - column));
      load<measure>(boxes2, batch, column, n, tile);
      for (int64_t i = row; i < std::min(row + kRows, boxes1.count); ++i) {
        const Shape<T> box = shape_of<measure>(load_box<T>(boxes1, batch, i));
        (tile.huge || is_huge<measure>(box) ? guarded : row_kernel)(
            box, tile, n, iou_eps, eps, out + (batch * boxes1.count + i) * boxes2.count + column);
      }
    }
  });
}

template <Measure measure, class T>
void paired(const Boxes& boxes1, const Boxes& boxes2, T iou_eps, T eps, T* out, const Parallel& parallel) {
  const int64_t columns = blocks_of(boxes1.count, kTile);
  const auto kernel = BOXOPS_BY_ISA(measure_paired<measure, false, T>),
             guarded = baseline::measure_paired<measure, true, T>;
  const int64_t pairs = std::min<int64_t>(boxes1.count, kTile);
  parallel.share(boxes1.batch * columns, kPairedNs * pairs, [&](int64_t begin, int64_t end) {
    Tile<T> tile1, tile2;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / columns, column = task % columns * kTile;
      const int n = static_cast<int>(std::min<int64_t>(kTile, boxes1.count - column));
      load<measure>(boxes1, batch, column, n, tile1);
      load<measure>(boxes2, batch, column, n, tile2);
      (tile1.huge || tile2.huge ? guarded : kernel)(tile1, tile2, n, iou_eps, eps, out + batch * boxes1.count + column);
    }
  });
}

// The gradient of one side. A task is a tile of that side's boxes; it runs over all boxes of the
// other side in order, so no two threads add to one place and the order of the sum is fixed.
// grad is read as [B, self, other] through the two strides; the paired form has one other each.
template <Measure measure, bool second, class T>
void gradient_of_side(const Boxes& self, const Boxes& other, bool is_paired, T iou_eps, T eps, const T* grad,
                      int64_t self_stride, int64_t other_stride, T* out, const Parallel& parallel) {
  const int64_t columns = blocks_of(self.count, kTile), opposite = is_paired ? 1 : other.count;
  const auto kernel = BOXOPS_BY_ISA(gradient_row<measure, second, false, T>);
  const auto guarded = baseline::gradient_row<measure, second, true, T>;
  const auto paired_kernel = BOXOPS_BY_ISA(gradient_paired<measure, second, false, T>);
  const auto guarded_paired = baseline::gradient_paired<measure, second, true, T>;
  const int64_t pairs = opposite * std::min<int64_t>(self.count, kTile);
  parallel.share(self.batch * columns, gradient_ns(is_paired) * pairs, [&](int64_t begin, int64_t end) {
    Tile<T> tile, partners, sum;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / columns, column = task % columns * kTile;
      const int n = static_cast<int>(std::min<int64_t>(kTile, self.count - column));
      const T* g = grad + batch * self.count * opposite + column * self_stride;
      load<measure>(self, batch, column, n, tile);
      std::fill_n(sum.x1, offsetof(Tile<T>, area) / sizeof(T), T(0));
      if (is_paired) {
        load<measure>(other, batch, column, n, partners);
        (tile.huge || partners.huge ? guarded_paired : paired_kernel)(partners, tile, n, iou_eps, eps, g, sum);
      } else {
        for (int64_t i = 0; i < other.count; ++i) {
          const Shape<T> box = shape_of<measure>(load_box<T>(other, batch, i));
          (tile.huge || is_huge<measure>(box) ? guarded : kernel)(box, tile, n, iou_eps, eps, g + i * other_stride,
                                                                  self_stride, sum);
        }
      }
      T* to = out + (batch * self.count + column) * 4;
      for (int j = 0; j < n; ++j) {
        const Box<T> g = gradient_from_corners<T>(sum[j], self.format);
        to[4 * j] = g.x1, to[4 * j + 1] = g.y1, to[4 * j + 2] = g.x2, to[4 * j + 3] = g.y2;
      }
    }
  });
}

}  // namespace

void iou(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& o, void* out, const Parallel& parallel) {
  with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    if (boxes1.batch == 0 || boxes1.count == 0 || boxes2.count == 0) return;
    with_measure(o.measure, [&](auto measure) {
      const auto run = o.paired ? paired<measure(), T> : pairwise<measure(), T>;
      run(boxes1, boxes2, static_cast<T>(o.iou_eps), static_cast<T>(o.eps), static_cast<T*>(out), parallel);
    });
  });
}

void iou_backward(const Boxes& boxes1, const Boxes& boxes2, const MeasureOptions& o, const void* grad_out, void* grad1,
                  void* grad2, const Parallel& parallel) {
  with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    const T iou_eps = static_cast<T>(o.iou_eps), eps = static_cast<T>(o.eps);
    const T* grads = static_cast<const T*>(grad_out);
    const int64_t m = o.paired ? 1 : boxes2.count;
    with_measure(o.measure, [&](auto measure) {
      gradient_of_side<measure(), false>(boxes1, boxes2, o.paired, iou_eps, eps, grads, m, 1, static_cast<T*>(grad1),
                                         parallel);
      gradient_of_side<measure(), true>(boxes2, boxes1, o.paired, iou_eps, eps, grads, 1, m, static_cast<T*>(grad2),
                                        parallel);
    });
  });
}

}  // namespace boxops::cpu
