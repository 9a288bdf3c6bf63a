// Soft NMS on the device: a block per group takes boxes, up to 256 at a time, until none is left.
//
//   scores   | . x . x x . x . . x . |   of the group's boxes
//   best     | 0 1 2 3 4 5 |             a window: the best of them, by falling score; what is behind its last waits
//   settled  | x x . x . x |             round by round, by a thread each
//   boxes    | 0 3 1 5 |                 those, in the order of taking, which then decay all that is not in the window
//
// Scores above 0 never rise. So a box settles, its score final, when it comes before all unsettled ones that it
// overlaps and before what is behind the window. A settled box decays another one when it comes before all unsettled
// ones that the other overlaps. Thus boxes far apart settle in one round, and yet each is decayed by its neighbours in
// the order of taking, to the bit. Scores of at most 0 may rise: of these the best alone is the window.
//
// The groups' lists are merged by sorting: a box comes right after those of its group before it, and its key is the
// latest of theirs and its own.
//
// Floor: the pairs that overlap, some 50 operations each, by one multiprocessor per group.
#include "common/best_ranks.cuh"
#include "common/cells.cuh"
#include "common/warp.cuh"
#include "nms/overlap.cuh"
#include "nms/segments.cuh"
#include "soft_nms/soft_nms.h"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWindow = kAtOnce, kWords = kWindow / 32, kParts = kThreads / kWindow;

// A score and whose it is; the order of taking.
template <class T>
using Bid = Indexed<T>;

template <class T>
struct SoftState {
  Segments segments;
  Upright<T>* boxes;  // by place: segment by segment, by rising index
  T* scores;          // by place; kGone: taken, in the window, or decayed too far
  // By segment and order of taking:
  int64_t* taken;  // indices; -1: none
  T* taken_scores;
  Bid<T>* latest;  // of the segment so far

  bool grouped;
  __device__ int64_t index_of(int64_t place) const { return grouped ? segments.order[place] : place; }

  SoftState(Workspace& w, int64_t n, bool grouped)
      : segments(w, n),
        boxes(w.take<Upright<T>>(n)),
        scores(w.take<T>(n)),
        taken(w.take<int64_t>(n)),
        taken_scores(w.take<T>(n)),
        latest(w.take<Bid<T>>(n)),
        grouped(grouped) {}
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

template <class T>
constexpr T kGone = -std::numeric_limits<T>::infinity();

template <bool gaussian, class T>
__device__ T decayed(T score, const Shape<T>& by, const Shape<T>& box, const Decay<T>& decay) {
  const T s = score * decay_weight<gaussian>(iou_of(by, box), decay);
  return s > decay.score_threshold ? s : kGone<T>;
}

// The boxes of a segment, of which thread t owns places t, t + kThreads, ...
template <class T>
struct Segment {
  int64_t start, n;
  Upright<T>* boxes;
  T* scores;

  __device__ Segment(const SoftState<T>& s, int64_t segment)
      : start(s.segments.starts[segment]),
        n(s.segments.starts[segment + 1] - start),
        boxes(s.boxes + start),
        scores(s.scores + start) {}

  // Returns the hull of all boxes; one that overlaps nothing becomes the empty one without area.
  __device__ Box<T> load(const NmsInput& input, T score_threshold, const SoftState<T>& s) const {
    __shared__ Box<T> hulls[kThreads / 32];
    constexpr T inf = std::numeric_limits<T>::infinity();
    const Box<T> nothing{inf, inf, -inf, -inf};
    Box<T> hull = nothing;
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      const int64_t index = s.index_of(start + i);
      const T score = load_score<T>(input.scores, index);
      Shape<T> box = shape_of<Measure::kIoU>(load_box<T>(input.boxes, 0, index));
      if (!(box.area > T(0) && farthest(box) < inf)) box = {nothing, T(0), T(0)};
      boxes[i] = {box};
      scores[i] = score > score_threshold ? score : kGone<T>;
      s.taken[start + i] = -1;
      hull = {min_of(hull.x1, box.x1), min_of(hull.y1, box.y1), max_of(hull.x2, box.x2), max_of(hull.y2, box.y2)};
    }
    const int lane = static_cast<int>(threadIdx.x) % 32;
    hull = warp_hull(hull);
    if (lane == 0) hulls[threadIdx.x / 32] = hull;
    __syncthreads();
    return warp_hull(lane < kThreads / 32 ? hulls[lane] : nothing);
  }
};

template <class T>
__device__ bool meet(const Box<T>& a, const Box<T>& b) {
  return (a.x1 < b.x2) & (b.x1 < a.x2) & (a.y1 < b.y2) & (b.y1 < a.y2);
}

template <class T>
struct Window {
  Best best;
  Upright<T> boxes[kWindow];
  Cells<T, kWords> cells;
  unsigned overlapped[kWords][kWindow];  // bits of the boxes that decay box t, or are decayed by it, and have not yet
  T initial[kWindow];                    // scores, falling: none comes to be above its own
  // In this round and the next; of the settled ones, bits.
  T scores[2][kWindow];
  unsigned settled[2][kWords];
  Bid<T> latest;  // of the segment so far
};

// Puts at most `size` of the best into the window; returns how many.
template <class T>
__device__ int fill(const Segment<T>& segment, uint32_t size, Window<T>& window) {
  const int n = static_cast<int>(take_best(
      static_cast<uint32_t>(segment.n), size,
      [&](uint32_t i) {
        const T score = segment.scores[i];
        return score > kGone<T> ? Rank{falling_key(score), i} : Rank::none();
      },
      window.best));
  const int t = static_cast<int>(threadIdx.x);
  T score = T(0);
  clear(window.best);
  if (t < kWords) window.settled[0][t] = 0;
  if (t < n) {
    const int64_t place = window.best.ranks[t].pair;
    const Shape<T> box = segment.boxes[place];
    window.boxes[t] = {box}, score = segment.scores[place];
    window.initial[t] = window.scores[0][t] = score;
  }
  const int above_zero = __syncthreads_count(score > T(0));
  return above_zero > 0 ? above_zero : min_of(n, 1);
}

// Finds `overlapped` of n boxes: kParts threads for each.
template <bool gaussian, class T>
__device__ void compare(int n, const Decay<T>& decay, Window<T>& window) {
  window.cells.build(window.boxes, n);
  __syncthreads();
  const int i = static_cast<int>(threadIdx.x) % kWindow, part = static_cast<int>(threadIdx.x) / kWindow;
  if (i >= n) return;
  const Shape<T> box = window.boxes[i];
  int at[4];
  window.cells.around(box, at);
  for (int word = part; word * 32 < n; word += kParts) {
    unsigned bits = 0;
    for (unsigned left = window.cells.near(word, at); left != 0; left &= left - 1) {
      const int k = word * 32 + __ffs(static_cast<int>(left)) - 1;
      const Shape<T>& other = window.boxes[k];
      if (k != i && meet(other, box) && (gaussian || iou_of(other, box) > decay.iou_threshold)) bits |= left & -left;
    }
    window.overlapped[word][i] = bits;
  }
}

// The first of those that box t of n overlaps, among the settled ones or the others, and its bid; -1: none.
template <class T>
__device__ int first_overlapped(int n, bool settled, int round, const Window<T>& window, Bid<T>* bid) {
  int first = -1;
  *bid = Bid<T>::none();
  for (int word = 0; word * 32 < n; ++word) {
    unsigned left = window.overlapped[word][threadIdx.x];
    for (left &= window.settled[round][word] ^ (settled ? 0 : ~0u); left != 0; left &= left - 1) {
      const int k = word * 32 + __ffs(static_cast<int>(left)) - 1;
      const T initial = window.initial[k], score = window.scores[round][k];
      if (initial < bid->value) return first;  // so are those behind it
      if (score < bid->value) continue;
      const Bid<T> other{score, window.best.ranks[k].pair};
      if (other.before(*bid)) first = k, *bid = other;
    }
  }
  return first;
}

// Settles those of n boxes that come before `bound`, a thread each. Says whether the own one has settled, and its
// score.
template <bool gaussian, class T>
__device__ bool settle(int n, const Bid<T>& bound, const Decay<T>& decay, Window<T>& window, Bid<T>* own) {
  const int t = static_cast<int>(threadIdx.x), word = t / 32;
  bool settled = false, again = true;
  int open = -1;  // the first that is not settled, and its bid
  Bid<T> open_bid, bid;
  for (int round = 0, first = 1; __syncthreads_or(again); round ^= 1, first = 0) {
    again = false;
    if (word * 32 >= n) continue;
    if (!settled && own->value > T(0)) {
      if (first || (open >= 0 && (window.scores[round][open] != open_bid.value ||
                                  (window.settled[round][open / 32] >> open % 32 & 1))))
        open = first_overlapped(n, false, round, window, &open_bid);
      for (int k; own->value > T(0) && (k = first_overlapped(n, true, round, window, &bid)) >= 0;) {
        if (!bid.before(open_bid)) break;
        own->value = decayed<gaussian, T>(own->value, window.boxes[k], window.boxes[t], decay);
        window.overlapped[k / 32][t] &= ~(1u << k % 32);
        again = true;
      }
      if (own->value > T(0) && !bound.before(*own) && own->before(open_bid)) settled = again = true;
    }
    if (t < n) window.scores[1 - round][t] = max_of(own->value, T(0));
    const unsigned bits = __ballot_sync(kFullMask, settled);
    if (t % 32 == 0) window.settled[1 - round][word] = bits;
  }
  return settled;
}

// Lists what has settled, in the order of taking, in the window and from place `to` on; returns how many.
template <class T>
__device__ int list(bool settled, const Bid<T>& own, const Segment<T>& segment, const SoftState<T>& s, int64_t to,
                    Window<T>& window) {
  const int t = static_cast<int>(threadIdx.x);
  const uint32_t slot = append(settled, {falling_key(own.value), own.index}, window.best);
  Bid<T> latest = window.latest;
  Shape<T> box;
  if (settled) box = window.boxes[t];
  __syncthreads();
  const uint32_t count = window.best.count;
  find_places(window.best);
  __syncthreads();
  if (settled) {
    const uint32_t at = window.best.places[slot];
    const Bid<T> taken{own.value, s.index_of(segment.start + own.index)};
    if (latest.before(taken)) latest = taken;
    s.taken[to + at] = taken.index, s.taken_scores[to + at] = taken.value, s.latest[to + at] = latest;
    window.boxes[at] = {box};
    if (at + 1 == count) window.latest = latest;
  }
  __syncthreads();
  return static_cast<int>(count);
}

// A thread decays its boxes by `count` of the window's, in their order.
template <bool gaussian, class T>
__device__ void decay_rest(const Segment<T>& segment, int count, const Decay<T>& decay, Window<T>& window) {
  window.cells.build(window.boxes, count);
  __syncthreads();
  for (int64_t i = threadIdx.x; i < segment.n; i += kThreads) {
    T score = segment.scores[i];
    if (!(score > kGone<T>)) continue;
    const Shape<T> box = segment.boxes[i];
    int at[4];
    window.cells.around(box, at);
    unsigned left = 0;
    for (int word = -1; score > kGone<T>; left &= left - 1) {
      while (left == 0 && ++word * 32 < count) left = window.cells.near(word, at);
      if (left == 0) break;
      const Shape<T>& by = window.boxes[word * 32 + __ffs(static_cast<int>(left)) - 1];
      if (meet(by, box)) score = decayed<gaussian>(score, by, box, decay);
    }
    segment.scores[i] = score;
  }
}

// A block takes the boxes of one segment after another.
template <bool gaussian, class T>
__global__ void __launch_bounds__(kThreads)
    take_kernel(NmsInput input, Decay<T> decay, SoftState<T> s, int64_t* count) {
  __shared__ Window<T> window;
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t index = blockIdx.x; index < *s.segments.count; index += gridDim.x) {
    const Segment<T> segment(s, index);
    const Box<T> hull = segment.load(input, decay.score_threshold, s);
    if (t == 0) window.latest = {-kGone<T>, -1}, window.cells.fit(hull);
    __syncthreads();
    int64_t done = 0;
    uint32_t size = kWindow;
    while (const int n = fill(segment, size, window)) {
      Bid<T> own = Bid<T>::none(), bound = own;
      if (t < n) own = {window.initial[t], window.best.ranks[t].pair}, segment.scores[own.index] = kGone<T>;
      if (n == static_cast<int>(size)) bound = {window.initial[n - 1], window.best.ranks[n - 1].pair};
      compare<gaussian>(n, decay, window);
      const bool settled = n == 1 ? t == 0 : settle<gaussian>(n, bound, decay, window, &own);
      const int taken = list(settled, own, segment, s, segment.start + done, window);
      decay_rest<gaussian>(segment, taken, decay, window);
      __syncthreads();
      if (t < n && !settled) segment.scores[own.index] = own.value;
      __syncthreads();
      done += taken;
      size = min_of<uint32_t>(kWindow, blocks_of(2 * taken, 32) * 32);  // no larger than what pays
    }
    if (t == 0) atomicAdd(reinterpret_cast<unsigned long long*>(count), static_cast<unsigned long long>(done));
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
  const SoftState<T> s(w, n, input.has_groups);
  BOXOPS_TRY(launch(clear_kernel, 1, 1, stream, count));
  if (n == 0) return cudaSuccess;
  if (input.has_groups) {
    const int bits = static_cast<int>(8 * size_of(input.groups.dtype));
    BOXOPS_TRY(sort_by(GroupKey{input.groups}, nullptr, bits, s.segments, stream));
  }
  BOXOPS_TRY(launch(starts_kernel, 1, kCompactThreads, stream, s.segments, !input.has_groups));
  const unsigned blocks = input.has_groups ? static_cast<unsigned>(min_of<int64_t>(n, 1024)) : 1;
  BOXOPS_TRY(decay.gaussian ? launch(take_kernel<true, T>, blocks, kThreads, stream, input, decay, s, count)
                            : launch(take_kernel<false, T>, blocks, kThreads, stream, input, decay, s, count));
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
                    [&](auto t) { SoftState<decltype(t)>(w, input.boxes.count, input.has_groups); });
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
