#include <boxops/rotated.h>

#include "common/cuda_utils.cuh"
#include "common/rotated_geometry.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 16;  // rows per block, shared by all its threads

// A block computes kRows x kThreads pairs. First a thread compares its column's hull with those of all rows: it writes
// 0 for pairs apart and queues the others. Then all threads work on the queue, so that a warp has 32 overlaps to
// compute and not one while 31 lanes wait. Which thread takes a pair changes no bit of it.
template <class T>
__global__ void __launch_bounds__(kThreads) pairwise_kernel(Boxes boxes1, Boxes boxes2, T* out) {
  __shared__ RotatedBox<T> rows[kRows], columns[kThreads];
  __shared__ uint16_t queue[kRows * kThreads];
  __shared__ int queued;
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t batch = blockIdx.z; batch < boxes1.batch; batch += gridDim.z) {
    for (int64_t row = int64_t(blockIdx.y) * kRows; row < boxes1.count; row += int64_t(gridDim.y) * kRows) {
      for (int64_t first = int64_t(blockIdx.x) * kThreads; first < boxes2.count;
           first += int64_t(gridDim.x) * kThreads) {
        const int n = static_cast<int>(min_of<int64_t>(kRows, boxes1.count - row));
        const bool has_column = first + t < boxes2.count;
        T* tile = out + (batch * boxes1.count + row) * boxes2.count + first;
        if (t < n) rows[t] = load_rotated_box<T>(boxes1, batch, row + t);
        if (has_column) columns[t] = load_rotated_box<T>(boxes2, batch, first + t);
        if (t == 0) queued = 0;
        __syncthreads();
        if (has_column) {
          const RotatedBox<T> column = columns[t];
          for (int i = 0; i < n; ++i) {
            if (hulls_meet(rows[i], column)) queue[atomicAdd(&queued, 1)] = static_cast<uint16_t>(i * kThreads + t);
            else tile[i * boxes2.count + t] = T(0);
          }
        }
        __syncthreads();
        for (int k = t; k < queued; k += kThreads) {
          const int i = queue[k] / kThreads, j = queue[k] % kThreads;
          tile[i * boxes2.count + j] = iou_of(rows[i], columns[j]);
        }
        __syncthreads();
      }
    }
  }
}

// A thread computes one pair.
template <class T>
__global__ void __launch_bounds__(kThreads) paired_kernel(Boxes boxes1, Boxes boxes2, T* out) {
  const int64_t total = boxes1.batch * boxes1.count;
  for (const int64_t at : grid_stride<kThreads>(total)) {
    const int64_t batch = at / boxes1.count, i = at % boxes1.count;
    out[at] = iou_of(load_rotated_box<T>(boxes1, batch, i), load_rotated_box<T>(boxes2, batch, i));
  }
}

}  // namespace

int rotated_box_iou(const Boxes& boxes1, const Boxes& boxes2, bool paired, void* out, void* stream) {
  return with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    T* to = static_cast<T*>(out);
    if (paired)
      return launch(paired_kernel<T>, grid_x(blocks_of(boxes1.batch * boxes1.count, kThreads)), kThreads, stream,
                    boxes1, boxes2, to);
    const dim3 grid(grid_x(blocks_of(boxes2.count, kThreads)), grid_yz(blocks_of(boxes1.count, kRows)),
                    grid_yz(boxes1.batch));
    return launch(pairwise_kernel<T>, grid, kThreads, stream, boxes1, boxes2, to);
  });
}

}  // namespace boxops::cuda
