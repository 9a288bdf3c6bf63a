// The arithmetic of <boxops/masks.h>: the one copy, for every backend.
#pragma once

#include <boxops/masks.h>
#include "common/geometry.h"

namespace boxops {

// Where a box comes to lie in the image, before it is cut to it: pixels [x1, x2] x [y1, y2].
struct Pasted {
  int64_t x1, y1, x2, y2;
};

// Both ends along one axis, grown by the factor and truncated.
template <class B>
BOXOPS_HD void grow(B lo, B hi, B factor, int64_t* first, int64_t* last) {
  constexpr B kFarthest = B(1 << 30);
  const B half = (hi - lo) * B(0.5) * factor, middle = (hi + lo) * B(0.5);
  *first = static_cast<int64_t>(min_of(max_of(middle - half, -kFarthest), kFarthest));  // NaN: -kFarthest
  *last = static_cast<int64_t>(min_of(max_of(middle + half, -kFarthest), kFarthest));
}

template <class B>
BOXOPS_HD Pasted pasted_as(const PasteInput& in, int64_t i) {
  const Box<B> b = load_box<B>(in.boxes, 0, i);
  if (has_nan(b)) return {0, 0, -1, -1};
  const B factor = static_cast<B>(static_cast<double>(in.width + 2 * in.padding) / static_cast<double>(in.width));
  Pasted p;
  grow(b.x1, b.x2, factor, &p.x1, &p.x2);
  grow(b.y1, b.y2, factor, &p.y1, &p.y2);
  return p;
}

BOXOPS_HD Pasted pasted(const PasteInput& in, int64_t i) {
  return compute_type(in.boxes.dtype) == DType::kFloat64 ? pasted_as<double>(in, i) : pasted_as<float>(in, i);
}

// The `size` padded values of one axis, resized to [first, last].
template <class T>
struct Resized {
  int64_t first, size;
  T scale;

  BOXOPS_HD Resized(int64_t first, int64_t last, int64_t size)
      : first(first), size(size), scale(static_cast<T>(size) / static_cast<T>(max_of<int64_t>(last - first + 1, 1))) {}

  // A pixel lies between value `low` and the next one; sets the weight of the next one.
  BOXOPS_HD int64_t low(int64_t pixel, T* weight) const {
    const T at = max_of(scale * (static_cast<T>(pixel - first) + T(0.5)) - T(0.5), T(0));
    const int64_t i = min_of(static_cast<int64_t>(at), size - 1);
    *weight = at - static_cast<T>(i);
    return i;
  }
};

template <class T>
BOXOPS_HD T blend(T a, T b, T weight) {
  return (T(1) - weight) * a + weight * b;
}

// Value (y, x) of a padded mask.
template <class T>
BOXOPS_HD T padded_value(const PasteInput& in, int64_t i, int64_t y, int64_t x) {
  y -= in.padding, x -= in.padding;
  if (y < 0 || y >= in.height || x < 0 || x >= in.width) return T(0);
  return load<T>(in.masks, in.dtype, i * in.mask_stride + y * in.row_stride + x * in.column_stride);
}

// Selects, in 8 bytes of masks, the bits that make an element not zero: a float's sign does not.
inline uint64_t truth_bits(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
    case DType::kBFloat16: return 0x7fff7fff7fff7fff;
    case DType::kFloat32: return 0x7fffffff7fffffff;
    case DType::kFloat64: return 0x7fffffffffffffff;
    default: return ~uint64_t(0);
  }
}

}  // namespace boxops
