#include "anchors/anchors.h"

#include <algorithm>
#include <vector>

namespace boxops::cpu {
namespace {

constexpr double kBoxNs = 0.5;  // the cost of a box on one core

// Calls f(i, cx, cy) for the cells [begin, end) of a level, `i` the row of the cell's first box in the level.
template <class T, class F>
void for_each_cell(const AnchorLevel& level, int64_t begin, int64_t end, F f) {
  const T stride_x = static_cast<T>(level.stride_x), stride_y = static_cast<T>(level.stride_y);
  const T divisor_x = static_cast<T>(level.divisor_x), divisor_y = static_cast<T>(level.divisor_y);
  const T offset = static_cast<T>(level.offset);
  int64_t y = begin / level.width, x = begin % level.width;
  for (int64_t cell = begin; cell < end; ++y, x = 0) {
    const T cy = centre_of(y, offset, stride_y, divisor_y);
    for (; x < level.width && cell < end; ++x, ++cell)
      f(cell * level.count, centre_of(x, offset, stride_x, divisor_x), cy);
  }
}

// `base`: the level's anchors around 0.
template <class T>
void fill(const AnchorLevel& level, const Box<T>* base, int64_t begin, int64_t end, T* out) {
  for_each_cell<T>(level, begin, end, [=, count = level.count](int64_t i, T cx, T cy) {
    T* __restrict__ o = out + 4 * i;
    for (int64_t a = 0; a < count; ++a, o += 4)  // one vector addition
      o[0] = cx + base[a].x1, o[1] = cy + base[a].y1, o[2] = cx + base[a].x2, o[3] = cy + base[a].y2;
  });
}

}  // namespace

void anchors(const AnchorLevel* levels, int64_t n_levels, const double* halves, void* out, DType out_type,
             const Parallel& parallel) {
  with_compute_type(out_type, [&](auto t) {
    using T = decltype(t);
    int64_t cells = 0, boxes = 0;
    std::vector<Box<T>> bases;
    for (int64_t l = 0; l < n_levels; ++l) {
      cells += levels[l].cells(), boxes += levels[l].cells() * levels[l].count;
      for (int64_t a = 0; a < levels[l].count; ++a, halves += 2)
        bases.push_back(box_around(T(0), T(0), static_cast<T>(halves[0]), static_cast<T>(halves[1])));
    }
    // Work is divided by cells, those of all levels in a row.
    parallel.share(cells, kBoxNs * boxes / std::max<int64_t>(1, cells), [&](int64_t begin, int64_t end) {
      int64_t first_cell = 0, first_row = 0;
      const Box<T>* base = bases.data();
      for (int64_t l = 0; l < n_levels; ++l) {
        const AnchorLevel& level = levels[l];
        const int64_t from = std::max<int64_t>(0, begin - first_cell), to = std::min(level.cells(), end - first_cell);
        if (from < to && out_type == dtype_of<T>()) fill(level, base, from, to, static_cast<T*>(out) + 4 * first_row);
        else if (from < to)
          for_each_cell<T>(level, from, to, [&](int64_t i, T cx, T cy) {
            for (int64_t a = 0; a < level.count; ++a)
              store_box(out, out_type, first_row + i + a,
                        Box<T>{cx + base[a].x1, cy + base[a].y1, cx + base[a].x2, cy + base[a].y2});
          });
        first_cell += level.cells(), first_row += level.cells() * level.count, base += level.count;
      }
    });
  });
}

}  // namespace boxops::cpu
