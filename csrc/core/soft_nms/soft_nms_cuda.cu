// Soft NMS on the device: a block for each component of the boxes that decay each other, or for a large one a cluster,
// takes these until none is left.
//
//   boxes      | 0 1 2 3 4 5 6 7 |
//   segments   | 0 2 5 | 1 | 3 4 6 7 |     components (components.cuh), by their first box
//   taken      | 2 0 . | 1 | 4 7 3 . |     by a block each (steps.cuh), or a cluster (rounds.cuh)
//   kept       | 4 2 1 7 0 3 |             merged by sorting
//
// Boxes of different components never decay each other, so the lists of the components are those of all boxes, but for
// their merging: a box comes right after those of its component before it, and its key is the latest of theirs and its
// own.
#include "soft_nms/rounds.cuh"
#include "soft_nms/segment.cuh"
#include "soft_nms/steps.cuh"

namespace boxops::cuda {
namespace {

constexpr int64_t kMostInSteps = 1024;  // boxes of a segment; of more, few meet each other mostly
static_assert(kMostInSteps >= 2 * rounds::kOffered, "boxops: expected a large segment to have room for two offers");

struct GroupKey {
  Scalars groups;
  __device__ uint64_t operator()(int64_t i) const { return group_key(groups, 0, i); }
};

// What was taken is sorted by its latest bid: in floats by score and index at once, which have 32 bits each (pairs of
// more boxes would take months).
struct LatestBid {
  SoftState<float> s;
  __device__ uint64_t operator()(int64_t i) const {
    if (s.taken[i] < 0) return ~uint64_t(0);
    const Bid<float> latest = s.latest[i];
    return falling_key(latest.value) << 32 | static_cast<uint64_t>(latest.index);
  }
};
struct LatestIndex {
  SoftState<double> s;
  __device__ uint64_t operator()(int64_t i) const {
    return s.taken[i] < 0 ? 0 : static_cast<uint64_t>(s.latest[i].index);
  }
};
struct LatestScore {
  SoftState<double> s;
  __device__ uint64_t operator()(int64_t i) const {
    return falling_key(s.taken[i] < 0 ? std::numeric_limits<double>::quiet_NaN() : s.latest[i].value);
  }
};

int merge(const SoftState<float>& s, void* stream) { return sort_by(LatestBid{s}, nullptr, 64, s.segments, stream); }
int merge(const SoftState<double>& s, void* stream) {
  int64_t* by_index = s.segments.starts;  // these are no longer needed
  BOXOPS_TRY(sort_by(LatestIndex{s}, nullptr, bits_of(s.segments.n), s.segments.space, by_index, stream));
  return sort_by(LatestScore{s}, by_index, 64, s.segments, stream);
}

// A thread takes the box of a segment that has no other. Returns how many that are.
template <class T>
__device__ int64_t take_only(const NmsInput& input, const Segment<T>& segment, T score_threshold,
                             const SoftState<T>& s) {
  const int64_t at = segment.start, index = s.segments.order[at];
  const T score = load_score<T>(input.scores, index);
  const bool in = score > score_threshold;
  if (threadIdx.x == 0) s.taken[at] = in ? index : -1, s.taken_scores[at] = score, s.latest[at] = {score, index};
  return in ? 1 : 0;
}

// The blocks of a cluster call take(index) for one after another of the large segments that are theirs.
template <class Take>
__device__ void for_each_large(const Segments& s, Take take) {
  __shared__ unsigned long long next;
  const int64_t cluster = blockIdx.x / cluster_blocks(), clusters = gridDim.x / cluster_blocks();
  for (int64_t first = cluster; first < *s.count; first += clusters * kThreads) {
    const int64_t own = first + clusters * threadIdx.x;
    bool is_large = own < *s.count && s.starts[own + 1] - s.starts[own] > kMostInSteps;
    while (__syncthreads_or(is_large)) {
      if (threadIdx.x == 0) next = ~0ull;
      __syncthreads();
      if (is_large) atomicMin(&next, static_cast<unsigned long long>(own));
      __syncthreads();
      const int64_t index = static_cast<int64_t>(next);
      is_large &= own != index;
      take(index);
    }
  }
}

// The blocks of a cluster take the boxes of large segments together, and then each those of one other after another.
template <bool gaussian, class T>
__global__ void __launch_bounds__(kThreads)
    take_kernel(NmsInput input, Decay<T> decay, SoftState<T> s, int64_t* count) {
  __shared__ union {
    steps::Window<T> steps;
    rounds::Window<T> rounds;
  } window;
  const auto add = [&](int64_t taken) {
    if (threadIdx.x == 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(count), static_cast<unsigned long long>(taken));
    __syncthreads();
  };
  if (s.segments.n > kMostInSteps)
    for_each_large(s.segments, [&](int64_t index) {
      const Segment<T> segment(s, index, cluster_rank(), cluster_blocks());
      const Box<T> hull = segment.load(input, decay.score_threshold, s);
      const int64_t taken = rounds::take_segment<gaussian>(segment, hull, decay, s, window.rounds);
      add(segment.rank == 0 ? taken : 0);
    });
  for (int64_t index = blockIdx.x; index < *s.segments.count; index += gridDim.x) {
    const Segment<T> segment(s, index, 0, 1);
    if (segment.n == 1) {
      add(take_only(input, segment, decay.score_threshold, s));
    } else if (segment.n <= kMostInSteps) {
      const Box<T> hull = segment.load(input, decay.score_threshold, s);
      add(steps::take_segment<gaussian>(segment, hull, decay, s, window.steps));
    }
  }
}

// A thread writes the parent of one box: itself.
__global__ void clear_kernel(int64_t n, Components components, int64_t* count) {
  for (const int64_t i : grid_stride(n)) components.parents[i] = static_cast<unsigned long long>(i);
  if (blockIdx.x == 0 && threadIdx.x == 0) *count = 0;
}

// A thread writes one result.
template <class T>
__global__ void emit_kernel(SoftState<T> s, const int64_t* count, int64_t* kept, T* kept_scores) {
  for (const int64_t i : grid_stride(*count)) {
    const int64_t from = s.segments.order[i];
    kept[i] = s.taken[from], kept_scores[i] = s.taken_scores[from];
  }
}

template <class T>
int take_all(const NmsInput& input, const Decay<T>& decay, int64_t* kept, T* kept_scores, int64_t* count,
             void* workspace, void* stream) {
  const int64_t n = input.boxes.count;
  const unsigned blocks = grid_x(blocks_of(max_of<int64_t>(n, 1), kSegmentThreads));
  Workspace w(workspace);
  const SoftState<T> s(w, n);
  const Segments& segments = s.segments;
  BOXOPS_TRY(launch(clear_kernel, blocks, kSegmentThreads, stream, n, s.components, count));
  if (n == 0) return cudaSuccess;
  if (input.has_groups) {
    const int bits = static_cast<int>(8 * size_of(input.groups.dtype));
    BOXOPS_TRY(sort_by(GroupKey{input.groups}, nullptr, bits, segments, stream));
  }
  const Places places{n, input.has_groups, segments.order, segments.space.sorted};
  BOXOPS_TRY(unite(input, decay, places, s.components, stream));
  BOXOPS_TRY(sort_by(s.components, nullptr, bits_of(n), segments, stream));
  BOXOPS_TRY(launch(starts_kernel, 1, kCompactThreads, stream, segments));
  const auto take = decay.gaussian ? take_kernel<true, T> : take_kernel<false, T>;
  const int64_t takers = min_of<int64_t>(blocks_of(n, 8), 1024);
  BOXOPS_TRY(n > kMostInSteps ? launch_clusters(take, takers, kThreads, stream, input, decay, s, count)
                              : launch(take, grid_x(takers), kThreads, stream, input, decay, s, count));
  BOXOPS_TRY(merge(s, stream));
  return launch(emit_kernel<T>, blocks, kSegmentThreads, stream, s, count, kept, kept_scores);
}

}  // namespace

size_t soft_nms_workspace(const NmsInput& input) {
  Workspace w(nullptr);
  with_compute_type(compute_type(input.boxes.dtype, input.scores.dtype),
                    [&](auto t) { SoftState<decltype(t)>(w, input.boxes.count); });
  return w.used();
}

int soft_nms(const NmsInput& input, const SoftNmsOptions& options, int64_t* kept, void* kept_scores, int64_t* count,
             void* workspace, void* stream) {
  return with_compute_type(compute_type(input.boxes.dtype, input.scores.dtype), [&](auto t) {
    using T = decltype(t);
    return take_all(input, Decay<T>(options), kept, static_cast<T*>(kept_scores), count, workspace, stream);
  });
}

}  // namespace boxops::cuda
