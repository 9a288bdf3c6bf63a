// Takes the boxes of a large segment, up to 256 at a time, in rounds: less work than steps.cuh where few meet. A
// cluster does it, if there are: its blocks select from and decay the boxes that are their own; the window, which few
// threads settle, all of them settle alike, so that nobody waits for it.
//
//   scores   | . x . x x . x . . x . |   of the segment's boxes
//   offered  | 1 4 . | 0 5 . | 2 3 . |   the best of each block's
//   best     | 0 1 2 3 4 5 |             a window: the best of them, by falling score; what is behind its last waits
//   settled  | x x . x . x |             round by round, by a thread each
//   boxes    | 0 3 1 5 |                 those, in the order of taking, which then decay all that is not in the window
//
// Scores above 0 never rise. So a box settles, its score final, when it comes before all unsettled ones that it
// overlaps and before what is behind the window. A settled box decays another one when it comes before all unsettled
// ones that the other overlaps. Thus boxes far apart settle in one round, and yet each is decayed by its neighbours in
// the order of taking, to the bit. Scores of at most 0 may rise: of these the best alone is the window.
//
// Floor: the pairs that overlap, some 50 operations each.
#pragma once

#include "common/cluster.cuh"
#include "soft_nms/segment.cuh"

namespace boxops::cuda {
namespace {
namespace rounds {

constexpr int kWindow = kAtOnce, kWords = kWindow / 32, kParts = kThreads / kWindow;
constexpr int kOffered = 2 * kWindow;  // by all blocks: twice as many as are wanted, since these are not dealt evenly

template <class T>
struct Window {
  Best best;
  Upright<T> boxes[kWindow];
  Cells<T, kWords> cells;
  union {
    unsigned overlapped[kWords][kWindow];  // bits of the boxes that decay box t, or are decayed by it, and have not yet
    Rank offers[kOffered];
  };
  T initial[kWindow];  // scores, falling: none comes to be above its own
  // In this round and the next; of the settled ones, bits.
  T scores[2][kWindow];
  unsigned settled[2][kWords];
  Bid<T> latest;  // of the segment so far
};

// Puts at most `size` of the best of all blocks into the window's ranks, of which the own block's are there. A block
// offers up to `share`, by rank, in one of two places by turns; of those behind the last one that it offers nobody
// knows. Returns how many are in, and sets `waiting` where there may be others.
template <class T>
__device__ int merge(const Segment<T>& segment, int own, int share, int size, int turn, const SoftState<T>& s,
                     bool* waiting, Window<T>& window) {
  const int t = static_cast<int>(threadIdx.x), blocks = static_cast<int>(segment.blocks);
  int64_t* const offered = s.offered + segment.start + turn * kOffered;
  T* const scores = s.offered_scores + segment.start + turn * kOffered;
  if (t < share) {
    const int64_t place = t < own ? window.best.ranks[t].pair : -1;
    const int to = static_cast<int>(segment.rank) * share + t;
    offered[to] = place, scores[to] = t < own ? segment.scores[place] : kGone<T>;
  }
  cluster_sync();
  T score = kGone<T>;
  Rank rank = Rank::none();
  if (t < blocks * share) {
    score = scores[t], rank = rank_of(score, offered[t]);
    window.offers[t] = rank;
  }
  __syncthreads();
  int at = 0;
  Rank last = Rank::none();  // of those that all know of
  for (int b = 0; b < blocks; ++b) {
    const Rank* const offers = window.offers + b * share;
    if (offers[share - 1].before(last)) last = offers[share - 1];
    at += partition_point(share, [&](int i) { return offers[i].before(rank); });
  }
  const bool in = score > kGone<T> && !last.before(rank) && at < size;
  if (in) window.best.ranks[at] = rank, window.initial[at] = score;
  const int n = __syncthreads_count(in);
  *waiting = n == size || last.before(Rank::none());
  return n;
}

// Puts at most `size` of the best into the window; returns how many, and whether others wait.
template <class T>
__device__ int fill(const Segment<T>& segment, int size, int turn, const SoftState<T>& s, bool* waiting,
                    Window<T>& window) {
  const bool alone = segment.blocks == 1;
  const int t = static_cast<int>(threadIdx.x), wanted = alone ? size : 2 * size / static_cast<int>(segment.blocks);
  int n = static_cast<int>(take_best(static_cast<uint32_t>(segment.most_own()), static_cast<uint32_t>(wanted),
                                     RankAt<T>{segment}, window.best));
  if (alone) *waiting = n == size;
  else n = merge(segment, n, wanted, size, turn, s, waiting, window);
  T score = T(0);
  clear(window.best);
  if (t < kWords) window.settled[0][t] = 0;
  if (t < n) {
    const int64_t place = window.best.ranks[t].pair;
    const Shape<T> box = segment.boxes[place];
    window.boxes[t] = {box}, score = alone ? segment.scores[place] : window.initial[t];
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
      if (k != i && decays<gaussian>(other, box, decay)) bits |= left & -left;
    }
    window.overlapped[word][i] = bits;
  }
}

// The first of those that box t overlaps, among the settled ones or the others, and its bid; -1: none. `words`: of its
// bits, those that are not all 0.
template <class T>
__device__ int first_overlapped(unsigned words, bool settled, int round, const Window<T>& window, Bid<T>* bid) {
  int first = -1;
  *bid = Bid<T>::none();
  for (; words != 0; words &= words - 1) {
    const int word = __ffs(static_cast<int>(words)) - 1;
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
  unsigned words = 0;
  int open = -1;  // the first that is not settled, and its bid
  Bid<T> open_bid, bid;
  for (int round = 0, first = 1; __syncthreads_or(again); round ^= 1, first = 0) {
    again = false;
    if (word * 32 >= n) continue;
    for (int w = 0; first && w * 32 < n && t < n; ++w) words |= unsigned(window.overlapped[w][t] != 0) << w;
    if (!settled && own->value > T(0)) {
      if (first || (open >= 0 && (window.scores[round][open] != open_bid.value ||
                                  (window.settled[round][open / 32] >> open % 32 & 1))))
        open = first_overlapped(words, false, round, window, &open_bid);
      for (int k; own->value > T(0) && (k = first_overlapped(words, true, round, window, &bid)) >= 0;) {
        if (!bid.before(open_bid)) break;
        own->value = decayed<gaussian, T>(own->value, window.boxes[k], window.boxes[t], decay);
        if ((window.overlapped[k / 32][t] &= ~(1u << k % 32)) == 0) words &= ~(1u << k / 32);
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
    const Bid<T> taken{own.value, s.segments.order[segment.start + own.index]};
    if (latest.before(taken)) latest = taken;
    if (segment.rank == 0)
      s.taken[to + at] = taken.index, s.taken_scores[to + at] = taken.value, s.latest[to + at] = latest;
    window.boxes[at] = {box};
    if (at + 1 == count) window.latest = latest;
  }
  __syncthreads();
  return static_cast<int>(count);
}

// The blocks take all boxes of a segment; returns how many.
template <bool gaussian, class T>
__device__ int64_t take_segment(const Segment<T>& segment, const Box<T>& hull, const Decay<T>& decay,
                                const SoftState<T>& s, Window<T>& window) {
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) window.latest = {-kGone<T>, -1}, window.cells.fit(hull);
  __syncthreads();
  int64_t done = 0;
  int size = kWindow, turn = 0;
  bool waiting;
  for (int n; (n = fill(segment, size, turn, s, &waiting, window)) > 0; turn ^= 1) {
    Bid<T> own = Bid<T>::none(), bound = own;
    if (t < n) own = {window.initial[t], window.best.ranks[t].pair};
    const bool owns = t < n && segment.owns(own.index);
    if (owns) segment.scores[own.index] = kGone<T>;
    if (waiting) bound = {window.initial[n - 1], window.best.ranks[n - 1].pair};
    compare<gaussian>(n, decay, window);
    const bool settled = n == 1 ? t == 0 : settle<gaussian>(n, bound, decay, window, &own);
    const int taken = list(settled, own, segment, s, segment.start + done, window);
    decay_rest<gaussian>(segment, window.boxes, taken, decay, window.cells);
    __syncthreads();
    if (owns && !settled) segment.scores[own.index] = own.value;
    __syncthreads();
    done += taken;
    size = min_of(kWindow, static_cast<int>(blocks_of(2 * taken, 32)) * 32);  // no larger than what pays
  }
  return done;
}

}  // namespace rounds
}  // namespace
}  // namespace boxops::cuda
