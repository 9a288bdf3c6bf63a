// The greedy pass of NMS on the device: all segments (order.cuh) side by side, in memory that is linear in the boxes.
//
// A round takes the next `chunk` boxes of every segment:
//   1. compare_kernel  each box of the round against the boxes before it in the round, as a bit mask, and against the
//                      kept boxes of the rounds before;
//   2. resolve_kernel  (resolve.cuh) a block per segment goes through the mask in order, and writes the kept boxes.
//
//   places   | 64 g .. 64 g + 63 | 64 (g + 1) ..     | 64 (g + 2) ..     |     groups of 64, whatever the segments
//   segments | a a b b b b c c c | c c c c c c c c c | c c d d d d d d d |
//   mask       word 0 of c: group g;  word 1: g + 1;  word 2: g + 2            bits of the boxes before it in its
//   segment
//
// Word by word, a row each box: threads of neighbours write and read side by side.
//
// Floor: the pairs, about 14 operations each where boxes do not meet (10 for rotated boxes whose hulls do not, 220 for
// others), and some 0.2 us for each 64 boxes of the longest segment.
#pragma once

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
    while (chunk > kMinChunk && chunk / 4 >= limit && longest <= 2 * chunk) chunk /= 2;  // four rounds are enough
    if (!single && n > (1 << 18)) chunk = kMinChunk;                                     // of memory there is an end
    const int64_t count = max_of<int64_t>(blocks_of(longest, chunk), 1);
    chunk = 64 * blocks_of(longest, 64 * count);  // rounds of one size have the fewest pairs
    rows = 64 * blocks_of(single ? min_of(n, chunk) : n, 64);
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
  int64_t rows;
  Word* mask;           // [words, rows]
  S* kept;              // by place: a segment's kept boxes so far, from its start
  int64_t* kept_count;  // at the start of a segment that more rounds need

  Greedy(Workspace& w, const NmsInput& input, const Rounds& rounds, bool sorts)
      : Ordered<S>(w, input, sorts), rows(rounds.rows) {
    mask = w.take<Word>(rounds.words * rows);
    const int64_t more = rounds.longest > rounds.chunk ? this->n : 0;
    kept = w.take<S>(more), kept_count = w.take<int64_t>(more);
  }
  __device__ Word* column(int64_t word) const { return mask + word * rows; }
};

// Block (x, y) holds 64 places, two threads each, for the lower and the upper half of 64 columns. Of the first
// `stripes` values of y each writes every so many-th word of their masks; the others share the kept boxes of earlier
// rounds, which only a segment has that fills the places before.
constexpr int kCompareThreads = 128;
template <class S>
__global__ void __launch_bounds__(kCompareThreads)
    compare_kernel(Greedy<S> s, Round round, int64_t limit, int stripes, Threshold<typename S::Scalar> threshold) {
  __shared__ S columns[64];
  const int row = static_cast<int>(threadIdx.x) % 64, half = static_cast<int>(threadIdx.x) / 64;
  const int stripe = static_cast<int>(blockIdx.y);
  const int64_t first = round.first + int64_t(blockIdx.x) * 64, i = first + row;
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
      if (half == 0) columns[row] = s.boxes[min_of(word * 64 + row, s.n - 1)];
      __syncthreads();
      const Word among = needed ? lowest(i - word * 64) & ~lowest(begin - word * 64) : 0;
      const unsigned bits =
          overlapping_of<32, false>(columns + 32 * half, box, threshold, static_cast<unsigned>(among >> 32 * half));
      if (in && word >= base) reinterpret_cast<unsigned*>(s.column(word - base) + i - round.first)[half] = bits;
    }
    return;
  }

  const int64_t kept = s.kept_count[segment.start];
  bool gone = false;
  for (int64_t at = (stripe - stripes) * 64; at < kept; at += int64_t(gridDim.y - stripes) * 64) {
    __syncthreads();
    if (half == 0) columns[row] = s.kept[segment.start + min_of(at + row, kept - 1)];
    __syncthreads();
    if (!gone) gone = overlapping_of<32, true>(columns + 32 * half, box, threshold) != 0;
  }
  if (in && gone) atomicExch(&s.alive[i], 0);
}

}  // namespace
}  // namespace boxops::cuda
