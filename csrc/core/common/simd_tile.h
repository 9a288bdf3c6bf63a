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
  const auto set = [&](int i, const Box<T>& b) {
    tile.x1[i] = b.x1, tile.y1[i] = b.y1, tile.x2[i] = b.x2, tile.y2[i] = b.y2;
  };
  if (boxes.dtype == dtype_of<T>() && boxes.format == Format::kXYXY && boxes.coord_stride == 1) {  // the usual
    const T* from = static_cast<const T*>(boxes.data) + batch * boxes.batch_stride + begin * boxes.box_stride;
    for (int i = 0; i < n; ++i, from += boxes.box_stride) set(i, {from[0], from[1], from[2], from[3]});
  } else {
    for (int i = 0; i < n; ++i) set(i, load_box<T>(boxes, batch, begin + i));
  }
  for (int i = 0; i < n; ++i) tile.set(i, shape_of<measure>(Box<T>{tile.x1[i], tile.y1[i], tile.x2[i], tile.y2[i]}));
  int huge = 0;
  for (int i = 0; i < n; ++i) huge |= is_huge<measure>(tile[i]);
  tile.huge = huge != 0;
}

}  // namespace boxops
