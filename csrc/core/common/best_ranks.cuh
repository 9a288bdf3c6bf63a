// The best of many candidates, in their order, found by one block.
//
//   candidates  | . . x . x . . . x . . x |    as they come
//   found       | x x x x |                    those not behind the last that is needed, which a radix selection finds
//   ranks       | 0 1 2 3 |                    each at its place, which it finds by counting those before it
//
// Floor: few barriers, whatever is needed: 2 for each digit that is looked at, mostly 2 or 3, and 6 more.
#pragma once

#include "common/cuda_utils.cuh"
#include "common/geometry.h"
#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

// What a candidate is compared by; smaller is better, and no two are the same. `pair` -1 stands for none.
struct Rank {
  uint64_t key;
  int64_t pair;
  __device__ bool before(const Rank& o) const {
    return key != o.key ? key < o.key : static_cast<uint64_t>(pair) < static_cast<uint64_t>(o.pair);
  }
  __device__ static Rank none() { return {~uint64_t(0), -1}; }  // behind all
};

// How many numbers there are, and the bits that all or any of them have.
struct Common {
  uint32_t count;
  uint64_t all, any;
};

__device__ Common over_warp(const Common& own) {
  return {warp_sum(own.count), warp_reduce(own.all, [](uint64_t a, uint64_t b) { return a & b; }),
          warp_reduce(own.any, [](uint64_t a, uint64_t b) { return a | b; })};
}

// Of the numbers that value(i, &v) gives for i < count where it says true. All threads of the block call.
template <class Value>
__device__ Common common_of(uint32_t count, Value value) {
  __shared__ Common of_warp[32];
  Common own{0, ~uint64_t(0), 0};
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) {
    uint64_t v;
    if (value(i, &v)) ++own.count, own.all &= v, own.any |= v;
  }
  const uint32_t lane = threadIdx.x % 32, warps = blockDim.x / 32;
  own = over_warp(own);
  __syncthreads();  // an earlier call's are read
  if (lane == 0) of_warp[threadIdx.x / 32] = own;
  __syncthreads();
  return over_warp(lane < warps ? of_warp[lane] : Common{0, ~uint64_t(0), 0});
}

// A number that just `k` of those numbers do not exceed; all if they are not more. Where equal ones make that
// impossible, the k-th smallest, and `k` becomes the place among the equal ones, from 1; else 0. Digit by digit of 8
// bits, from the first in which the numbers differ.
template <class Value>
__device__ uint64_t kth_smallest(uint32_t count, uint32_t* k, Value value) {
  __shared__ uint32_t sums[256];  // of digit d: [d % 8][d / 8]
  __shared__ uint32_t digit, below, inside;
  const uint32_t t = threadIdx.x;
  if (t < 256) sums[t] = 0;
  const Common common = common_of(count, value);
  if (common.count <= *k) return *k = 0, ~uint64_t(0);
  int top = 64 - __clzll(static_cast<long long>(common.all ^ common.any));  // bits still open
  uint64_t prefix = top < 64 ? common.all >> top : 0;
  while (top > 0) {
    const int shift = max_of(top - 8, 0);
    for (uint32_t i = t; i < count; i += blockDim.x) {
      uint64_t v;
      if (!value(i, &v) || (v >> shift) >> (top - shift) != prefix) continue;
      const uint32_t d = static_cast<uint32_t>(v >> shift) & ((1u << (top - shift)) - 1);
      atomicAdd(&sums[d % 8 * 32 + d / 8], 1u);
    }
    __syncthreads();
    if (t < 32) {  // a lane adds up 8 digits
      uint32_t own[8], sum = 0;
#pragma unroll
      for (int j = 0; j < 8; ++j) own[j] = sums[32 * j + t], sum += own[j];
      sum = warp_scan(sum, [](uint32_t a, uint32_t b) { return a + b; }) - sum;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (sum < *k && sum + own[j] >= *k) digit = 8 * t + j, below = sum, inside = own[j];
        sum += own[j];
        sums[32 * j + t] = 0;
      }
    }
    __syncthreads();
    prefix = prefix << (top - shift) | digit;
    *k -= below;
    top = shift;
    if (*k == inside) return *k = 0, prefix << top | ((uint64_t(1) << top) - 1);
  }
  return prefix;
}

// The last of the `needed` > 0 best that rank_at(i) gives for i < count; behind all where they are not more.
template <class RankAt>
__device__ Rank last_of_best(uint32_t count, uint32_t needed, RankAt rank_at) {
  uint32_t k = needed;
  Rank last = Rank::none();  // of its key, all
  last.key = kth_smallest(count, &k, [&](uint32_t i, uint64_t* v) {
    const Rank rank = rank_at(i);
    *v = rank.key;
    return rank.pair >= 0;
  });
  if (k > 0)
    last.pair = static_cast<int64_t>(kth_smallest(count, &k, [&](uint32_t i, uint64_t* v) {
      const Rank rank = rank_at(i);
      *v = static_cast<uint64_t>(rank.pair);
      return rank.pair >= 0 && rank.key == last.key;
    }));
  return last;
}

constexpr uint32_t kAtOnce = 256;
struct Best {
  uint32_t count;
  uint32_t places[kAtOnce];
  Rank found[kAtOnce], ranks[kAtOnce];
};

// To be called before the rest, with a barrier in between.
__device__ void clear(Best& best) {
  if (threadIdx.x == 0) best.count = 0;
  if (threadIdx.x < kAtOnce) best.places[threadIdx.x] = 0;
}

// Appends the ranks of those threads that say so to best.found, a warp together. Returns where, to these.
__device__ uint32_t append(bool in, const Rank& rank, Best& best) {
  const uint32_t lane = threadIdx.x % 32;
  const unsigned votes = __ballot_sync(kFullMask, in);
  uint32_t at = 0;
  if (lane == 0 && votes != 0) at = atomicAdd(&best.count, static_cast<uint32_t>(__popc(votes)));
  at = __shfl_sync(kFullMask, at, 0) + __popc(votes & ((1u << lane) - 1));
  if (in) best.found[at] = rank;
  return at;
}

// Finds best.places of best.found in their order; as many threads for each as there are. Barriers before and after.
__device__ void find_places(Best& best) {
  const uint32_t t = threadIdx.x, found = best.count;
  const uint32_t columns = (found + 31) / 32 * 32, parts = blockDim.x / max_of(columns, 1u);
  const uint32_t i = found > 0 ? t % columns : 0, part = found > 0 ? t / columns : 0;
  if (i >= found || part >= parts) return;
  const Rank own = best.found[i];
  uint32_t before = 0;
#pragma unroll 4
  for (uint32_t j = part; j < found; j += parts) before += best.found[j].before(own);
  atomicAdd(&best.places[i], before);
}

// Puts the `needed` <= kAtOnce best that rank_at(i) gives into best.ranks in their order; returns how many there are.
template <class RankAt>
__device__ uint32_t take_best(uint32_t count, uint32_t needed, RankAt rank_at, Best& best) {
  const uint32_t t = threadIdx.x, lane = t % 32;
  clear(best);
  const Rank last = count <= needed ? Rank::none() : last_of_best(count, needed, rank_at);
  __syncthreads();
  for (uint32_t first = t - lane; first < count; first += blockDim.x) {
    const Rank rank = first + lane < count ? rank_at(first + lane) : Rank::none();
    append(rank.pair >= 0 && !last.before(rank), rank, best);
  }
  __syncthreads();
  const uint32_t found = best.count;
  find_places(best);
  __syncthreads();
  if (t < found) best.ranks[best.places[t]] = best.found[t];
  __syncthreads();
  return found;
}

}  // namespace
}  // namespace boxops::cuda
