// Takes the boxes of a segment step by step: the best of each warp's, and of these as many as are sure to be next.
//
//   window   | 0 1 . 3 | 4 . 6 7 | . 9 |     up to 512, by rising place, a thread each
//   bests    | 3       | 6       | 9   |     of each warp; by falling score each is taken, up to the first that comes
//   next     | 1       | 4       | .   |     after some warp's second, or meets one that was taken
//   boxes    | 6 3 ..                        by order of taking: the window decays at once, the rest at its end
//
// Floor: a barrier for each step, and for each box that is taken some 100 instructions of each warp.
#pragma once

#include "soft_nms/segment.cuh"

namespace boxops::cuda {
namespace {
namespace steps {

constexpr int kWindow = kThreads, kWords = kWindow / 32, kWarps = kThreads / 32;

// A thread's box in the window, or a warp's best.
template <class T>
struct Candidate {
  Shape<T> box;
  T score;
  int place;  // -1: none
};

template <class T>
struct Window {
  // Of each warp, in this step and the next: its best, and the score of the one after it.
  Candidate<T> bests[2][kWarps];
  T next[2][kWarps];
  Shape<T> boxes[kWindow];  // of those taken, in their order
  Cells<T, kWords> cells;
};

// Lists the places of the best, rising; returns the last one's rank, behind all if none waits.
template <class T>
__device__ Rank fill(const Segment<T>& segment, int* count) {
  const uint32_t n = static_cast<uint32_t>(segment.n);
  const RankAt<T> rank_at{segment};
  const Rank last = n <= kWindow ? Rank::none() : last_of_best(n, kWindow, rank_at);
  const auto in = [&](int64_t i) {
    const Rank rank = rank_at(i);
    return rank.pair >= 0 && !last.before(rank);
  };
  *count = static_cast<int>(compact(n, kWindow, in, [&](int64_t at, int64_t i) { segment.places[at] = i; }));
  return last;
}

// The first of the lanes in `among` that has their largest score.
template <class T>
__device__ int best_lane(unsigned among, T score) {
  const bool in = among >> threadIdx.x % 32 & 1;
  const T largest = warp_largest(in ? score : kGone<T>);
  return first_lane(in && score == largest);
}

// Step by step, takes the best of all warps, and those after it up to the first that meets one of these or may not be
// the next, for it comes after some warp's second. Returns how many.
template <bool gaussian, class T>
__device__ int take(const Rank& last, const Decay<T>& decay, const SoftState<T>& s, int64_t to, Bid<T>* latest,
                    Candidate<T>& own, Window<T>& window) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const bool waiting = last.before(Rank::none());
  int count = 0;
  for (int step = 0;; step ^= 1) {
    Candidate<T>* bests = window.bests[step];
    const int best = best_lane(kFullMask, own.score);
    const T next = warp_largest(lane == best ? kGone<T> : own.score);
    if (lane == best) bests[warp] = own, window.next[step][warp] = next;
    __syncthreads();
    const bool there = lane < kWarps;
    const T score = there ? bests[lane].score : kGone<T>;
    const Box<T> box = bests[there ? lane : 0].box;
    const T least = max_of(warp_largest(there ? window.next[step][lane] : kGone<T>), T(0));
    const bool may =
        score > kGone<T> &&
        (!waiting || (!last.before({falling_key(score), bests[lane].place}) && (count == 0 || score > T(0))));
    unsigned left = __ballot_sync(kFullMask, may);
    if (left == 0) return count;
    const unsigned sure = __ballot_sync(kFullMask, score > least);
    int k = best_lane(left, score);
    unsigned met = 0;
    do {
      const Shape<T> by = bests[k].box;
      const int place = bests[k].place;
      const Bid<T> taken{bests[k].score, place};
      if (latest->before(taken)) *latest = taken;
      if (own.place == place) {
        own.score = kGone<T>;
        window.boxes[count] = by;
        s.taken[to + count] = place, s.taken_scores[to + count] = taken.value, s.latest[to + count] = *latest;
      } else if (own.score > kGone<T> && meet<T>(by, own.box)) {
        own.score = decayed<gaussian>(own.score, by, own.box, decay);
      }
      ++count;
      left &= ~(1u << k), met |= __ballot_sync(kFullMask, meet<T>(by, box));
      if ((left &= sure) == 0) break;
      k = best_lane(left, score);
    } while (!(met >> k & 1));
  }
}

// Makes indices of the places in the lists of `count` taken, a thread each.
template <class T>
__device__ void list(const SoftState<T>& s, int64_t start, int64_t from, int count) {
  if (static_cast<int>(threadIdx.x) >= count) return;
  const int64_t at = from + threadIdx.x, *order = s.segments.order + start;
  s.taken[at] = order[s.taken[at]], s.latest[at].index = order[s.latest[at].index];
}

// The block takes all boxes of a segment; returns how many.
template <bool gaussian, class T>
__device__ int64_t take_segment(const Segment<T>& segment, const Box<T>& hull, const Decay<T>& decay,
                                const SoftState<T>& s, Window<T>& window) {
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) window.cells.fit(hull);
  __syncthreads();
  Bid<T> latest{-kGone<T>, -1};
  int64_t done = 0;
  for (bool waiting = true; waiting;) {
    int n;
    const Rank last = fill(segment, &n);
    Candidate<T> own{{}, kGone<T>, -1};
    if (t < n) {
      const int place = static_cast<int>(segment.places[t]);
      own = {segment.boxes[place], segment.scores[place], place};
      segment.scores[place] = kGone<T>;
    }
    waiting = last.before(Rank::none());
    const int taken = take<gaussian>(last, decay, s, segment.start + done, &latest, own, window);
    __syncthreads();
    list(s, segment.start, segment.start + done, taken);
    done += taken;
    if (!waiting) break;
    decay_rest<gaussian>(segment, window.boxes, taken, decay, window.cells);
    __syncthreads();
    if (own.score > kGone<T>) segment.scores[own.place] = own.score;
    __syncthreads();
  }
  return done;
}

}  // namespace steps
}  // namespace
}  // namespace boxops::cuda
