#include "anchors/anchors.h"

#include <algorithm>

namespace boxops::cpu {
namespace {

constexpr int64_t kGrain = 1 << 13;  // boxes per thread below which a second one does not pay

// Cells [begin, end) of a level; put(i, box) takes the boxes in order, from row `i` on.
template <class T, class Put>
void fill_cells(const AnchorLevel& level, const double* halves, int64_t begin, int64_t end, int64_t i, Put put) {
  const T stride_x = static_cast<T>(level.stride_x), stride_y = static_cast<T>(level.stride_y);
  const T divisor_x = static_cast<T>(level.divisor_x), divisor_y = static_cast<T>(level.divisor_y);
  const T offset = static_cast<T>(level.offset);
  int64_t y = begin / level.width, x = begin % level.width;
  for (int64_t cell = begin; cell < end; ++y, x = 0) {
    const T cy = centre_of(y, offset, stride_y, divisor_y);
    for (; x < level.width && cell < end; ++x, ++cell) {
      const T cx = centre_of(x, offset, stride_x, divisor_x);
      for (int64_t a = 0; a < level.count; ++a, ++i)
        put(i, box_around(cx, cy, static_cast<T>(halves[2 * a]), static_cast<T>(halves[2 * a + 1])));
    }
  }
}

}  // namespace

template <class T>
void anchors(const AnchorLevel* levels, int64_t n_levels, const double* halves, void* out, DType out_type,
             const Parallel& parallel) {
  int64_t total = 0, most = 1;
  for (int64_t l = 0; l < n_levels; ++l) {
    total += levels[l].cells();
    most = std::max(most, levels[l].count);
  }
  // Work is divided by cells of all levels in a row.
  parallel.run(total, std::max<int64_t>(1, kGrain / most), [&](int64_t begin, int64_t end) {
    int64_t first_cell = 0, first_row = 0;
    const double* own = halves;
    for (int64_t l = 0; l < n_levels; ++l) {
      const AnchorLevel& level = levels[l];
      const int64_t from = std::max<int64_t>(0, begin - first_cell), to = std::min(level.cells(), end - first_cell);
      if (from < to) {
        const int64_t i = first_row + from * level.count;
        if (out_type == (sizeof(T) == 4 ? DType::kFloat32 : DType::kFloat64)) {
          T* o = static_cast<T*>(out);
          fill_cells<T>(level, own, from, to, i, [=](int64_t i, const Box<T>& b) {
            o[4 * i] = b.x1, o[4 * i + 1] = b.y1, o[4 * i + 2] = b.x2, o[4 * i + 3] = b.y2;
          });
        } else {
          fill_cells<T>(level, own, from, to, i, [=](int64_t i, const Box<T>& b) { store_box(out, out_type, i, b); });
        }
      }
      first_cell += level.cells(), first_row += level.cells() * level.count, own += 2 * level.count;
    }
  });
}

#define INSTANTIATE(T) \
  template void anchors<T>(const AnchorLevel*, int64_t, const double*, void*, DType, const Parallel&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace boxops::cpu
