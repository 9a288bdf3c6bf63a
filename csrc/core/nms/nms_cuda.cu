// Greedy NMS on the device, in O(N) memory and with a number of launches known beforehand: order.cuh finds the order of
// the boxes, greedy.cuh (of very many boxes many.cuh) says in it which are kept, and here these are listed. Some
// thousands of boxes take 3 launches.
//
// The kernels are templates on what is held of a box: Upright<T>, or RotatedBox<T> for rotated NMS.
#include "nms/many.cuh"
#include "nms/resolve.cuh"

namespace boxops::cuda {
namespace {

template <class S>
size_t workspace_of(const NmsInput& input, int64_t limit) {
  Workspace w(nullptr);
  const Greedy<S> s(w, input, Rounds(input, limit), !by_counting(input));
  if constexpr (kCostly<S>) return w.used();
  Workspace other(nullptr);
  const Many<typename S::Scalar> many(other, input, !by_counting(input));
  return max_of(w.used(), are_many(input, limit) ? other.used() : 0);  // which of the two, the threshold says
}

template <class S, class T = typename S::Scalar>
int run(const NmsInput& input, T threshold, const PaddedOptions& options, bool pad, int64_t* indices, int64_t* counts,
        void* workspace, void* stream) {
  const int64_t limit = options.max_output;
  const bool one = input.boxes.batch == 1 && !input.has_groups;
  const auto order = [&](const Ordered<S>& s) {
    return by_counting(input) ? count<S>(input, options, s, stream) : sort<S>(input, options, s, stream);
  };
  Workspace w(workspace);
  if constexpr (!kCostly<S>) {
    if (are_many(input, limit) && threshold >= T(kLeastGridded)) {
      const Many<T> s(w, input, !by_counting(input), threshold);
      BOXOPS_TRY(order(s));
      BOXOPS_TRY(keep_of_many(s, one ? limit : s.n, Threshold(threshold), stream));
      return emit(s, input, limit, pad, indices, counts, stream);
    }
  }
  const Rounds rounds(input, limit);
  const Greedy<S> s(w, input, rounds, !by_counting(input));
  if (s.n > 0) {
    BOXOPS_TRY(order(s));
    BOXOPS_TRY(greedy(s, rounds, limit, Threshold(threshold), one ? Listing{indices, counts, pad} : Listing{}, stream));
    if (one) return cudaSuccess;
  }
  return emit(s, input, limit, pad, indices, counts, stream);
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
