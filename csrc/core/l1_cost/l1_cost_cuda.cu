#include "common/cuda_utils.cuh"
#include "l1_cost/l1_cost.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;

// A thread per pair.
template <class T>
__global__ void cost_kernel(Boxes boxes1, Boxes boxes2, T* out) {
  const int64_t n = boxes1.count, m = boxes2.count;
  for (const int64_t at : grid_stride<kThreads>(boxes1.batch * n * m)) {
    const int64_t batch = at / m / n;
    out[at] = l1_cost(load_numbers<T>(boxes1, batch, at / m % n), load_numbers<T>(boxes2, batch, at % m));
  }
}

}  // namespace

int box_l1_cost(const Boxes& boxes1, const Boxes& boxes2, void* out, void* stream) {
  return with_compute_type(compute_type(boxes1.dtype, boxes2.dtype), [&](auto t) {
    using T = decltype(t);
    const int64_t pairs = boxes1.batch * boxes1.count * boxes2.count;
    return launch(cost_kernel<T>, grid_x(blocks_of(pairs, kThreads)), kThreads, stream, boxes1, boxes2,
                  static_cast<T*>(out));
  });
}

}  // namespace boxops::cuda
