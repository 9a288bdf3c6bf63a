// What both ways of taking share: the segments, each a component whose boxes one block takes in the order of ranks, or
// a cluster of blocks; and what was taken.
//
//   places   | 0 1 2 | 3 | 4 5 6 7 |     boxes by segment, by rising index
//   taken    | 2 0 . | 3 | 5 7 4 . |     from a segment's first place on: indices in the order of taking
#pragma once

#include "common/best_ranks.cuh"
#include "common/cells.cuh"
#include "common/compact.cuh"
#include "nms/segments.cuh"
#include "soft_nms/components.cuh"

namespace boxops::cuda {
namespace {

constexpr int kThreads = 512;

// One block lists where the sorted keys change.
__global__ void __launch_bounds__(kCompactThreads) starts_kernel(Segments s) {
  const int64_t count = compact(
      s.n, s.n, [&](int64_t i) { return i == 0 || s.space.sorted[i] != s.space.sorted[i - 1]; },
      [&](int64_t at, int64_t i) { s.starts[at] = i; });
  if (threadIdx.x == 0) s.starts[count] = s.n, *s.count = count;
}

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
  // In a large segment from its first place on: the best of each block of a cluster.
  int64_t* offered;
  T* offered_scores;

  Components components;

  SoftState(Workspace& w, int64_t n)
      : segments(w, n),
        boxes(w.take<Upright<T>>(n)),
        scores(w.take<T>(n)),
        taken(w.take<int64_t>(n)),
        taken_scores(w.take<T>(n)),
        latest(w.take<Bid<T>>(n)),
        offered(w.take<int64_t>(n)),
        offered_scores(w.take<T>(n)),
        components{w.take<unsigned long long>(n)} {}
};

template <class T>
constexpr T kGone = -std::numeric_limits<T>::infinity();

template <bool gaussian, class T>
__device__ T decayed(T score, const Shape<T>& by, const Shape<T>& box, const Decay<T>& decay) {
  const T s = score * decay_weight<gaussian>(iou_of(by, box), decay);
  return s > decay.score_threshold ? s : kGone<T>;
}

// The boxes of a segment. Every 32 of them belong to a warp, those of all blocks that take it in turn.
template <class T>
struct Segment {
  unsigned rank, blocks;  // this block, of so many
  int64_t start, n;
  Upright<T>* boxes;
  T* scores;
  int64_t* places;  // of those in the window, rising

  __device__ Segment(const SoftState<T>& s, int64_t segment, unsigned rank, unsigned blocks)
      : rank(rank),
        blocks(blocks),
        start(s.segments.starts[segment]),
        n(s.segments.starts[segment + 1] - start),
        boxes(s.boxes + start),
        scores(s.scores + start),
        places(s.segments.space.values + start) {}

  // The block's own places: number i of them, behind which others may be.
  __device__ int64_t own(int64_t i) const { return (i / 32 * blocks + rank) * 32 + i % 32; }
  __device__ int64_t most_own() const { return blocks_of(n, 32 * int64_t(blocks)) * 32; }
  __device__ bool owns(int64_t place) const { return place / 32 % blocks == rank; }

  // Returns the hull of the block's boxes; one that overlaps nothing becomes the empty one without area.
  __device__ Box<T> load(const NmsInput& input, T score_threshold, const SoftState<T>& s) const {
    Box<T> hull = nowhere<T>();
    for (int64_t i = own(threadIdx.x); i < n; i += kThreads * int64_t(blocks)) {
      const int64_t index = s.segments.order[start + i];
      const T score = load_score<T>(input.scores, index);
      const Shape<T> box = unless_alone(shape_of<Measure::kIoU>(load_box_at_once<T>(input.boxes, 0, index)));
      boxes[i] = {box};
      scores[i] = score > score_threshold ? score : kGone<T>;
      s.taken[start + i] = -1;
      hull = hull_of<T>(hull, box);
    }
    return block_hull<kThreads>(hull);
  }
};

template <class T>
__device__ Rank rank_of(T score, int64_t place) {
  return score > kGone<T> ? Rank{falling_key(score), place} : Rank::none();
}
// The rank of the block's own box number i. A type of its own, so that one selection serves both ways of taking.
template <class T>
struct RankAt {
  const Segment<T>& segment;
  __device__ Rank operator()(int64_t i) const {
    const int64_t place = segment.own(i);
    return place < segment.n ? rank_of(segment.scores[place], place) : Rank::none();
  }
};

// A thread decays its boxes of the segment by `count` that were taken, in their order; these come into the cells.
template <bool gaussian, class T, class B, class CellsOfWindow>
__device__ void decay_rest(const Segment<T>& segment, const B* taken, int count, const Decay<T>& decay,
                           CellsOfWindow& cells) {
  cells.build(taken, count);
  __syncthreads();
  for (int64_t i = segment.own(threadIdx.x); i < segment.n; i += kThreads * int64_t(segment.blocks)) {
    T score = segment.scores[i];
    if (!(score > kGone<T>)) continue;
    const Shape<T> box = segment.boxes[i];
    int at[4];
    cells.around(box, at);
    unsigned left = 0;
    for (int word = -1; score > kGone<T>; left &= left - 1) {
      while (left == 0 && ++word * 32 < count) left = cells.near(word, at);
      if (left == 0) break;
      const Shape<T>& by = taken[word * 32 + __ffs(static_cast<int>(left)) - 1];
      if (meet(by, box)) score = decayed<gaussian>(score, by, box, decay);
    }
    segment.scores[i] = score;
  }
}

}  // namespace
}  // namespace boxops::cuda
