// Ordered selection by many blocks: value(i) of the i < count with flag(i), i rising. Two launches, whatever is
// selected.
//
//   items    |  1024  |  1024  |  1024  | ...    a round of a block; `rounds` of them in a row are a block's
//   words    |   32   |   32   |   32   | ...    mark_kernel: bit b of word w is flag(32 w + b), by ballot
//   counts   |     0       |     1      | ...    mark_kernel: how many bits of its words block c has set
//   out      list_kernel: block c writes on from counts[0] + ... + counts[c - 1], which it adds up itself
//
// Each flag is looked at once and kept as a bit: 1 / 128 of what boxes of float32 take.
#pragma once

#include "common/cuda_utils.cuh"
#include "common/geometry.h"
#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

constexpr int kSelectThreads = 256, kSelectWarps = kSelectThreads / 32;
constexpr int kSelectWords = 32, kSelectRound = 32 * kSelectWords;  // of a round: a word for each lane
constexpr int64_t kSelectBlocks = 2048;  // at most, so that few counts are added up: the rounds grow instead

struct Selection {
  int64_t blocks, rounds;
  unsigned *words, *counts;
};

inline Selection selection_of(int64_t count, Workspace& w) {
  Selection s;
  s.rounds = max_of<int64_t>(blocks_of(count, kSelectRound * kSelectBlocks), 1);
  s.blocks = max_of<int64_t>(blocks_of(count, kSelectRound * s.rounds), 1);
  s.words = w.take<unsigned>(s.blocks * s.rounds * kSelectWords);
  s.counts = w.take<unsigned>(s.blocks);
  return s;
}

// The sum over the block, for all its threads.
template <class Count>
__device__ Count sum_over_block(Count own) {
  __shared__ Count sums[kSelectWarps];
  own = warp_sum(own);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = own;
  __syncthreads();
  Count sum = 0;
  for (int w = 0; w < kSelectWarps; ++w) sum += sums[w];
  return sum;
}

// A thread looks at four flags of a round, all before the first ballot, so that their loads are in flight together.
template <class Flag>
__global__ void __launch_bounds__(kSelectThreads) mark_kernel(int64_t count, Flag flag, Selection s) {
  constexpr int kEach = kSelectRound / kSelectThreads;
  unsigned found = 0;  // by the warp, on its first lane
  for (int64_t round = blockIdx.x * s.rounds; round < (blockIdx.x + 1) * s.rounds; ++round) {
    const int64_t first = round * kSelectRound + threadIdx.x;
    bool flags[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = first + k * kSelectThreads;
      flags[k] = i < count && flag(i);
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const unsigned word = __ballot_sync(kFullMask, flags[k]);
      if (threadIdx.x % 32 != 0) continue;
      s.words[(first + k * kSelectThreads) / 32] = word;
      found += __popc(word);
    }
  }
  const unsigned sum = sum_over_block(found);
  if (threadIdx.x == 0) s.counts[blockIdx.x] = sum;
}

// A lane holds one word of a round and learns from a scan where its items go; a warp writes four of the words, a lane
// per bit.
template <class Value>
__global__ void __launch_bounds__(kSelectThreads) list_kernel(Selection s, Value value, int64_t* out, int64_t* total) {
  constexpr int kEach = kSelectWords / kSelectWarps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int64_t at = 0;
  for (int64_t c = threadIdx.x; c < blockIdx.x; c += kSelectThreads) at += s.counts[c];
  at = sum_over_block(at);
  for (int64_t round = blockIdx.x * s.rounds; round < (blockIdx.x + 1) * s.rounds; ++round) {
    const unsigned word = s.words[round * kSelectWords + lane];
    const int sum = warp_scan(__popc(word), [](int a, int b) { return a + b; });
    for (int k = warp * kEach; k < (warp + 1) * kEach; ++k) {
      const unsigned bits = __shfl_sync(kFullMask, word, k);
      const int end = __shfl_sync(kFullMask, sum, k);
      if (bits >> lane & 1) out[at + end - __popc(bits >> lane)] = value(round * kSelectRound + k * 32 + lane);
    }
    at += __shfl_sync(kFullMask, sum, 31);
  }
  if (blockIdx.x + 1 == gridDim.x && threadIdx.x == 0) *total = at;
}

struct Itself {
  __device__ int64_t operator()(int64_t i) const { return i; }
};

// Writes what is selected to `out` and, to total[1], how much that is.
template <class Flag, class Value = Itself>
int select(int64_t count, Flag flag, int64_t* out, int64_t* total, void* workspace, void* stream, Value value = {}) {
  Workspace w(workspace);
  const Selection s = selection_of(count, w);
  BOXOPS_TRY(launch(mark_kernel<Flag>, static_cast<unsigned>(s.blocks), kSelectThreads, stream, count, flag, s));
  return launch(list_kernel<Value>, static_cast<unsigned>(s.blocks), kSelectThreads, stream, s, value, out, total);
}

inline size_t select_workspace(int64_t count) {
  Workspace w(nullptr);
  selection_of(count, w);
  return w.used();
}

}  // namespace
}  // namespace boxops::cuda
