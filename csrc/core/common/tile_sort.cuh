// A stable sort in three launches at most, of up to some 100,000 pairs: a radix sort is fewer instructions for many,
// but a dozen launches and more. A few thousand find their ranks by counting (count_ranks.cuh).
//
//   keys     | 5 1 3 4 | 2 5 0 1 | 3 3       in tiles, of 1024
//   tiles    | 1 3 4 5 | 0 1 2 5 | 3 3       tile_kernel: each by a block
//   rank       1 4 6 7   0 2 3 8 | . .       merge_kernel: a key's place in its tile, and how many of each other tile
//                                            come before it, by bisection
//
// Of many tiles, first some in a row are merged, and then what these have become.
#pragma once

#include <cmath>

#include "common/count_ranks.cuh"
#include "common/geometry.h"
#include "common/sort_space.cuh"
#include "common/warp.cuh"

namespace boxops::cuda {

// A key, and the number of its pair: no two are the same.
struct Numbered {
  uint64_t key;
  int number;
  __device__ bool before(const Numbered& o) const { return key < o.key || (key == o.key && number < o.number); }
};
__device__ inline Numbered shuffle_xor(const Numbered& own, int bits) {
  return {shuffle_xor(own.key, bits), shuffle_xor(own.number, bits)};
}

namespace {

constexpr int kTile = 1024;
constexpr int64_t kMostTiled = int64_t(1) << 17;
constexpr int64_t kMostRanked = int64_t(1) << 13;  // where counting takes as long as tiles

// Sorts those of a block's threads by a bitonic network.
__device__ Numbered sort_tile(Numbered own) {
  __shared__ Numbered all[kTile];
  const int t = static_cast<int>(threadIdx.x);
  for (int size = 2; size <= kTile; size *= 2)
    for (int step = size / 2; step > 0; step /= 2) {
      Numbered other;
      if (step >= 32) {
        __syncthreads();
        all[t] = own;
        __syncthreads();
        other = all[t ^ step];
      } else {
        other = shuffle_xor(own, step);
      }
      const bool takes_first = ((t & step) == 0) == ((t & size) == 0);
      if (other.before(own) == takes_first) own = other;
    }
  return own;
}

// A block sorts key_of(value) of a tile of values; `from` null: the values are 0 to n - 1.
template <class KeyOf>
__global__ void __launch_bounds__(kTile)
    tile_kernel(KeyOf key_of, const int64_t* from, int n, uint64_t* keys, int64_t* values) {
  const int first = static_cast<int>(blockIdx.x) * kTile, i = first + static_cast<int>(threadIdx.x);
  const auto value_of = [&](int number) { return from == nullptr ? number : from[number]; };
  const Numbered own = sort_tile({i < n ? key_of(value_of(i)) : ~uint64_t(0), i});
  const int64_t value = i < n ? value_of(own.number) : 0;
  if (i < n) keys[i] = own.key, values[i] = value;
}

// A thread puts one pair to its place among `ways` runs in a row, each sorted and `length` long.
__global__ void __launch_bounds__(kTile) merge_kernel(int n, int length, int ways, const uint64_t* keys,
                                                      const int64_t* values, uint64_t* sorted, int64_t* order) {
  const int i = static_cast<int>(blockIdx.x) * kTile + static_cast<int>(threadIdx.x);
  if (i >= n) return;
  const uint64_t key = keys[i];
  const int own = i / length * length, begin = i / (length * ways) * (length * ways);
  int rank = begin + i - own;
  for (int first = begin; first < min_of(begin + length * ways, n); first += length)
    if (first != own)  // equal keys of the runs before are before it
      rank += partition_point(min_of(n - first, length),
                              [&](int k) { return keys[first + k] < key || (first < own && keys[first + k] == key); });
  sorted[rank] = key, order[rank] = values[i];
}

// Writes the values to `order` by rising key, stably, and the keys to space.sorted.
constexpr int kMergedAtOnce = 32;
template <class KeyOf>
int sort_in_tiles(KeyOf key_of, const int64_t* from, const SortSpace& space, int64_t* order, void* stream) {
  const int n = static_cast<int>(space.n), tiles = static_cast<int>(blocks_of(n, kTile));
  const int merges = tiles <= kMergedAtOnce ? 1 : 2;
  uint64_t* keys[] = {space.sorted, space.keys};  // by how many merges are left
  int64_t* values[] = {order, space.values};
  BOXOPS_TRY(launch(tile_kernel<KeyOf>, static_cast<unsigned>(tiles), kTile, stream, key_of, from, n, keys[merges % 2],
                    values[merges % 2]));
  int length = kTile;
  for (int left = merges; left > 0; --left) {
    const int ways = left == 1 ? static_cast<int>(blocks_of(n, length)) : static_cast<int>(std::ceil(std::sqrt(tiles)));
    BOXOPS_TRY(launch(merge_kernel, static_cast<unsigned>(tiles), kTile, stream, n, length, ways, keys[left % 2],
                      values[left % 2], keys[1 - left % 2], values[1 - left % 2]));
    length *= ways;
  }
  return 0;
}

// A thread writes the key of one value; `from` null: the values are 0 to n - 1.
template <class KeyOf>
__global__ void key_kernel(KeyOf key_of, const int64_t* from, SortSpace space) {
  for (const int64_t i : grid_stride(space.n)) {
    const int64_t value = from == nullptr ? i : from[i];
    space.keys[i] = key_of(value), space.values[i] = value;
  }
}

// Keys by the place of a value: that stand in an array, and that are asked of the value.
struct StoredKey {
  const uint64_t* keys;
  __device__ uint64_t operator()(int64_t place) const { return keys[place]; }
};
template <class KeyOf>
struct KeyOfValue {
  KeyOf key_of;
  const int64_t* from;
  __device__ uint64_t operator()(int64_t place) const { return key_of(from == nullptr ? place : from[place]); }
};

template <class KeyAt>
int rank_by(KeyAt key_at, const int64_t* from, const SortSpace& space, int64_t* order, void* stream) {
  return launch(count_ranks_kernel<KeyAt>, static_cast<unsigned>(blocks_of(space.n, 32)), kCountThreads, stream, key_at,
                from, static_cast<int>(space.n), space.sorted, order);
}

// Sorts values stably by rising key, of which the `bits` lowest count, into `order`, which is not `from`; the keys go
// to space.sorted. Each value is asked for its key once.
template <class KeyOf>
int sort_by_once(KeyOf key_of, const int64_t* from, int bits, const SortSpace& space, int64_t* order, void* stream) {
  constexpr int kThreads = 256;
  if (space.n > kMostRanked && space.n <= kMostTiled) return sort_in_tiles(key_of, from, space, order, stream);
  BOXOPS_TRY(launch(key_kernel<KeyOf>, grid_x(blocks_of(space.n, kThreads)), kThreads, stream, key_of, from, space));
  if (space.n > kMostTiled) return space.sort(order, bits, stream);
  return rank_by(StoredKey{space.keys}, from, space, order, stream);
}

// The same, but values may be asked for their keys more than once.
template <class KeyOf>
int sort_by(KeyOf key_of, const int64_t* from, int bits, const SortSpace& space, int64_t* order, void* stream) {
  if (space.n > kMostRanked) return sort_by_once(key_of, from, bits, space, order, stream);
  return rank_by(KeyOfValue<KeyOf>{key_of, from}, from, space, order, stream);
}

}  // namespace
}  // namespace boxops::cuda
