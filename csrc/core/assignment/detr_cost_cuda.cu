// DETR's matching costs on the device: a warp per query finds the softmax's maximum and sum, then a thread per cost.
#include "assignment/detr_cost.h"
#include "common/cuda_utils.cuh"
#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 128;

template <class T>
struct Softmax {
  T *max, *sum;  // [batch, queries]

  Softmax(Workspace& w, const DetrCostInput& in)
      : max(w.take<T>(in.focal ? 0 : in.batch * in.queries)), sum(w.take<T>(in.focal ? 0 : in.batch * in.queries)) {}
};

// A warp takes one query after another.
template <class T>
__global__ void __launch_bounds__(kThreads) softmax_kernel(DetrCostInput in, Softmax<T> s) {
  const int lane = threadIdx.x % 32;
  for (const int64_t i : grid_stride<kThreads, 32>(in.batch * in.queries)) {
    const int64_t first = logit_at(in, i / in.queries, i % in.queries, 0);
    T max = -std::numeric_limits<T>::infinity(), sum = T(0);
    for (int64_t c = lane; c < in.classes; c += 32)
      max = max_of(max, load<T>(in.logits, in.logits_dtype, first + c * in.class_stride));
    max = warp_max(max);
    for (int64_t c = lane; c < in.classes; c += 32)
      sum += std::exp(load<T>(in.logits, in.logits_dtype, first + c * in.class_stride) - max);
    sum = warp_sum(sum);
    if (lane == 0) s.max[i] = max, s.sum[i] = sum;
  }
}

// The image that owns ground truth g.
__device__ int64_t image_of(const Ragged& ragged, int64_t g) {
  return partition_point(ragged.batch - 1, [&](int64_t b) { return ragged.at(b + 1) <= g; });
}

// Thread (x, y): one query, one ground truth after another.
template <class T>
__global__ void __launch_bounds__(kThreads) cost_kernel(DetrCostInput in, Softmax<T> s, T* out) {
  const T class_weight = static_cast<T>(in.class_weight), box_weight = static_cast<T>(in.box_weight),
          giou_weight = static_cast<T>(in.giou_weight);
  for (int64_t g = blockIdx.y; g < in.ragged.total; g += gridDim.y) {
    const int64_t b = image_of(in.ragged, g), label = label_of(in, g);
    const Box<T> gt = load_numbers<T>(in.gt_boxes, 0, g);
    const Shape<T> gt_shape = shape_of<Measure::kGIoU>(to_corners(gt, in.gt_boxes.format));
    for (const int64_t q : grid_stride<kThreads>(in.queries)) {
      const T logit = load<T>(in.logits, in.logits_dtype, logit_at(in, b, q, label));
      const T class_cost = in.focal ? focal_cost(logit, std::exp(-std::abs(logit)))
                                    : -(std::exp(logit - s.max[b * in.queries + q]) / s.sum[b * in.queries + q]);
      const Box<T> box = load_numbers<T>(in.boxes, b, q);
      const T giou =
          measure_of<Measure::kGIoU>(gt_shape, shape_of<Measure::kGIoU>(to_corners(box, in.boxes.format)), T(0), T(0));
      out[g * in.queries + q] = detr_cost_of(class_weight, box_weight, giou_weight, class_cost, l1_of(gt, box), giou);
    }
  }
}

}  // namespace

size_t detr_cost_workspace(const DetrCostInput& in) {
  Workspace w(nullptr);
  with_compute_type(compute_type_of(in), [&](auto t) { Softmax<decltype(t)>(w, in); });
  return w.used();
}

int detr_cost(const DetrCostInput& in, void* out, void* workspace, void* stream) {
  return with_compute_type(compute_type_of(in), [&](auto t) -> int {
    using T = decltype(t);
    Workspace w(workspace);
    const Softmax<T> s(w, in);
    if (in.ragged.total == 0 || in.queries == 0) return cudaSuccess;
    if (!in.focal)
      BOXOPS_TRY(
          launch(softmax_kernel<T>, grid_x(blocks_of(in.batch * in.queries, kThreads / 32)), kThreads, stream, in, s));
    const dim3 grid(grid_x(blocks_of(in.queries, kThreads)), grid_yz(in.ragged.total));
    return launch(cost_kernel<T>, grid, kThreads, stream, in, s, static_cast<T*>(out));
  });
}

}  // namespace boxops::cuda
