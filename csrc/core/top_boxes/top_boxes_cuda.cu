#include "common/select.cuh"
#include "top_boxes/top_boxes.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct IsAbove {
  Worth<T> worth;
  T least;
  __device__ bool operator()(int64_t i) const { return worth(i) > least; }
};

// A thread per kept box.
template <class T>
__global__ void values_kernel(Worth<T> worth, const int64_t* kept, const int64_t* count, T* values) {
  for (const int64_t k : grid_stride<kThreads>(*count)) values[k] = worth(kept[k]);
}

}  // namespace

size_t top_boxes_workspace(int64_t count) { return select_workspace(count); }

int top_boxes(const Boxes& boxes, const Scalars& scores, double min_score, TopMethod method, int64_t* kept,
              void* values, int64_t* count, void* workspace, void* stream) {
  return with_compute_type(compute_type(boxes.dtype, scores.dtype), [&](auto t) {
    using T = decltype(t);
    const Worth<T> worth{boxes, scores, method};
    BOXOPS_TRY(select(boxes.count, IsAbove<T>{worth, static_cast<T>(min_score)}, kept, count, workspace, stream));
    return launch(values_kernel<T>, grid_x(blocks_of(boxes.count, kThreads)), kThreads, stream, worth, kept, count,
                  static_cast<T*>(values));
  });
}

}  // namespace boxops::cuda
