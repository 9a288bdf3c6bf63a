// The greedy pass of NMS on the device: all segments (order.cuh) side by side, in memory that is linear in the boxes.
//
// A round takes the next `chunk` boxes of every segment:
//   1. compare_kernel  each box of the round against the boxes before it in the round, as a bit mask, and against the
//                      kept boxes of the rounds before;
//   2. resolve_kernel  a block per segment goes through the mask in order, and lists the kept boxes.
//
//   places   | 64 g .. 64 g + 63 | 64 (g + 1) ..     | 64 (g + 2) ..     |     groups of 64, whatever the segments
//   segments | a a b b b b c c c | c c c c c c c c c | c c d d d d d d d |
//   mask       word 0 of c: group g;  word 1: g + 1;  word 2: g + 2            bits of the boxes before it in its
//   segment
//
// Block g resolves the segments that begin in group g: those inside it all at once, and then, group by group, the one
// that goes on behind it.
//
// Floor: the pairs, about 14 operations each where boxes do not meet (10 for rotated boxes whose hulls do not, 220 for
// others), and some 0.2 us for each 64 boxes of the longest segment.
#pragma once

#include "common/compact.cuh"
#include "nms/order.cuh"
#include "nms/settle.cuh"

namespace boxops::cuda {
namespace {

constexpr int kMaxChunk = 4096, kMinChunk = 1024;
constexpr int kMaxWords = kMaxChunk / 64 + 1;
constexpr int64_t kTargetBlocks = 16384;  // of compare_kernel

// How many boxes of a segment a round takes, and what it needs; known beforehand on the host.
struct Rounds {
  bool single;      // there is one segment
  int64_t longest;  // no segment has more boxes
  int64_t chunk;
  int64_t rows, words;  // of the mask

  Rounds(const NmsInput& input, int64_t limit) {
    const int64_t n = input.boxes.batch * input.boxes.count;
    single = input.boxes.batch == 1 && !input.has_groups;
    longest = input.has_groups ? min_of(input.boxes.count, input.longest_group) : input.boxes.count;
    chunk = kMaxChunk;
    while (chunk > kMinChunk && chunk / 4 >= limit) chunk /= 2;
    if (!single && n > (1 << 18)) chunk = kMinChunk;  // of memory there is an end
    rows = single ? min_of(n, chunk) : n;
    words = blocks_of(min_of(longest, chunk), 64) + 1;
  }
};

// One round: the boxes [from, to) of every segment.
struct Round {
  int64_t from, to;
  int64_t first;  // the place of the mask's first row and of the first block
  __device__ bool holds(const Span& segment, int64_t place) const {
    return place >= segment.start + from && place < segment.start + to;
  }
};

template <class S>
struct Greedy : Ordered<S> {
  int64_t words;
  Word* mask;           // [rows, words]
  S* kept;              // by place: a segment's kept boxes so far, from its start
  int64_t* kept_count;  // at the start of a segment that more rounds need

  Greedy(Workspace& w, const NmsInput& input, const Rounds& rounds, bool sorts)
      : Ordered<S>(w, input, sorts), words(rounds.words) {
    mask = w.take<Word>(rounds.rows * words);
    const int64_t more = rounds.longest > rounds.chunk ? this->n : 0;
    kept = w.take<S>(more), kept_count = w.take<int64_t>(more);
  }
};

// Block (x, y) holds 64 places, one a thread. Of the first `stripes` values of y each writes every so many-th word of
// their masks; the others share the kept boxes of earlier rounds, which only a segment has that fills the places
// before.
template <class S>
__global__ void __launch_bounds__(64)
    compare_kernel(Greedy<S> s, Round round, int64_t limit, int stripes, Threshold<typename S::Scalar> threshold) {
  __shared__ S columns[64];
  const int t = static_cast<int>(threadIdx.x), stripe = static_cast<int>(blockIdx.y);
  const int64_t first = round.first + int64_t(blockIdx.x) * 64, i = first + t;
  const Span segment = s.segment[first];
  if (round.from > 0 && (segment.end - segment.start <= round.from || s.kept_count[segment.start] >= limit)) return;
  const Span own = s.segment[min_of(i, s.n - 1)];
  const bool in = i < s.n && round.holds(own, i);
  if (!__syncthreads_or(in)) return;
  const S box = s.boxes[min_of(i, s.n - 1)];

  if (stripe < stripes) {
    const bool needed = !kCostly<S> || (in && s.alive[i] != 0);
    const int64_t begin = own.start + round.from, base = begin / 64;
    int64_t word = (round.holds(segment, first) ? segment.start + round.from : first) / 64 + stripe;
    for (; word <= first / 64; word += stripes) {
      __syncthreads();
      columns[t] = s.boxes[min_of(word * 64 + t, s.n - 1)];
      __syncthreads();
      const Word bits =
          needed ? overlapping<false>(columns, box, threshold) & lowest(i - word * 64) & ~lowest(begin - word * 64) : 0;
      if (in && word >= base) s.mask[(i - round.first) * s.words + word - base] = bits;
    }
    return;
  }

  const int64_t kept = s.kept_count[segment.start];
  bool gone = false;
  for (int64_t at = (stripe - stripes) * 64; at < kept; at += int64_t(gridDim.y - stripes) * 64) {
    __syncthreads();
    columns[t] = s.kept[segment.start + min_of(at + t, kept - 1)];
    __syncthreads();
    if (!gone) gone = overlapping<true>(columns, box, threshold) != 0;
  }
  if (in && gone) atomicExch(&s.alive[i], 0);
}

// The segments that begin in one group of 64 places, as far as the round goes; see the figure.
struct Walk {
  int64_t first;  // place
  Word members;   // of the first group
  Word leading;   // of these, the boxes of the segment that goes on behind the group
  Span segment;   // that segment
  int64_t end;    // where it or the round ends
  int groups;     // to go through

  template <class S>
  __device__ Walk(const Greedy<S>& s, const Round& round, int64_t first) : first(first), leading(0), groups(1) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const auto begins_here = [&](int64_t i) {
      if (i >= s.n) return false;
      const Span own = s.segment[i];
      return round.holds(own, i) && own.start + round.from >= this->first;
    };
    const unsigned low = __ballot_sync(kFullMask, begins_here(first + lane));
    members = Word(__ballot_sync(kFullMask, begins_here(first + lane + 32))) << 32 | low;
    if (members == 0) return;
    segment = s.segment[round.from > 0 ? first : min_of(first + 63, s.n - 1)];
    end = min_of(segment.end, segment.start + round.to);
    if (members >> 63 == 0 || end <= first + 64) return;
    leading = ~lowest(segment.start + round.from - first);
    groups = static_cast<int>(blocks_of(end - first, 64));
  }
  __device__ bool holds(int group, int bit) const {
    return group == 0 ? (members >> bit & 1) != 0 : first + group * 64 + bit < end;
  }
};

// What a lane of the first warp needs of its two boxes of a group.
struct Pair {
  Word overlapped[2];  // in the group
  Word previous[2];    // in the group before
  int alive[2];        // as it is in memory: a test would wait for it
  template <class S>
  __device__ void load(const Greedy<S>& s, const Round& round, const Walk& walk, int group) {
    for (int half = 0; half < 2; ++half) {
      const int bit = static_cast<int>(threadIdx.x) % 32 + 32 * half;
      const bool held = walk.holds(group, bit);
      const int64_t i = walk.first + group * 64 + bit;
      const Word* row = s.mask + (i - round.first) * s.words;
      overlapped[half] = held ? row[group] : 0;
      previous[half] = held && group > 0 ? row[group - 1] : 0;
      alive[half] = held ? s.alive[i] : 0;
    }
  }
};

// What 8 threads of the other warps need of a box: the words of its mask but for the last two.
struct Ahead {
  static constexpr int kThreadsPerBox = 8, kWords = 8;
  Word words[kWords];
  template <class S>
  __device__ void load(const Greedy<S>& s, const Round& round, const Walk& walk, int group, int bit, int part) {
    const bool held = group < walk.groups && walk.holds(group, bit);
    const Word* row = s.mask + (walk.first + group * 64 + bit - round.first) * s.words;
#pragma unroll
    for (int k = 0; k < kWords; ++k) {
      const int word = part + kThreadsPerBox * k;
      words[k] = held && word < group - 1 ? row[word] : 0;
    }
  }
  __device__ bool meets(const Word* kept, int count, int part) const {
    Word met = 0;
#pragma unroll
    for (int k = 0; k < kWords; ++k) {
      const int word = part + kThreadsPerBox * k;
      if (word < count) met |= words[k] & kept[word];
    }
    return met != 0;
  }
};
static_assert(Ahead::kThreadsPerBox * Ahead::kWords + 1 >= kMaxWords, "a box's words fit");

// Block g goes through the segments that begin in group g. The first warp settles one group after another; meanwhile
// the others strike, in the next group, what the groups settled before overlap too much; in the end all write.
// Everything that does not hang on a decision is loaded a group ahead.
constexpr int kResolveThreads = 32 + 64 * Ahead::kThreadsPerBox;
template <class S>
__global__ void __launch_bounds__(kResolveThreads) resolve_kernel(Greedy<S> s, Round round, int64_t limit) {
  __shared__ Word kept[kMaxWords];
  __shared__ int64_t before[kMaxWords + 1];  // how many of the segment were kept before a group
  __shared__ bool struck[2][64];
  const int t = static_cast<int>(threadIdx.x), lane = t % 32;
  const int box = (t - 32) / Ahead::kThreadsPerBox, part = (t - 32) % Ahead::kThreadsPerBox;  // but for the first warp
  Walk walk(s, round, round.first + int64_t(blockIdx.x) * 64);
  if (walk.members == 0) return;
  const int64_t prior = round.from > 0 ? s.kept_count[walk.segment.start] : 0;
  if (round.from > 0 && prior >= limit) return;
  const bool unfinished = walk.groups > 1 && walk.segment.end > walk.end;

  const auto own = [&](int group) { return group == 0 ? kept[0] & walk.leading : kept[group]; };
  Pair next;
  Ahead ahead = {};
  Word last = 0;
  if (t < 32) next.load(s, round, walk, 0);
  int groups = walk.groups;
  for (int group = 0; group < groups; ++group) {
    if (t < 32) {
      const Pair pair = next;
      if (group + 1 < walk.groups) next.load(s, round, walk, group + 1);
      const auto out = [&](int half) {
        return pair.alive[half] == 0 || (pair.previous[half] & last) != 0 ||
               (group > 0 && struck[group % 2][lane + 32 * half]);
      };
      const unsigned low = __ballot_sync(kFullMask, out(0)), high = __ballot_sync(kFullMask, out(1));
      last = settle(pair.overlapped, Word(high) << 32 | low);
      if (lane == 0) {
        kept[group] = last;
        if (group == 0) before[0] = prior;
        before[group + 1] = before[group] + __popcll(own(group));
      }
    } else {
      const unsigned met = __ballot_sync(kFullMask, ahead.meets(kept, group, part));
      if (part == 0) struck[(group + 1) % 2][box] = (met >> lane & 0xff) != 0;
      ahead.load(s, round, walk, group + 2, box, part);
    }
    __syncthreads();
    if (walk.groups > 1 && before[group + 1] >= limit) groups = group + 1;  // the segment has enough
  }
#pragma unroll 4
  for (int at = t; at < groups * 64; at += kResolveThreads) {
    const int group = at / 64, bit = at % 64;
    if (!(kept[group] >> bit & 1)) continue;
    const int64_t i = walk.first + at;
    s.keep[s.rank[i]] = 1;
    if (unfinished && (own(group) >> bit & 1))
      s.kept[walk.segment.start + before[group] + __popcll(own(group) & lowest(bit))] = s.boxes[i];
  }
  if (t == 0 && unfinished) s.kept_count[walk.segment.start] = before[groups];
}

template <class S>
int greedy(const Greedy<S>& s, const Rounds& rounds, int64_t limit, const Threshold<typename S::Scalar>& threshold,
           void* stream) {
  for (int64_t from = 0; from < rounds.longest; from += rounds.chunk) {
    const Round round{from, from + rounds.chunk, rounds.single ? from : 0};
    const int64_t groups = blocks_of(rounds.single ? min_of(rounds.chunk, s.n - from) : s.n, 64);
    const int64_t per_group = max_of<int64_t>(kTargetBlocks / groups, 4);
    const int64_t stripes = min_of(rounds.words, per_group), more = from > 0 ? min_of<int64_t>(64, per_group) : 0;
    const auto compare = [&](int64_t stripes, int64_t more) {
      const dim3 blocks(grid_x(groups), static_cast<unsigned>(stripes + more));
      return launch(compare_kernel<S>, blocks, 64, stream, s, round, limit, static_cast<int>(stripes), threshold);
    };
    if (kCostly<S> && more > 0) BOXOPS_TRY(compare(0, more));  // so that the mask is of those still in
    BOXOPS_TRY(compare(stripes, kCostly<S> ? 0 : more));
    BOXOPS_TRY(launch(resolve_kernel<S>, grid_x(groups), kResolveThreads, stream, s, round, limit));
  }
  return cudaSuccess;
}

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
int emit(const Ordered<S>& s, const NmsInput& input, int64_t limit, bool pad, int64_t* indices, int64_t* counts,
         void* stream) {
  return launch(emit_kernel<S>, static_cast<unsigned>(input.boxes.batch), kCompactThreads, stream, s, input.boxes.count,
                limit, pad, indices, counts);
}

}  // namespace
}  // namespace boxops::cuda
