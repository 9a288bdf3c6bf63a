// Copies a strided array to a contiguous one, element by element: for layouts that kernels cannot walk, and for indices
// of other integer types than int64.
#pragma once

#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/portability.h>
#include "common/dtype.h"

namespace boxops {

struct StridedView {
  const void* data;
  int64_t element_size;  // 1, 2, 4 or 8 bytes
  int rank;
  int64_t sizes[16], strides[16];
};

// The element that contiguous place `at` comes from.
BOXOPS_HD int64_t source_of(const StridedView& v, int64_t at) {
  int64_t offset = 0;
  for (int d = v.rank - 1; d >= 0; --d) offset += at % v.sizes[d] * v.strides[d], at /= v.sizes[d];
  return offset;
}

// to[at] = data[from], numbers of `size` bytes: 1, 2, 4 or 8.
BOXOPS_HD void copy_number(int64_t size, const void* data, int64_t from, void* to, int64_t at) {
  switch (size) {
    case 1: static_cast<uint8_t*>(to)[at] = static_cast<const uint8_t*>(data)[from]; break;
    case 2: static_cast<uint16_t*>(to)[at] = static_cast<const uint16_t*>(data)[from]; break;
    case 4: static_cast<uint32_t*>(to)[at] = static_cast<const uint32_t*>(data)[from]; break;
    default: static_cast<uint64_t*>(to)[at] = static_cast<const uint64_t*>(data)[from];
  }
}

BOXOPS_HD void copy_element(const StridedView& v, void* out, int64_t at) {
  copy_number(v.element_size, v.data, source_of(v, at), out, at);
}

// An element of an integer dtype; what no int64 holds becomes the largest.
BOXOPS_HD int64_t load_index(const void* data, DType dtype, int64_t at) {
  const auto value = load<int64_t>(data, dtype, at);
  return dtype == DType::kUInt64 && value < 0 ? INT64_MAX : value;
}

namespace cpu {
BOXOPS_API void copy(const StridedView& from, int64_t numel, void* out, const Parallel& parallel);
BOXOPS_API void copy_indices(const StridedView& from, DType dtype, int64_t numel, int64_t* out,
                             const Parallel& parallel);
}  // namespace cpu
namespace cuda {
BOXOPS_API int copy(const StridedView& from, int64_t numel, void* out, void* stream);
BOXOPS_API int copy_indices(const StridedView& from, DType dtype, int64_t numel, int64_t* out, void* stream);
}  // namespace cuda

}  // namespace boxops
