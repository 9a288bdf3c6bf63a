// Ranks by counting: a key's rank is the number of keys before it. One launch by all multiprocessors, where a sort by
// one block is a chain of 50 steps and more.
//
//   keys    | 5 1 3 4 2 5 0 1 |
//   lanes   | 5 1 3 4 |           a block's, 32: each warp has all of them
//   warps   | 5 . 3 . 2 . 0 . |   and compares them with its share of all keys, of 1024 in shared memory at a time
//   ranks   | 6 1 4 5 |           sums over the warps; equal keys rank by their places
//
// Floor: three to four instructions for each pair of keys.
#pragma once

#include "common/cuda_utils.cuh"
#include "common/geometry.h"

namespace boxops::cuda {
namespace {

constexpr int kCountThreads = 1024, kCountWarps = kCountThreads / 32;
constexpr int kCountedAtOnce = 1024;

// How many of the m keys of the places from `first` on come before place i, which has `key`; of four a time, a warp
// takes every so many-th. Equal keys count where their place is the lower one, which the warp's places decide at once
// but for those among themselves. Behind the m keys, up to a multiple of four, are the largest ones that there are.
template <class Key>
__device__ int count_before(const Key* keys, int m, int first, int i, Key key) {
  struct alignas(16) Four {
    Key x, y, z, w;
  };
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int before = 0;
#pragma unroll 4
  for (int at = static_cast<int>(threadIdx.x) / 32 * 4; at < m; at += kCountWarps * 4) {
    const Four four = *reinterpret_cast<const Four*>(keys + at);
    const int after = first + at - (i - lane);  // of the warp's first place
    if (after < 0) {
      before += (four.x <= key) + (four.y <= key) + (four.z <= key) + (four.w <= key);
    } else {
      before += (four.x < key) + (four.y < key) + (four.z < key) + (four.w < key);
      if (after < 32)
        before += (four.x == key && after < lane) + (four.y == key && after + 1 < lane) +
                  (four.z == key && after + 2 < lane) + (four.w == key && after + 3 < lane);
    }
  }
  return before;
}

// A lane puts one value of `from` to its place by the rising key of where it stood, stably; `from` null: the values are
// 0 to n - 1. Every block asks for all keys, its own first.
template <class KeyAt>
__global__ void __launch_bounds__(kCountThreads, 2)
    count_ranks_kernel(KeyAt key_at, const int64_t* from, int n, uint64_t* sorted, int64_t* order) {
  alignas(16) __shared__ uint64_t keys[kCountedAtOnce];
  __shared__ int ranks[32];
  const int t = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x) * 32 + t % 32;
  const int tiles = static_cast<int>(blocks_of(n, kCountedAtOnce)), own = i / kCountedAtOnce;
  uint64_t key = 0;
  int before = 0;
  for (int k = 0; k < tiles; ++k) {
    const int first = (own + k < tiles ? own + k : own + k - tiles) * kCountedAtOnce;
    __syncthreads();
    keys[t] = first + t < n ? key_at(first + t) : ~uint64_t(0);
    __syncthreads();
    if (k == 0) key = keys[i - first];
    before += count_before(keys, min_of(kCountedAtOnce, n - first), first, i, key);
  }
  if (t < 32) ranks[t] = 0;
  __syncthreads();
  atomicAdd(&ranks[t % 32], before);
  __syncthreads();
  if (t < 32 && i < n) sorted[ranks[t]] = key, order[ranks[t]] = from == nullptr ? i : from[i];
}

}  // namespace
}  // namespace boxops::cuda
