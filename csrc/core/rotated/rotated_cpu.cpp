#include <boxops/rotated.h>

#include <algorithm>
#include <cstring>

#include "common/blocks.h"
#include "common/isa.h"
#include "common/rotated_geometry.h"

namespace boxops {
namespace {

constexpr int kRotatedTile = 256;

// A tile of boxes, number by number. The cosine, sine of a box only count where it is the first of a pair.
template <class T>
struct RotatedTile {
  alignas(64) T numbers[10][kRotatedTile];
  bool huge;  // one of the boxes is_huge

  RotatedBox<T> operator[](int i) const {
    return {numbers[0][i], numbers[1][i], numbers[2][i], numbers[3][i], numbers[4][i],
            numbers[5][i], numbers[6][i], numbers[7][i], numbers[8][i], numbers[9][i]};
  }
  void set(int i, const RotatedBox<T>& b) {
    const T all[] = {b.cx, b.cy, b.a, b.b, b.angle, b.cos, b.sin, b.hull_x, b.hull_y, b.area};
    for (int k = 0; k < 10; ++k) numbers[k][i] = all[k];
  }
};

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "rotated/rotated_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

constexpr int64_t kRows = 64;                    // rows that share one loaded tile
constexpr double kPairNs = 1.5, kPairedNs = 20;  // the cost of a pair on one core, where few overlap

template <class T>
void load_tile(const Boxes& boxes, int64_t batch, int64_t begin, int n, RotatedTile<T>& tile) {
  for (int i = 0; i < n; ++i) {
    const int64_t at = batch * boxes.batch_stride + (begin + i) * boxes.box_stride;
    for (int k = 0; k < 5; ++k) tile.numbers[k][i] = load<T>(boxes.data, boxes.dtype, at + k * boxes.coord_stride);
    tile.numbers[4][i] = within_half_turn(tile.numbers[4][i]);
  }
  BOXOPS_BY_ISA(rotated_prepare<T>)(tile, n);
  int huge = 0;
  for (int i = 0; i < n; ++i) huge |= is_huge(tile[i]);
  tile.huge = huge != 0;
}

// Tasks as in iou_cpu.cpp: blocks of kRows x kRotatedTile.
template <class T>
void pairwise(const Boxes& boxes1, const Boxes& boxes2, T* out, const Parallel& parallel) {
  const int64_t rows = blocks_of(boxes1.count, kRows), columns = blocks_of(boxes2.count, kRotatedTile);
  const auto row_kernel = BOXOPS_BY_ISA(rotated_row<false, T>), guarded = baseline::rotated_row<true, T>;
  const int64_t pairs = std::min(boxes1.count, kRows) * std::min<int64_t>(boxes2.count, kRotatedTile);
  parallel.share(boxes1.batch * rows * columns, kPairNs * pairs, [&](int64_t begin, int64_t end) {
    RotatedTile<T> tile, few;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / (rows * columns), row = task / columns % rows * kRows,
                    column = task % columns * kRotatedTile;
      const int n = static_cast<int>(std::min<int64_t>(kRotatedTile, boxes2.count - column));
      load_tile(boxes2, batch, column, n, tile);
      for (int64_t i = row; i < std::min(row + kRows, boxes1.count); ++i) {
        const RotatedBox<T> box = load_rotated_box<T>(boxes1, batch, i);
        (tile.huge || is_huge(box) ? guarded : row_kernel)(box, tile, n, few,
                                                           out + (batch * boxes1.count + i) * boxes2.count + column);
      }
    }
  });
}

template <class T>
void paired(const Boxes& boxes1, const Boxes& boxes2, T* out, const Parallel& parallel) {
  const int64_t columns = blocks_of(boxes1.count, kRotatedTile);
  const auto kernel = BOXOPS_BY_ISA(rotated_paired<false, T>), guarded = baseline::rotated_paired<true, T>;
  const int64_t pairs = std::min<int64_t>(boxes1.count, kRotatedTile);
  parallel.share(boxes1.batch * columns, kPairedNs * pairs, [&](int64_t begin, int64_t end) {
    RotatedTile<T> tile1, tile2;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t batch = task / columns, column = task % columns * kRotatedTile;
      const int n = static_cast<int>(std::min<int64_t>(kRotatedTile, boxes1.count - column));
      load_tile(boxes1, batch, column, n, tile1);
      load_tile(boxes2, batch, column, n, tile2);
      (tile1.huge || tile2.huge ? guarded : kernel)(tile1, tile2, n, out + batch * boxes1.count + column);
    }
  });
}

}  // namespace

void rotated_box_iou(const Boxes& boxes1, const Boxes& boxes2, bool is_paired, void* out, const Parallel& parallel) {
  with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    if (boxes1.batch == 0 || boxes1.count == 0 || boxes2.count == 0) return;
    (is_paired ? paired<T> : pairwise<T>)(boxes1, boxes2, static_cast<T*>(out), parallel);
  });
}

}  // namespace boxops::cpu
