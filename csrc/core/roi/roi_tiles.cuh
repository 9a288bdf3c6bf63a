// Tiles of gradients, and what the bins of a RoI have to do with one: which touch it, what each gives the tile's rows
// and columns, and how a warp keeps, adds to and stores the sums.
//
//               a tile: 4 or 8 rows of 8 pixels
//             +-----------------------+
//   sum[0]    | [0] [1] ...       [7] |    A warp owns a tile of 32 channels, a lane all pixels of its channel, in
//   sum[1]    |                       |    registers. All lanes have the same weights, so nothing diverges, and only
//   ...       |                       |    rows of pixels that a bin touches cost anything.
//             +-----------------------+
#pragma once

#include "common/warp.cuh"
#include "roi/roi_cuda.cuh"

namespace boxops::cuda {
namespace {

constexpr int kTile = 8;    // pixels along x, and along y at most
constexpr int kLanes = 32;  // channels of a warp
template <class T>
constexpr int kTileWarps = sizeof(T) == 8 ? 2 : 4;  // of a block, at most

struct Tile {
  int level, y, x;
  int64_t image;
};

template <int rows>
int64_t tiles_of(const FeatureMap& m) {
  return blocks_of(m.height, rows) * blocks_of(m.width, kTile);
}

template <int rows>
__device__ Tile locate(const Features& gradients, int64_t i) {
  for (int level = 0;; ++level) {
    const FeatureMap& m = gradients.level[level];
    const int64_t down = blocks_of(m.height, rows), across = blocks_of(m.width, kTile);
    const int64_t here = down * across * gradients.images;
    if (i < here || level + 1 == gradients.levels)
      return {level, static_cast<int>(i / across % down) * rows, static_cast<int>(i % across) * kTile,
              i / across / down};
    i -= here;
  }
}

// A superset of the bins that touch the n pixels from `low` on.
template <class T>
__device__ Steps bins_touching(const AlignAxis<T>& axis, int bins, int low, int n) {
  if (axis.samples == 0) return {0, 0};
  return steps_within(axis.start, axis.bin, bins, static_cast<T>(low - 1), static_cast<T>(low + n));
}

// Whether bins [p, end) of length `bin` from `start` on may touch the n pixels from `low` on: cheap, and false for most
// that do not.
template <class T>
__device__ bool may_touch(T start, T bin, int p, int end, int low, int n) {
  const T a = start + static_cast<T>(p) * bin, b = start + static_cast<T>(end) * bin;
  const T slack = (std::fabs(start) + std::fabs(b) + std::fabs(bin)) * (std::numeric_limits<T>::epsilon() * T(8));
  return max_of(a, b) + slack >= static_cast<T>(low - 1) && min_of(a, b) - slack <= static_cast<T>(low + n);
}
template <class T>
__device__ bool may_touch(const AlignAxis<T>& axis, int, int p, int end, int low, int n) {
  return axis.samples > 0 && may_touch(axis.start, axis.bin, p, end, low, n);
}
template <class T>
__device__ bool may_touch(const PoolAxis& axis, int bins, int p, int end, int low, int n) {
  return axis.length > 0 &&
         may_touch(static_cast<T>(axis.start), static_cast<T>(axis.length) / static_cast<T>(bins), p, end, low, n);
}

// What bin p gives the pixels [low, low + kTile): sets weight[i] and returns a bit for each that it touches.
template <Pooling pooling, class T>
__device__ unsigned tile_weights(const AlignAxis<T>& axis, int p, int64_t, int64_t extent, int low, T factor,
                                 T* weight) {
#pragma unroll
  for (int i = 0; i < kTile; ++i) weight[i] = T(0);
  const Steps near = samples_within(axis, p, static_cast<T>(low - 1), static_cast<T>(low) + T(kTile));
  unsigned touched = 0;
#pragma unroll 1
  for (int i = near.begin; i < near.end; ++i) {
    Sample<T> s;
    if (!sample_at(axis, p, i, extent, &s)) continue;
    const int at = s.low - low, next = s.high - low;
    if (at >= 0 && at < kTile) weight[at] += s.low_weight * factor, touched |= 1u << at;
    if (next >= 0 && next < kTile) weight[next] += s.high_weight * factor, touched |= 1u << next;
  }
  return touched;
}
template <Pooling pooling, class T>
__device__ unsigned tile_weights(const PoolAxis& axis, int p, int64_t bins, int64_t extent, int low, T factor,
                                 T* weight) {
  const Steps range = range_of<pooling, T>(axis, p, bins, extent);
  unsigned touched = 0;
  for (int i = 0; i < kTile; ++i) {
    const bool inside = low + i >= range.begin && low + i < range.end;
    weight[i] = inside ? factor : T(0);
    touched |= static_cast<unsigned>(inside) << i;
  }
  return touched;
}

// Adds what bins give along x, times `weight`, to the rows of pixels that they touch.
template <class T, int rows>
__device__ void add_rows(unsigned touched, const T* weight, const T (&along)[kTile], T (&sum)[rows][kTile]) {
#pragma unroll
  for (int y = 0; y < rows; ++y)
    if (touched >> y & 1) {
      const T w = weight[y];
#pragma unroll
      for (int x = 0; x < kTile; ++x) sum[y][x] = std::fma(w, along[x], sum[y][x]);
    }
}

// A warp stores its sums, of channels `step` apart from `at` on: 4 rows at a time go through shared memory, so that
// neighbouring lanes store neighbouring pixels.
template <class T, int rows, class Put>
__device__ void store_sums(const Tile& tile, const FeatureMap& map, int64_t at, int64_t step, int channels,
                           const T (&sum)[rows][kTile], T (*shared)[kLanes + 1], Put put) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll
  for (int top = 0; top < rows; top += kLanes / kTile) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kLanes; ++i) shared[lane][i] = sum[top + i / kTile][i % kTile];
    __syncwarp();
    const int64_t y = tile.y + top + lane / kTile, x = tile.x + lane % kTile;
    if (y < map.height && x < map.width)
      for (int c = 0; c < channels; ++c) put(at + c * step + y * map.y_stride + x * map.x_stride, shared[c][lane]);
  }
  __syncwarp();
}

}  // namespace
}  // namespace boxops::cuda
