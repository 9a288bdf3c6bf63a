// Greedy NMS on the device, in O(N) memory and with a number of launches known beforehand: order.cuh finds the order of
// the boxes, greedy.cuh says in it which are kept, and here these are listed. Some thousands of boxes take 4 launches.
//
// The kernels are templates on what is held of a box: Upright<T>, or RotatedBox<T> for rotated NMS.
#include "common/compact.cuh"
#include "nms/greedy.cuh"

namespace boxops::cuda {
namespace {

// Block b writes the first `limit` kept indices of image b by falling score, then -1.
template <class S>
__global__ void __launch_bounds__(kCompactThreads)
    emit_kernel(Ordered<S> s, int64_t count, int64_t limit, bool pad, int64_t* indices, int64_t* counts) {
  const int64_t first = int64_t(blockIdx.x) * count;
  int64_t* out = indices + int64_t(blockIdx.x) * limit;
  const int64_t written = compact(
      count, limit, [&](int64_t i) { return s.keep[first + i] != 0; },
      [&](int64_t at, int64_t i) { out[at] = s.order[first + i] - first; });
  if (pad)
    for (int64_t i = written + threadIdx.x; i < limit; i += blockDim.x) out[i] = -1;
  if (threadIdx.x == 0) counts[blockIdx.x] = written;
}

template <class S>
size_t workspace_of(const NmsInput& input, int64_t limit) {
  Workspace w(nullptr);
  const Greedy<S> s(w, input, Rounds(input, limit));
  return w.used();
}

template <class S>
int run(const NmsInput& input, typename S::Scalar threshold, const PaddedOptions& options, bool pad, int64_t* indices,
        int64_t* counts, void* workspace, void* stream) {
  const int64_t limit = options.max_output;
  Workspace w(workspace);
  const Rounds rounds(input, limit);
  const Greedy<S> s(w, input, rounds);
  if (s.n > 0) {
    BOXOPS_TRY(by_counting(input) ? count<S>(input, options, s, stream) : sort<S>(input, options, s, stream));
    BOXOPS_TRY(greedy(s, rounds, limit, Threshold(threshold), stream));
  }
  return launch(emit_kernel<S>, static_cast<unsigned>(input.boxes.batch), kCompactThreads, stream, s, input.boxes.count,
                limit, pad, indices, counts);
}

}  // namespace

size_t nms_workspace(const NmsInput& input, int64_t max_output) {
  return with_compute_type(input.boxes.dtype,
                           [&](auto t) { return workspace_of<Upright<decltype(t)>>(input, max_output); });
}

size_t rotated_nms_workspace(const NmsInput& input) {
  return with_compute_type(input.boxes.dtype,
                           [&](auto t) { return workspace_of<RotatedBox<decltype(t)>>(input, input.boxes.count); });
}

int nms(const NmsInput& input, double iou_threshold, int64_t* keep, int64_t* count, void* workspace, void* stream) {
  return with_compute_type(input.boxes.dtype, [&](auto t) {
    using T = decltype(t);
    const PaddedOptions all{input.boxes.count, false, 0.0};
    return run<Upright<T>>(input, static_cast<T>(iou_threshold), all, false, keep, count, workspace, stream);
  });
}

int rotated_nms(const NmsInput& input, double iou_threshold, int64_t* keep, int64_t* count, void* workspace,
                void* stream) {
  return with_compute_type(input.boxes.dtype, [&](auto t) {
    using T = decltype(t);
    const PaddedOptions all{input.boxes.count, false, 0.0};
    return run<RotatedBox<T>>(input, static_cast<T>(iou_threshold), all, false, keep, count, workspace, stream);
  });
}

int nms_padded(const NmsInput& input, double iou_threshold, const PaddedOptions& options, int64_t* indices,
               int64_t* counts, void* workspace, void* stream) {
  return with_compute_type(input.boxes.dtype, [&](auto t) {
    using T = decltype(t);
    return run<Upright<T>>(input, static_cast<T>(iou_threshold), options, true, indices, counts, workspace, stream);
  });
}

}  // namespace boxops::cuda
