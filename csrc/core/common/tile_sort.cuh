// A stable sort in two launches, of up to some 100,000 pairs: a radix sort is fewer instructions for many, but a dozen
// launches and more.
//
//   keys     | 5 1 3 4 | 2 5 0 1 | 3 3       in tiles, of 1024
//   sorted   | 1 3 4 5 | 0 1 2 5 | 3 3       tile_kernel: each by a block
//   rank       1 4 6 7   0 2 3 8 | . .       rank_kernel: a key's place in its tile, and how many of each other tile
//                                            come before it, by bisection
#pragma once

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

// Sorts those of a block's threads, a power of two, by a bitonic network.
__device__ Numbered sort_tile(Numbered own) {
  __shared__ Numbered all[kTile];
  const int t = static_cast<int>(threadIdx.x);
  for (int size = 2; size <= static_cast<int>(blockDim.x); size *= 2)
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
  __syncthreads();  // `from` may be `values`
  if (i < n) keys[i] = own.key, values[i] = value;
}

// A thread puts one pair to its place.
__global__ void __launch_bounds__(kTile)
    rank_kernel(int n, const uint64_t* keys, const int64_t* values, uint64_t* sorted, int64_t* order) {
  const int own = static_cast<int>(blockIdx.x) * kTile, i = own + static_cast<int>(threadIdx.x);
  if (i >= n) return;
  const uint64_t key = keys[i];
  int64_t rank = threadIdx.x;
  for (int first = 0; first < n; first += kTile)
    if (first != own)  // equal keys of the tiles before are before it
      rank += partition_point(min_of(n - first, kTile), [&](int64_t k) {
        return keys[first + k] < key || (first < own && keys[first + k] == key);
      });
  sorted[rank] = key, order[rank] = values[i];
}

// Writes the values to `order` by rising key, stably, and the keys to space.sorted.
template <class KeyOf>
int sort_in_tiles(KeyOf key_of, const int64_t* from, const SortSpace& space, int64_t* order, void* stream) {
  const int n = static_cast<int>(space.n);
  const unsigned tiles = static_cast<unsigned>(blocks_of(n, kTile));
  const int threads = min_of(max_of(1 << bits_of(n), 32), kTile);
  const bool done = tiles <= 1;
  BOXOPS_TRY(launch(tile_kernel<KeyOf>, tiles, threads, stream, key_of, from, n, done ? space.sorted : space.keys,
                    done ? order : space.values));
  return done ? 0 : launch(rank_kernel, tiles, kTile, stream, n, space.keys, space.values, space.sorted, order);
}

}  // namespace
}  // namespace boxops::cuda
