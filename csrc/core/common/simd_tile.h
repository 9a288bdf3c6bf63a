// A tile of boxes as five or six short arrays, for vector loops on the CPU.
#pragma once

#include "common/geometry.h"

namespace boxops {

namespace cpu {
constexpr int kTile = 256;
}

template <class T>
struct Tile {
  alignas(64) T x1[cpu::kTile];
  alignas(64) T y1[cpu::kTile];
  alignas(64) T x2[cpu::kTile];
  alignas(64) T y2[cpu::kTile];
  alignas(64) T area[cpu::kTile];
  alignas(64) T angle[cpu::kTile];
  bool huge;  // one of the boxes is_huge

  Shape<T> operator[](int i) const {
    Shape<T> s;
    s.x1 = x1[i], s.y1 = y1[i], s.x2 = x2[i], s.y2 = y2[i], s.area = area[i], s.angle = angle[i];
    return s;
  }
  void set(int i, const Shape<T>& s) {
    x1[i] = s.x1, y1[i] = s.y1, x2[i] = s.x2, y2[i] = s.y2, area[i] = s.area, angle[i] = s.angle;
  }
};

// Fills places [0, n) with boxes [begin, begin + n) of one batch item.
template <Measure measure, class T>
void load_tile(const Boxes& boxes, int64_t batch, int64_t begin, int n, Tile<T>& tile) {
  for (int i = 0; i < n; ++i) tile.set(i, shape_of<measure>(load_box<T>(boxes, batch, begin + i)));
  int huge = 0;
  for (int i = 0; i < n; ++i) huge |= is_huge<measure>(tile[i]);
  tile.huge = huge != 0;
}

}  // namespace boxops
