// The arithmetic of <boxops/boxes.h>: the one copy, for every backend.
#pragma once

#include <limits>
#include <type_traits>

#include <boxops/boxes.h>
#include "common/geometry.h"

namespace boxops {

// Between formats, each step rounded to T as in torchvision's formulas.
template <class T>
BOXOPS_HD Box<T> convert_box(const Box<T>& b, Format from, Format to) {
  if (from == to) return b;
  const Box<T> c = to_corners(b, from);
  if (to == Format::kXYWH) return {c.x1, c.y1, c.x2 - c.x1, c.y2 - c.y1};
  if (to == Format::kCXCYWH) return {(c.x1 + c.x2) / T(2), (c.y1 + c.y2) / T(2), c.x2 - c.x1, c.y2 - c.y1};
  return c;
}

// NaN stays NaN.
template <class T>
BOXOPS_HD T clip(T value, T limit) {
  return value < T(0) ? T(0) : (value > limit ? limit : value);
}

// A clip limit as the boxes' own type; beyond an integer's range it is that range's end.
template <class S>
S limit_as(double limit) {
  constexpr S max = std::numeric_limits<S>::max();
  return std::is_integral_v<S> && limit >= static_cast<double>(max) ? max : static_cast<S>(limit);
}

template <class T>
BOXOPS_HD Box<T> clip_box(const Box<T>& b, T height, T width) {
  return {clip(b.x1, width), clip(b.y1, height), clip(b.x2, width), clip(b.y2, height)};
}

template <class T>
BOXOPS_HD void store_box(void* data, DType type, int64_t i, const Box<T>& b) {
  store(data, type, 4 * i, b.x1), store(data, type, 4 * i + 1, b.y1);
  store(data, type, 4 * i + 2, b.x2), store(data, type, 4 * i + 3, b.y2);
}

// A box whose 16 or 32 bytes move at once, so that a warp's access is one run of memory.
template <class T>
struct alignas(16) AlignedBox : Box<T> {};

template <class T>
BOXOPS_HD bool is_large(const Box<T>& b, T min_size) {
  return b.x2 - b.x1 >= min_size && b.y2 - b.y1 >= min_size;  // false for NaN
}

}  // namespace boxops
