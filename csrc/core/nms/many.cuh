// The greedy pass of NMS on the device for very many boxes: all places in some rounds, a launch each, whatever the
// segments.
//
//   tiles of 256 places |       0       |       1       | ...
//   mask, a row a box   | w0 w1 w2 w3   | w4 w5 w6 w7   | ...   bits of the boxes before it that it overlaps too much;
//   met, a word a box     bit c: the words of tile c have bits; words without bits are not written
//
// Some blocks strike the boxes of the round that meet kept ones of rounds before: those near them in a grid (grid.cuh),
// or all where there is none, for rotated boxes and thresholds that bound sides too little. Each of the others compares
// the boxes of two tiles. The block that is done last finds which boxes of the round are kept (sweep.cuh).
//
// Floor: of each round the pairs of tiles, by 4 look-ups for 32 boxes beside 32, and some us for the sweeps.
#pragma once

#include "common/last_block.cuh"
#include "nms/greedy.cuh"
#include "nms/pairs.cuh"
#include "nms/sweep.cuh"

namespace boxops::cuda {
namespace {

constexpr int64_t kManyFrom = 3 * kMaxChunk + 1;  // fewer take three rounds of greedy.cuh
constexpr int64_t kStrikeBlocks = 528;            // without a grid

// Whether it is for these; places are ints in the list.
inline bool are_many(const NmsInput& input) {
  const int64_t longest = input.has_groups ? min_of(input.boxes.count, input.longest_group) : input.boxes.count;
  return longest >= kManyFrom && input.boxes.batch * input.boxes.count < std::numeric_limits<int>::max();
}

// A thread finds the home of one place's box, and empties what the rounds fill.
template <class S, class Grid>
__global__ void home_kernel(Many<S, Grid> s) {
  if constexpr (std::is_same_v<Grid, KeptGrid>) {
    for (const int64_t i : grid_stride(s.n)) s.grid.home[i] = home_of(s.grid, s.boxes[i], s.segment[i].start);
    for (const int64_t slot : grid_stride(s.grid.slots())) s.grid.heads[slot] = -1;
    if (blockIdx.x == 0 && threadIdx.x == 0) *s.grid.odd_count = 0;
  }
  for (const int64_t i : grid_stride(s.places)) s.met[i] = 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) *s.kept = 0, *s.arrived = 0;
}

// Each warp of a block takes one box, and strikes it if a kept box overlaps it too much. Only a segment that began
// before the round has kept boxes.
template <class T>
__device__ void strike(const Many<Upright<T>, KeptGrid>& s, const Places& round, int block, int64_t kept,
                       const Threshold<T>& threshold, Pairs<Upright<T>>&) {
  const int64_t i = round.from + block * kRoundWarps + static_cast<int>(threadIdx.x) / 32;
  if (i >= round.to || s.segment[i].start >= round.from) return;
  const bool gone = s.alive[i] != 0 && meets_kept(s, s.grid, s.listed, kept, i, threshold);
  __syncwarp();
  if (gone && threadIdx.x % 32 == 0) s.alive[i] = 0;
}

// The blocks of a tile share the kept boxes; see compare().
template <class S, class T>
__device__ void strike(const Many<S, NoGrid>& s, const Places& round, int block, int64_t kept,
                       const Threshold<T>& threshold, Pairs<S>& pairs) {
  const int tiles = static_cast<int>(blocks_of(round.to - round.from, kTilePlaces)), t = static_cast<int>(threadIdx.x);
  const int word = t / kTilePlaces, stripes = static_cast<int>(max_of<int64_t>(kStrikeBlocks / tiles, 1));
  const int64_t rows = round.from + block % tiles * kTilePlaces, i = rows + t % kTilePlaces;
  const int64_t start = s.segment[rows].start;  // of the only segment that began before the round
  if (start >= round.from) return;
  const int64_t begin = start == 0 ? 0 : partition_point(kept, [&](int64_t at) { return s.listed[at] < start; });
  const bool in = i < round.to && s.segment[min_of(i, s.n - 1)].start == start;
  const S box = s.boxes[min_of(i, s.n - 1)];
  bool gone = false;
  for (int64_t at = begin + block / tiles * kTilePlaces; at < kept; at += stripes * kTilePlaces) {
    pairs.load([&](int c) { return s.boxes[s.listed[min_of(at + c, kept - 1)]]; });
    const Word among = in && !gone ? lowest(kept - at - word * 64) : 0;
    gone = gone || pairs.template overlapping<true>(word, box, among, threshold) != 0;
  }
  if (gone) atomicExch(&s.alive[i], 0);
}
template <class S, class Grid>
int64_t strikers_of(const Many<S, Grid>&, const Places& round) {
  if (round.from == 0) return 0;
  if (std::is_same_v<Grid, KeptGrid>) return blocks_of(round.to - round.from, kRoundWarps);
  const int64_t tiles = blocks_of(round.to - round.from, kTilePlaces);
  return tiles * max_of<int64_t>(kStrikeBlocks / tiles, 1);
}

// A block compares the boxes of a tile of the round with those of one that comes before it, or with themselves: four
// threads a box, each of which finds a word of its mask.
template <class S, class Grid, class T>
__device__ void compare(const Many<S, Grid>& s, const Places& round, int row, int column, const Threshold<T>& threshold,
                        Pairs<S>& pairs) {
  const int t = static_cast<int>(threadIdx.x), word = t / kTilePlaces;
  const int64_t rows = round.from + row * kTilePlaces, columns = round.from + column * kTilePlaces;
  if (columns + kTilePlaces <= s.segment[rows].start) return;  // no box of the tile has its segment there
  pairs.load([&](int c) { return s.boxes[min_of(columns + c, s.n - 1)]; });
  const int64_t i = rows + t % kTilePlaces, place = columns + word * 64;
  const Word among = i < round.to ? lowest(i - place) & ~lowest(s.segment[i].start - place) : 0;
  pairs.words[word][t % kTilePlaces] =
      pairs.template overlapping<false>(word, s.boxes[min_of(i, s.n - 1)], among, threshold);
  __syncthreads();
  if (t >= kTilePlaces) return;
  const ulonglong2 low{pairs.words[0][t], pairs.words[1][t]}, high{pairs.words[2][t], pairs.words[3][t]};
  if ((low.x | low.y | high.x | high.y) == 0) return;
  const int64_t at = i - round.from;
  auto* words = reinterpret_cast<ulonglong2*>(s.mask + at * s.words() + column * kTileWords);
  words[0] = low, words[1] = high;
  atomicOr(&s.met[at], Word(1) << column);
}

// The first `strikers` blocks strike; block strikers + p compares the p-th pair of tiles. `limit`: when so many are
// kept the rest need not be looked at.
template <class S, class Grid>
__global__ void __launch_bounds__(kRoundThreads)
    round_kernel(Many<S, Grid> s, Places round, int strikers, int64_t limit, Threshold<typename S::Scalar> threshold) {
  __shared__ Pairs<S> pairs;
  const int64_t kept = *s.kept;
  if (kept >= limit) return;
  if (const int block = static_cast<int>(blockIdx.x); block < strikers) {
    if (kept > 0) strike(s, round, block, kept, threshold, pairs);
  } else {
    int row = 0, column = block - strikers;
    while (column > row) column -= ++row;
    compare(s, round, row, column, threshold, pairs);
  }
  if (is_last_block(s.arrived, gridDim.x)) sweep(s, round, kept);
}

template <class S, class Grid>
int keep_of_many(const Many<S, Grid>& s, int64_t limit, const Threshold<typename S::Scalar>& threshold, void* stream,
                 int64_t places) {
  BOXOPS_TRY(launch(home_kernel<S, Grid>, grid_x(blocks_of(s.n, kThreads)), kThreads, stream, s));
  for (int64_t from = 0; from < s.n; from += places) {
    const Places round{from, min_of(from + places, s.n)};
    const int64_t strikers = strikers_of(s, round), tiles = blocks_of(round.to - from, kTilePlaces);
    BOXOPS_TRY(launch(round_kernel<S, Grid>, static_cast<unsigned>(strikers + tiles * (tiles + 1) / 2), kRoundThreads,
                      stream, s, round, static_cast<int>(strikers), limit, threshold));
  }
  return cudaSuccess;
}

}  // namespace
}  // namespace boxops::cuda
