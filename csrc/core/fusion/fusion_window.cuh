// The clusters of a large part: a block settles up to 128 of its boxes at a time.
//
//   boxes     | x x x x x | . . . . . | . . .     of the part, by falling score: done, the window, to come
//   clusters  | 0 1 2 .. c - 1 |                  that stand when the window begins
//   cluster   | 1 c c+1 1 c |                     of each box of the window, as is guessed: c + k: box k founds it
//   next      | 3 4  -  - - |                     box of the window in the same cluster
//   fused     | . . . . . |                       the fused box of its cluster once it has joined
//
// What a box joins hangs on those before it alone. So all boxes of the window choose at once, each among the clusters
// that stand and the fused boxes of the window which are a cluster's last before it, as the guesses have them. Their
// choices are the next guesses. After a round the first box is right for good, and those that hang on it after the
// next; where nothing changes all are. Few rounds do, for most boxes meet few others.
//
// Of the clusters that stand, each lane of a box knows the best and how good its others are at most. Where the best has
// changed in the window, and the others might matter, the box is not known, and begins the next window.
//
#pragma once

#include "common/cells.cuh"
#include "common/warp.cuh"
#include "fusion/fusion_state.cuh"
#include "nms/settle.cuh"

namespace boxops::cuda {
namespace {

constexpr int kWindow = 128, kWords = kWindow / 32,
              kLanes = kFusionThreads / kWindow;  // kLanes: of a warp, for each box
constexpr int kChunk = 512;                       // clusters that are held against the window at a time

// The boxes and clusters of a part.
template <class T>
struct Part {
  const FusionState<T>& s;
  int n;
  int* members;
  Cluster<T>* clusters;
  Upright<T>* fused;
  int2* ends;
  int* joined;
  uchar4* around;

  // Its space begins at `start`.
  __device__ Part(const FusionState<T>& s, int start, int n)
      : s(s),
        n(n),
        members(s.members + start),
        clusters(s.clusters + start),
        fused(s.fused + start),
        ends(s.ends + start),
        joined(s.joined + start),
        around(s.around + start) {}

  __device__ const FusionBox<T>& box(int64_t i) const { return s.box(members[i]); }

  // Of the boxes that have one, for all threads of the block.
  __device__ Box<T> hull() const {
    Box<T> hull = nowhere<T>();
    for (int64_t i = threadIdx.x; i < n; i += kFusionThreads) {
      const FusionBox<T>& b = box(i);
      if (b.model >= 0 && farthest(b) < std::numeric_limits<T>::infinity()) hull = hull_of<T>(hull, b);
    }
    return block_hull<kFusionThreads>(hull);
  }
};

// What a box must reach over to have an IoU > t with box b: it begins before this one's end, and ends behind its
// beginning. For with the overlap o along an axis IoU <= o / width, so that o >= t width, less some ulps; these
// are taken off where areas keep their precision, elsewhere it is all of b. (Sums are rounded, but so that what was not
// larger than a coordinate does not become so.)
template <class T>
__device__ Box<T> core_of(const Upright<T>& b, T t) {
  using Limits = std::numeric_limits<T>;
  if (!(t * b.area >= Limits::min() / Limits::epsilon() && b.area < Limits::infinity())) return b;
  const T part = t * (T(1) - 64 * Limits::epsilon()), w = part * (b.x2 - b.x1), h = part * (b.y2 - b.y1);
  return {b.x1 + w, b.y1 + h, b.x2 - w, b.y2 - h};
}

// A thread is a lane of one of the window's boxes.
__device__ int own_box() { return static_cast<int>(threadIdx.x) / kLanes; }
__device__ int own_lane() { return static_cast<int>(threadIdx.x) % kLanes; }

struct Guesses {
  alignas(16) int cluster[kWindow], next[kWindow];  // -1: none, takes no part; kWindow: none
};

// Of a cluster once a box of the window has joined it.
template <class T>
struct Sums {
  T corners[4], conf, weight;
  int count;
  int mean;  // the box of the window with the sums that the fused box is the mean of; -1: it is as it was before
};

template <class T>
struct Window {
  FusionBox<T> boxes[kWindow];
  Upright<T> shapes[kWindow], fused[kWindow];
  Sums<T> sums[kWindow];
  Cells<T, kWords> cells;                    // of shapes
  unsigned noted[kWindow][kChunk / 32 + 1];  // bits of fused boxes, zeros once they are read; one more for banks
  Guesses guesses[2];                        // of this round and the next
  unsigned founders[kWords];                 // bits of boxes
  int end;                                   // the first box that is not known

  // Puts the boxes from the part's `from` on in. Says whether any takes part.
  __device__ bool load(const Part<T>& part, int64_t from) {
    const int t = static_cast<int>(threadIdx.x);
    bool used = false;
    if (t < kWindow) {
      FusionBox<T> b{nowhere<T>(), T(0), T(0), -1, 0};
      if (from + t < part.n) b = part.box(from + t);
      used = b.model >= 0;
      boxes[t] = b;
      shapes[t] = {shape_of<Measure::kIoU>(used ? Box<T>(b) : nowhere<T>())};
      guesses[0].cluster[t] = guesses[0].next[t] = -1;
    }
    if (t < kWords) founders[t] = 0;
    if (t == 0) end = static_cast<int>(min_of<int64_t>(part.n - from, kWindow));
    return __syncthreads_or(used);
  }

  // Where the boxes stand at most that overlap `b` enough.
  __device__ uchar4 around(const Upright<T>& b, const Threshold<T>& threshold) const {
    int at[4];
    cells.around(core_of(b, threshold.value), at);
    return {static_cast<uint8_t>(at[0]), static_cast<uint8_t>(at[1]), static_cast<uint8_t>(at[2]),
            static_cast<uint8_t>(at[3])};
  }

  // A thread notes for the boxes [first, last), which are of one word, that the fused box `b`, number i, overlaps them
  // enough.
  __device__ void note(const Upright<T>& b, uchar4 around, int i, int first, int last, const Threshold<T>& threshold) {
    const int at[] = {around.x, around.y, around.z, around.w}, word = first / 32;
    unsigned bits = cells.near(word, at) & bits_between(first - word * 32, last - word * 32);
    for (; bits != 0; bits &= bits - 1) {
      const int k = word * 32 + __ffs(static_cast<int>(bits)) - 1;
      const T inter = quick_intersection<T>(b, shapes[k]);
      if (inter > T(0) && exceeds(inter, b, shapes[k], threshold)) atomicOr(&noted[k][i / 32], 1u << i % 32);
    }
  }

  // A lane of a box calls visit(i, IoU) for its part of the n fused boxes noted, i rising, and forgets them.
  template <class Visit>
  __device__ void visit_noted(const Upright<T>* fused, int n, Visit visit) {
    const int k = own_box();
    auto* const bytes = reinterpret_cast<uint8_t*>(noted[k]);
    for (int byte = own_lane(); byte * 8 < n; byte += kLanes) {
      unsigned bits = bytes[byte];
      if (bits != 0) bytes[byte] = 0;
      for (; bits != 0; bits &= bits - 1) {
        const int i = byte * 8 + __ffs(static_cast<int>(bits)) - 1;
        visit(i, iou_of<true, T>(fused[i], shapes[k]));
      }
    }
  }
};

template <class T>
using Best = Indexed<T>;  // an IoU above the threshold and the cluster's id; kNone: with none, the threshold's

// Of the clusters that stand, those that a lane has looked at.
template <class T>
struct Standing {
  Best<T> best;
  T rest;  // the IoU of the next; the threshold: none has more
};

template <class T>
__device__ Standing<T> find_standing(const Part<T>& part, int64_t count, const Threshold<T>& threshold,
                                     Window<T>& window) {
  Standing<T> own{{threshold.value, Best<T>::kNone}, threshold.value};
  for (int64_t first = 0; first < count; first += kChunk) {
    const int n = static_cast<int>(min_of<int64_t>(count - first, kChunk));
    const Upright<T>* const fused = part.fused + first;
    int pieces =
        kWords;  // that the window is cut into: each of a few clusters, too, is held against it by many threads
    while (pieces < kWindow && 2 * n * pieces <= kFusionThreads) pieces *= 2;
    for (int item = static_cast<int>(threadIdx.x); item < n * pieces; item += kFusionThreads) {
      const int i = item / pieces, from = item % pieces * (kWindow / pieces);
      window.note(fused[i], part.around[first + i], i, from, from + kWindow / pieces, threshold);
    }
    __syncthreads();
    window.visit_noted(fused, n, [&](int i, T iou) {
      if (iou > own.best.value) own.rest = own.best.value, own.best = {iou, first + i};
      else if (iou > own.rest) own.rest = iou;
    });
    __syncthreads();
  }
  return own;
}

// A lane of a box looks after every fourth four of the window's boxes: that of bit b.
__device__ int box_of(int b) { return 4 * (own_lane() + kLanes * (b / 4)) + b % 4; }

// Those before the lane's own box which it sees as the last of their clusters, as bits.
__device__ unsigned last_ones(const Guesses& guesses) {
  const int k = own_box();
  unsigned bits = 0;
  for (int b = 0; box_of(b) < k; b += 4) {
    const int j = box_of(b);
    const int4 next = *reinterpret_cast<const int4*>(guesses.next + j);
    const unsigned four = (next.x >= k) | (next.y >= k) << 1 | (next.z >= k) << 2 | (next.w >= k) << 3;
    bits |= (four & lowest(k - j)) << b;
  }
  return bits;
}

template <class T>
struct Choice {
  int cluster;
  bool known;
  T iou;
};

// The lanes of box k choose by the guesses, where `count` clusters stand.
template <class T>
__device__ Choice<T> choose(const Part<T>& part, const Standing<T>& standing, int count, const Threshold<T>& threshold,
                            const Guesses& guesses, Window<T>& window) {
  const int k = own_box();
  Best<T> best = standing.best;
  T rest = threshold.value;
  if (best.index != Best<T>::kNone) {
    const int first = part.joined[best.index];
    if (first < k && guesses.cluster[first] == best.index)
      best = {threshold.value, Best<T>::kNone}, rest = standing.rest;
  }
  for (unsigned bits = last_ones(guesses); bits != 0; bits &= bits - 1) {
    const int j = box_of(__ffs(static_cast<int>(bits)) - 1);
    const T inter = quick_intersection<T>(window.fused[j], window.shapes[k]);
    if (!(inter > T(0) && exceeds(inter, window.fused[j], window.shapes[k], threshold))) continue;
    const Best<T> other{iou_of<true, T>(window.fused[j], window.shapes[k]), guesses.cluster[j]};
    if (other.before(best)) best = other;
  }
  for (int bits = 1; bits < kLanes; bits *= 2) {
    const Best<T> other = shuffle_xor(best, bits);
    if (other.before(best)) best = other;
    rest = max_of(rest, shuffle_xor(rest, bits));
  }
  const int id = best.index == Best<T>::kNone ? count + k : static_cast<int>(best.index);
  return {window.boxes[k].model < 0 ? -1 : id, !(rest > threshold.value && rest >= best.value), best.value};
}

// The last box before a lane's own with the same guess; -1: none.
__device__ int previous(const Guesses& guesses) {
  const int k = own_box(), own = guesses.cluster[k];
  int found = -1;
  for (int j = 4 * own_lane(); j < k; j += 4 * kLanes) {
    const int4 four = *reinterpret_cast<const int4*>(guesses.cluster + j);
    if (four.x == own) found = j;
    if (four.y == own && j + 1 < k) found = j + 1;
    if (four.z == own && j + 2 < k) found = j + 2;
    if (four.w == own && j + 3 < k) found = j + 3;
  }
  for (int bits = 1; bits < kLanes; bits *= 2) found = max_of(found, shuffle_xor(found, bits));
  return found;
}

// Coordinate i of a box.
template <class T>
__device__ T corner_of(const Box<T>& b, int i) {
  static_assert(sizeof(Box<T>) == 4 * sizeof(T), "four coordinates");
  return reinterpret_cast<const T*>(&b)[i];
}

// The lanes of the first box of the window, k, that has its cluster add up all those that have it, as join does, but a
// corner each.
template <class T>
__device__ void add_up(const Part<T>& part, int count, const Guesses& guesses, Window<T>& window) {
  const int k = own_box(), lane = own_lane(), id = guesses.cluster[k];
  Sums<T> own{{}, T(0), T(0), 0, -1};
  T corner(0);
  if (id < count) {
    const Cluster<T>& c = part.clusters[id];
    corner = corner_of(c.sum, lane), own.conf = c.conf, own.weight = c.weight, own.count = static_cast<int>(c.count);
  }
  for (int j = k; j < kWindow; j = guesses.next[j]) {
    const FusionBox<T>& b = window.boxes[j];
    corner += b.score * corner_of(b, lane), own.conf += b.score;
    if (own.conf != T(0) && id != count + j) own.mean = j;  // a cluster of one box is that
    window.sums[j].corners[lane] = corner;
    if (lane == 0) window.sums[j].conf = own.conf, window.sums[j].mean = own.mean;
    if (lane == 1) window.sums[j].weight = own.weight += b.weight, window.sums[j].count = ++own.count;
  }
}

// The fused box of its cluster once box k of the window has joined it.
template <class T>
__device__ Box<T> fused_box(const Part<T>& part, int k, int count, const Guesses& guesses, const Window<T>& window) {
  const int id = guesses.cluster[k], mean = window.sums[k].mean;
  if (mean < 0) return id < count ? part.clusters[id].box : Box<T>(window.boxes[id - count]);
  const Sums<T>& sums = window.sums[mean];
  return Mean<T>{{sums.corners[0], sums.corners[1], sums.corners[2], sums.corners[3]}, sums.conf}.box();
}

template <class T>
struct Settled {
  int round;      // of the guesses that are right
  bool is_first;  // whether box k is its cluster's first in the window
  T iou;          // by which it joined
};

// Settles the window, up to window.end.
template <class T>
__device__ Settled<T> settle(const Part<T>& part, const Standing<T>& standing, int count, const Threshold<T>& threshold,
                             Window<T>& window) {
  const int k = own_box();
  const bool leads = own_lane() == 0;
  bool is_first = false;
  for (int round = 0;; round ^= 1) {
    const Choice<T> choice = choose(part, standing, count, threshold, window.guesses[round], window);
    const bool changed = choice.cluster != window.guesses[round].cluster[k];
    Guesses& guesses = window.guesses[round ^ 1];
    if (leads) guesses.cluster[k] = choice.cluster, guesses.next[k] = choice.cluster < 0 ? -1 : kWindow;
    if (!__syncthreads_or(changed)) {
      if (leads && !choice.known) atomicMin(&window.end, k);
      return {round, is_first, choice.iou};
    }
    const int before = previous(guesses);
    is_first = choice.cluster >= 0 && before < 0;
    if (leads && choice.cluster >= 0) {
      if (before >= 0) guesses.next[before] = k;
      else if (choice.cluster < count) part.joined[choice.cluster] = k;
    }
    __syncthreads();
    if (is_first) add_up(part, count, guesses, window);
    __syncthreads();
    if (leads && choice.cluster >= 0)
      window.fused[k] = {shape_of<Measure::kIoU>(fused_box(part, k, count, guesses, window))};
    __syncthreads();
  }
}

// How many of the bits before `bit` are set.
__device__ int bits_before(const unsigned (&words)[kWords], int bit) {
  int count = 0;
  for (int word = 0; word < kWords; ++word) count += __popc(words[word] & bits_between(0, bit - 32 * word));
  return count;
}

// Keeps what has settled of the window, which begins at box `from`. Returns how many boxes, and counts the new
// clusters.
template <class T>
__device__ int keep(const Part<T>& part, int from, const Settled<T>& settled, const FusionRule<T>& options,
                    const Threshold<T>& threshold, int* count, Window<T>& window) {
  const int k = own_box();
  const bool leads = own_lane() == 0;
  const Guesses& guesses = window.guesses[settled.round];
  const int stood = *count, id = guesses.cluster[k];
  __syncthreads();
  const int end = window.end;
  const bool stays = leads && k < end && id >= 0, founds = stays && id == stood + k;
  const int position = stays ? part.members[from + k] : 0;
  if (founds) atomicOr(&window.founders[k / 32], 1u << k % 32), part.s.clear_models(position, options);
  __syncthreads();
  for (int word = 0; word < kWords; ++word) *count += __popc(window.founders[word]);
  if (stays) {
    const int next = guesses.next[k], after = next < end ? part.members[from + next] : part.s.end();
    const int first = id < stood ? part.ends[id].x : part.members[from + id - stood];
    part.s.record(window.boxes[k], position, first, after, window.fused[k], settled.iou);
    part.s.note_model(first, window.boxes[k].model, options);
    if (settled.is_first && id < stood) part.s.next[part.ends[id].y] = position;
  }
  __syncthreads();
  if (stays && guesses.next[k] >= end) {  // the last that joins
    const int founder = id - stood, to = founder < 0 ? id : stood + bits_before(window.founders, founder);
    const Sums<T>& sums = window.sums[k];
    Cluster<T> c = founder < 0 ? part.clusters[id] : found(window.boxes[founder]);
    c.box = fused_box(part, k, stood, guesses, window);
    c.sum = {sums.corners[0], sums.corners[1], sums.corners[2], sums.corners[3]};
    c.conf = sums.conf, c.weight = sums.weight, c.count = sums.count;
    part.clusters[to] = c;
    if (founder >= 0) part.joined[to] = 0, part.ends[to].x = part.members[from + founder];
    part.ends[to].y = position;
    part.fused[to] = window.fused[k], part.around[to] = window.around(window.fused[k], threshold);
  }
  __syncthreads();
  return end;
}

// A block goes on with a part, of which `from` boxes have made `count` clusters.
template <class T>
__device__ void fuse_rest(const Part<T>& part, int from, int count, const FusionRule<T>& options,
                          const Threshold<T>& threshold, Window<T>& window) {
  const int t = static_cast<int>(threadIdx.x);
  const Box<T> hull = part.hull();
  if (t == 0) window.cells.fit(hull);
  __syncthreads();
  if (t < count) part.around[t] = window.around(part.fused[t], threshold);
  for (int i = t; i < kWindow * (kChunk / 32); i += kFusionThreads)
    window.noted[i / (kChunk / 32)][i % (kChunk / 32)] = 0;
  while (from < part.n) {
    if (!window.load(part, from)) {
      from += kWindow;
      continue;
    }
    window.cells.build(window.shapes, kWindow);
    __syncthreads();
    const Standing<T> standing = find_standing(part, count, threshold, window);
    const Settled<T> settled = settle(part, standing, count, threshold, window);
    from += keep(part, from, settled, options, threshold, &count, window);
  }
  for (int c = t; c < count; c += kFusionThreads) part.s.finish(part.clusters[c], part.ends[c].x, options);
  __syncthreads();
}

}  // namespace
}  // namespace boxops::cuda
