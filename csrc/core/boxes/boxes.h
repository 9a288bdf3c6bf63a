// Elementwise box operations: area, conversion of format, clipping, size filter.
//
// boxes [1, N, 4] of any dtype, strides and format; outputs are contiguous. Memory-bound: the floor is
// bytes read plus bytes written over the memory bandwidth.
#pragma once

#include "common/geometry.h"
#include "common/parallel.h"

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
  constexpr S most = std::numeric_limits<S>::max();
  return std::is_integral_v<S> && limit >= static_cast<double>(most) ? most : static_cast<S>(limit);
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

namespace cpu {

template <class T>
BOXOPS_API void box_area(const Boxes& boxes, T* out, const Parallel& parallel);

// out[N, 4] of floating dtype `out_type`, rounded once.
template <class T>
BOXOPS_API void box_convert(const Boxes& boxes, Format to, void* out, DType out_type, const Parallel& parallel);

// out[N, 4] of the boxes' own dtype; integers are clipped as integers.
BOXOPS_API void clip_boxes(const Boxes& boxes, double height, double width, void* out, const Parallel& parallel);

// Indices of the boxes with width and height >= min_size, rising; returns their number.
template <class T>
BOXOPS_API int64_t large_boxes(const Boxes& boxes, T min_size, int64_t* indices);

}  // namespace cpu

namespace cuda {

template <class T>
BOXOPS_API int box_area(const Boxes& boxes, T* out, void* stream);

template <class T>
BOXOPS_API int box_convert(const Boxes& boxes, Format to, void* out, DType out_type, void* stream);

BOXOPS_API int clip_boxes(const Boxes& boxes, double height, double width, void* out, void* stream);

BOXOPS_API size_t large_boxes_workspace(int64_t count);

// Writes count[1] on the device. `workspace` holds large_boxes_workspace(boxes.count) bytes.
template <class T>
BOXOPS_API int large_boxes(const Boxes& boxes, T min_size, int64_t* indices, int64_t* count, void* workspace,
                           void* stream);

}  // namespace cuda
}  // namespace boxops
