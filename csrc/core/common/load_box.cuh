// Boxes of float32, packed and aligned, in one access of 16 bytes; others as load_box does.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/geometry.h"

namespace boxops::cuda {

template <class T>
BOXOPS_HD_RARE Box<T> load_any_box(const Boxes& boxes, int64_t batch, int64_t i) {
  return load_box<T>(boxes, batch, i);
}

// `called`: others by a function of their own, where a kernel loads several and would hold load's switch many times.
template <class T, bool called = false>
__device__ Box<T> load_box_at_once(const Boxes& boxes, int64_t batch, int64_t i) {
  if constexpr (sizeof(T) == sizeof(float))
    if (boxes.dtype == DType::kFloat32 && boxes.coord_stride == 1 &&
        ((boxes.box_stride | boxes.batch_stride) % 4 == 0) &&
        reinterpret_cast<uintptr_t>(boxes.data) % sizeof(float4) == 0) {
      const int64_t at = batch * boxes.batch_stride + i * boxes.box_stride;
      const float4 b = *reinterpret_cast<const float4*>(static_cast<const float*>(boxes.data) + at);
      return to_corners(Box<T>{b.x, b.y, b.z, b.w}, boxes.format);
    }
  return called ? load_any_box<T>(boxes, batch, i) : load_box<T>(boxes, batch, i);
}

}  // namespace boxops::cuda
