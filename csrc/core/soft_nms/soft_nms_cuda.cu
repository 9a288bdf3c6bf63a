// Soft NMS on the device: a block per group takes boxes until none is left, several in a round.
//
// In a round every warp names the best of its boxes, and the block the best of all others, the bound. Scores never
// rise, but for negative ones, which stay at or below 0. So as long as the best of the named boxes, decayed by those
// taken in this round, is above 0 and comes before the bound, it is the box to take: warp 0 settles this among the
// named ones alone, and then all threads decay all boxes by those taken. Neighbours in the order of the scores are
// dealt to different warps. The groups' lists are merged by sorting: a box comes right after those of its group before
// it, and its key is the latest of theirs and its own.
//
// Floor: the pairs, about 30 operations each, by one multiprocessor per group.
#include "common/warp.cuh"
#include "nms/segments.cuh"
#include "soft_nms/soft_nms.h"

namespace boxops::cuda {
namespace {

constexpr int kMaxThreads = 512;
constexpr int kMaxWarps = kMaxThreads / 32;

// A score and whose it is; the order of taking.
template <class T>
using Bid = Indexed<T>;

template <class T>
struct SoftState {
  Segments segments;
  Shape<T>* boxes;   // by place: a segment's boxes, dealt to warps
  T* scores;         // by place
  int64_t* indices;  // by place
  // By segment and order of taking:
  int64_t* taken;  // indices; -1: none
  T* taken_scores;
  Bid<T>* latest;  // of the segment so far

  SoftState(Workspace& w, int64_t n)
      : segments(w, n),
        boxes(w.take<Shape<T>>(n)),
        scores(w.take<T>(n)),
        indices(w.take<int64_t>(n)),
        taken(w.take<int64_t>(n)),
        taken_scores(w.take<T>(n)),
        latest(w.take<Bid<T>>(n)) {}
};

template <class T>
struct ScoreKey {
  NmsInput input;
  T threshold;
  __device__ uint64_t operator()(int64_t i) const {
    const T score = load_score<T>(input.scores, i);
    return falling_key(score > threshold ? score : std::numeric_limits<T>::quiet_NaN());
  }
};
struct GroupKey {
  Scalars groups;
  __device__ uint64_t operator()(int64_t i) const { return group_key(groups, 0, i); }
};
template <class T>
struct LatestIndex {
  SoftState<T> s;
  __device__ uint64_t operator()(int64_t i) const {
    return s.taken[i] < 0 ? 0 : static_cast<uint64_t>(s.latest[i].index);
  }
};
template <class T>
struct LatestScore {
  SoftState<T> s;
  __device__ uint64_t operator()(int64_t i) const {
    return falling_key(s.taken[i] < 0 ? std::numeric_limits<T>::quiet_NaN() : s.latest[i].value);
  }
};

// Rank r of a segment of n goes here, so that ranks in a row lie in as many warps.
__device__ int64_t dealt(int64_t r, int64_t n, int threads) {
  const int64_t warps = threads / 32, chunk = r / threads * threads, at = r - chunk;
  return chunk + threads > n ? r : chunk + at % warps * 32 + at / warps;
}

template <bool gaussian, class T>
__device__ T decayed(T score, const Shape<T>& by, const Shape<T>& box, const Decay<T>& decay) {
  const T s = score * decay_weight<gaussian>(iou_of(by, box), decay);
  return s > decay.score_threshold ? s : -std::numeric_limits<T>::infinity();
}

template <class T>
constexpr T kGone = -std::numeric_limits<T>::infinity();

template <class T>
struct TakeShared {
  Bid<T> named[kMaxWarps], second[kMaxWarps];  // each warp's best, and second best
  int64_t named_place[kMaxWarps];
  Shape<T> taken[kMaxWarps];  // in the last round
  int taken_count;
};

// The boxes of a segment, of which thread t owns places t, t + threads, ...
template <class T>
struct Segment {
  int64_t start, n;
  Shape<T>* boxes;
  T* scores;  // kGone: taken, or decayed too far
  int64_t* indices;

  __device__ Segment(const SoftState<T>& s, int64_t segment)
      : start(s.segments.starts[segment]),
        n(s.segments.starts[segment + 1] - start),
        boxes(s.boxes + start),
        scores(s.scores + start),
        indices(s.indices + start) {}

  __device__ void load(const NmsInput& input, T score_threshold, const SoftState<T>& s) const {
    const int threads = static_cast<int>(blockDim.x);
    for (int64_t r = threadIdx.x; r < n; r += threads) {
      const int64_t i = s.segments.order[start + r], to = dealt(r, n, threads);
      const T score = load_score<T>(input.scores, i);
      boxes[to] = shape_of<Measure::kIoU>(load_box<T>(input.boxes, 0, i));
      scores[to] = score > score_threshold ? score : kGone<T>;
      indices[to] = i;
      s.taken[start + r] = -1;
    }
  }
};

// Decays what is left by what the last round took, and names the two best of each warp's boxes.
template <bool gaussian, class T>
__device__ void name_best(const Segment<T>& segment, const Decay<T>& decay, TakeShared<T>& shared) {
  const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), warp = t / 32;
  const int taken = shared.taken_count;
  Bid<T> best = Bid<T>::none(), next = Bid<T>::none();
  int64_t place = 0;
  for (int64_t i = t; i < segment.n; i += threads) {
    T score = segment.scores[i];
    if (!(score > kGone<T>)) continue;
    if (taken > 0) {
      const Shape<T> box = segment.boxes[i];
      for (int k = 0; k < taken; ++k) score = decayed<gaussian>(score, shared.taken[k], box, decay);
      segment.scores[i] = score;
    }
    const Bid<T> bid{score, score > kGone<T> ? segment.indices[i] : Bid<T>::kNone};
    if (bid.before(best)) next = best, best = bid, place = i;
    else if (bid.before(next)) next = bid;
  }
  const Bid<T> first = warp_first(best), second = warp_first(first.index == best.index ? next : best);
  place = __shfl_sync(kFullMask, place, first_lane(first.index == best.index));
  if (t % 32 == 0) shared.named[warp] = first, shared.second[warp] = second, shared.named_place[warp] = place;
}

template <class T>
__device__ Shape<T> shuffle(const Shape<T>& box, int lane) {
  return {{__shfl_sync(kFullMask, box.x1, lane), __shfl_sync(kFullMask, box.y1, lane),
           __shfl_sync(kFullMask, box.x2, lane), __shfl_sync(kFullMask, box.y2, lane)},
          __shfl_sync(kFullMask, box.area, lane),
          T(0)};
}

// The first warp, a lane for each of the named boxes, takes them in order as long as the best comes before the bound.
// Returns how many; `at` is where the results go, and `latest` the last of the segment's in the order of the scores.
template <bool gaussian, class T>
__device__ int take_named(const Segment<T>& segment, const Decay<T>& decay, const SoftState<T>& s, int64_t at,
                          Bid<T>* latest, TakeShared<T>& shared) {
  const int warps = static_cast<int>(blockDim.x) / 32, lane = static_cast<int>(threadIdx.x);
  Bid<T> own = lane < warps ? shared.named[lane] : Bid<T>::none();
  const Bid<T> bound = warp_first(lane < warps ? shared.second[lane] : Bid<T>::none());
  const int64_t place = lane < warps ? shared.named_place[lane] : 0;
  Shape<T> box{{T(0), T(0), T(0), T(0)}, T(0), T(0)};
  if (own.value > kGone<T>) box = segment.boxes[place];
  int k = 0;
  for (; k < warps; ++k) {
    const Bid<T> bid = warp_first(own);
    if (!(bid.value > kGone<T>) || (k > 0 && !(bid.value > T(0) && bid.before(bound)))) break;
    const int from = first_lane(own.index == bid.index);
    const Shape<T> by = shuffle(box, from);
    if (latest->before(bid)) *latest = bid;
    if (lane == from) {
      s.taken[at + k] = own.index, s.taken_scores[at + k] = own.value, s.latest[at + k] = *latest;
      shared.taken[k] = by, segment.scores[place] = kGone<T>;
      own.value = kGone<T>;
    } else if (own.value > kGone<T>) {
      own.value = decayed<gaussian>(own.value, by, box, decay);
    }
    if (!(own.value > kGone<T>)) own = Bid<T>::none();
  }
  if (lane == 0) shared.taken_count = k;
  return k;
}

// A block takes the boxes of one segment after another.
template <bool gaussian, class T>
__global__ void __launch_bounds__(kMaxThreads)
    take_kernel(NmsInput input, Decay<T> decay, SoftState<T> s, int64_t* count) {
  __shared__ TakeShared<T> shared;
  for (int64_t index = blockIdx.x; index < *s.segments.count; index += gridDim.x) {
    const Segment<T> segment(s, index);
    segment.load(input, decay.score_threshold, s);
    if (threadIdx.x == 0) shared.taken_count = 0;
    __syncthreads();
    int64_t done = 0;  // in the first warp
    Bid<T> latest{-kGone<T>, -1};
    do {
      name_best<gaussian>(segment, decay, shared);
      __syncthreads();
      if (threadIdx.x < 32) done += take_named<gaussian>(segment, decay, s, segment.start + done, &latest, shared);
      __syncthreads();
    } while (shared.taken_count > 0);
    if (threadIdx.x == 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(count), static_cast<unsigned long long>(done));
    __syncthreads();
  }
}

__global__ void clear_kernel(int64_t* count) { *count = 0; }

// A thread writes one result; `order` null: the results are in order.
template <class T>
__global__ void emit_kernel(SoftState<T> s, const int64_t* order, const int64_t* count, int64_t* kept, T* kept_scores) {
  for (const int64_t i : grid_stride(*count)) {
    const int64_t from = order == nullptr ? i : order[i];
    kept[i] = s.taken[from], kept_scores[i] = s.taken_scores[from];
  }
}

template <class T>
int take_all(const NmsInput& input, const Decay<T>& decay, int64_t* kept, T* kept_scores, int64_t* count,
             void* workspace, void* stream) {
  const int64_t n = input.boxes.count;
  const int score_bits = static_cast<int>(8 * sizeof(T));
  Workspace w(workspace);
  const SoftState<T> s(w, n);
  BOXOPS_TRY(launch(clear_kernel, 1, 1, stream, count));
  if (n == 0) return cudaSuccess;
  BOXOPS_TRY(sort_by(ScoreKey<T>{input, decay.score_threshold}, nullptr, score_bits, s.segments, stream));
  if (input.has_groups) {
    const int bits = static_cast<int>(8 * size_of(input.groups.dtype));
    BOXOPS_TRY(sort_by(GroupKey{input.groups}, s.segments.order, bits, s.segments, stream));
  }
  BOXOPS_TRY(launch(starts_kernel, 1, kCompactThreads, stream, s.segments, !input.has_groups));
  const unsigned blocks = input.has_groups ? static_cast<unsigned>(min_of<int64_t>(n, 1024)) : 1;
  const unsigned threads = static_cast<unsigned>(min_of<int64_t>(kMaxThreads, blocks_of(n, 32) * 32));
  BOXOPS_TRY(decay.gaussian ? launch(take_kernel<true, T>, blocks, threads, stream, input, decay, s, count)
                            : launch(take_kernel<false, T>, blocks, threads, stream, input, decay, s, count));
  if (input.has_groups) {
    BOXOPS_TRY(sort_by(LatestIndex<T>{s}, nullptr, bits_of(n), s.segments, stream));
    BOXOPS_TRY(sort_by(LatestScore<T>{s}, s.segments.order, score_bits, s.segments, stream));
  }
  return launch(emit_kernel<T>, grid_x(blocks_of(n, kSegmentThreads)), kSegmentThreads, stream, s,
                input.has_groups ? s.segments.order : nullptr, count, kept, kept_scores);
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
