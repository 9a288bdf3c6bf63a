#include "common/cuda_utils.cuh"
#include "roi/rois.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 256;

// A thread per box of one image.
template <class T>
__global__ void rois_kernel(Boxes boxes, int64_t image, T* rows) {
  for (const int64_t i : grid_stride<kThreads>(boxes.count)) put_roi(boxes, i, image, rows + 5 * i);
}

}  // namespace

// A launch for each image: they are few.
int boxes_to_rois(const Boxes* boxes, int64_t images, DType dtype, void* rois, void* stream) {
  return with_compute_type(dtype, [&](auto t) {
    using T = decltype(t);
    auto* rows = static_cast<T*>(rois);
    for (int64_t image = 0; image < images; rows += 5 * boxes[image++].count)
      BOXOPS_TRY(launch(rois_kernel<T>, grid_x(blocks_of(boxes[image].count, kThreads)), kThreads, stream, boxes[image],
                        image, rows));
    return static_cast<int>(cudaSuccess);
  });
}

}  // namespace boxops::cuda
