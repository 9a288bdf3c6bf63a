// Greedy NMS on the device, in O(N) memory and with a number of launches known beforehand: order.cuh finds the order of
// the boxes, greedy.cuh (of very many boxes many.cuh) says in it which are kept, and here these are listed. Some
// thousands of boxes take 3 launches, up to 256 one (few.cuh).
//
// The kernels are templates on what is held of a box: Upright<T>, or RotatedBox<T> for rotated NMS.
#include "common/select.cuh"
#include "nms/few.cuh"
#include "nms/many.cuh"
#include "nms/resolve.cuh"

namespace boxops::cuda {
namespace {

// Block b takes image b.
constexpr int kFewThreads = 1024;
template <class T>
__global__ void __launch_bounds__(kFewThreads) few_kernel(NmsInput input, PaddedOptions options, bool pad,
                                                          Threshold<T> threshold, int64_t* indices, int64_t* counts) {
  __shared__ Few<T> few;
  __shared__ uint64_t groups[kFew];
  const int64_t b = blockIdx.x, limit = options.max_output;
  const int n = static_cast<int>(take_best(
      static_cast<uint32_t>(input.boxes.count), kFew,
      [&](uint32_t i) {
        const bool in = !options.has_score_threshold || score_exceeds(input.scores, b, i, options.score_threshold);
        return in ? Rank{score_key(input.scores, b, i), i} : Rank::none();
      },
      few.best));
  load_boxes(
      n,
      [&](int64_t i) {
        if (input.has_groups) groups[threadIdx.x] = group_key(input.groups, b, i);
        Upright<T> box;
        fetch(input.boxes, b, i, &box);
        return box;
      },
      few);
  __syncthreads();
  compare(n, threshold, few, [&](int i, int first) {
    unsigned same = 0;
    if (!input.has_groups) return ~same;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) same |= static_cast<unsigned>(groups[first + c] == groups[i]) << c;
    return same;
  });
  __syncthreads();
  settle(n, limit, few);
  __syncthreads();
  const Settled own = settled(few);
  const int64_t written = min_of<int64_t>(own.all, limit);
  if (own.kept && own.before < limit) indices[b * limit + own.before] = few.best.ranks[threadIdx.x].pair;
  if (pad)
    for (int64_t i = written + threadIdx.x; i < limit; i += kFewThreads) indices[b * limit + i] = -1;
  if (threadIdx.x == 0) counts[b] = written;
}

inline bool are_few(const NmsInput& input) { return input.boxes.count <= kFew; }

// Whether one block would take long to list what is kept of an image.
inline bool listed_by_many(const NmsInput& input) { return input.boxes.batch == 1 && input.boxes.count > 4096; }

struct IsKept {
  const uint8_t* keep;
  __device__ bool operator()(int64_t rank) const { return keep[rank] != 0; }
};
struct IndexOf {
  const int64_t* order;
  __device__ int64_t operator()(int64_t rank) const { return order[rank]; }
};

// Writes the kept indices; `w`: behind `s`.
template <class S>
int list(const Ordered<S>& s, const NmsInput& input, int64_t limit, bool pad, int64_t* indices, int64_t* counts,
         Workspace w, void* stream) {
  if (pad || !listed_by_many(input)) return emit(s, input, limit, pad, indices, counts, stream);
  return select(s.n, IsKept{s.keep}, indices, counts, w.take<char>(0), stream, IndexOf{s.order});
}

template <class S>
size_t workspace_of(const NmsInput& input, int64_t limit) {
  using Grid = std::conditional_t<kCostly<S>, NoGrid, KeptGrid>;  // whether there is one, the threshold says
  Workspace w(nullptr);
  if (are_many(input)) const Many<S, Grid> s(w, input, true);
  else const Greedy<S> s(w, input, Rounds(input, limit), !by_counting(input));
  return w.used() + (listed_by_many(input) ? select_workspace(input.boxes.count) : 0);
}

template <class S, class Grid>
int run_many(const NmsInput& input, typename S::Scalar threshold, const PaddedOptions& options, bool pad,
             int64_t* indices, int64_t* counts, void* workspace, void* stream) {
  Workspace w(workspace);
  const Many<S, Grid> s(w, input, true, threshold);
  const int64_t limit = input.boxes.batch == 1 && !input.has_groups ? options.max_output : s.n;
  BOXOPS_TRY(sort<S>(input, options, s, stream));
  BOXOPS_TRY(keep_of_many(s, limit, Threshold(threshold), stream, s.places));
  return list(s, input, options.max_output, pad, indices, counts, w, stream);
}

template <class S, class T = typename S::Scalar>
int run(const NmsInput& input, T threshold, const PaddedOptions& options, bool pad, int64_t* indices, int64_t* counts,
        void* workspace, void* stream) {
  const int64_t limit = options.max_output;
  const bool one = input.boxes.batch == 1 && !input.has_groups;
  if constexpr (!kCostly<S>) {
    if (are_few(input))
      return launch(few_kernel<T>, static_cast<unsigned>(input.boxes.batch), kFewThreads, stream, input, options, pad,
                    Threshold(threshold), indices, counts);
    if (are_many(input) && threshold >= T(kLeastGridded))
      return run_many<S, KeptGrid>(input, threshold, options, pad, indices, counts, workspace, stream);
  }
  if (are_many(input)) return run_many<S, NoGrid>(input, threshold, options, pad, indices, counts, workspace, stream);
  const Rounds rounds(input, limit);
  Workspace w(workspace);
  const Greedy<S> s(w, input, rounds, !by_counting(input));
  if (s.n > 0) {
    BOXOPS_TRY(by_counting(input) ? count<S>(input, options, s, stream) : sort<S>(input, options, s, stream));
    BOXOPS_TRY(greedy(s, rounds, limit, Threshold(threshold), one ? Listing{indices, counts, pad} : Listing{}, stream));
    if (one) return cudaSuccess;
  }
  return list(s, input, limit, pad, indices, counts, w, stream);
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
