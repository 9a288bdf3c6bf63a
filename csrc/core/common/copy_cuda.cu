#include "common/copy.h"
#include "common/cuda_utils.cuh"

namespace boxops::cuda {
namespace {

// A thread per element.
__global__ void copy_kernel(StridedView from, int64_t numel, void* out) {
  for (const int64_t i : grid_stride(numel)) copy_element(from, out, i);
}

__global__ void copy_indices_kernel(StridedView from, DType dtype, int64_t numel, int64_t* out) {
  for (const int64_t i : grid_stride(numel)) out[i] = load_index(from.data, dtype, source_of(from, i));
}

}  // namespace

int copy(const StridedView& from, int64_t numel, void* out, void* stream) {
  return launch(copy_kernel, grid_x(blocks_of(numel, 256)), 256, stream, from, numel, out);
}

int copy_indices(const StridedView& from, DType dtype, int64_t numel, int64_t* out, void* stream) {
  return launch(copy_indices_kernel, grid_x(blocks_of(numel, 256)), 256, stream, from, dtype, numel, out);
}

}  // namespace boxops::cuda
