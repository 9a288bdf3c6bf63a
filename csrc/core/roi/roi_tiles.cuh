// Tiles of gradients, by level, image, row and column, and what the bins of a RoI have to do with one: which touch it,
// and what each gives the tile's rows and columns. roi_backward.cuh and roi_sensitive_backward.cuh say who owns a tile.
#pragma once

#include "common/warp.cuh"
#include "roi/roi_cuda.cuh"

namespace boxops::cuda {
namespace {

constexpr int kTile = 8;    // pixels along a side
constexpr int kLanes = 32;  // channels of a tile, one of a lane each

struct Tile {
  int level, y, x;
  int64_t image;
};

BOXOPS_HD int64_t tiles_of(const FeatureMap& m) { return blocks_of(m.height, kTile) * blocks_of(m.width, kTile); }

__device__ Tile locate(const Features& gradients, int64_t i) {
  for (int level = 0;; ++level) {
    const FeatureMap& m = gradients.level[level];
    const int64_t rows = blocks_of(m.height, kTile), columns = blocks_of(m.width, kTile);
    const int64_t here = rows * columns * gradients.images;
    if (i < here || level + 1 == gradients.levels)
      return {level, static_cast<int>(i / columns % rows) * kTile, static_cast<int>(i % columns) * kTile,
              i / columns / rows};
    i -= here;
  }
}

// The first tile of an image.
__device__ int64_t first_tile(const Features& gradients, int level, int64_t image) {
  int64_t before = tiles_of(gradients.level[level]) * image;
  for (int l = 0; l < level; ++l) before += tiles_of(gradients.level[l]) * gradients.images;
  return before;
}

// A superset of the tiles along an axis that the bins touch. A sample gives to the pixels before and behind it.
template <class T>
__device__ Steps tiles_touching(const AlignAxis<T>& axis, int64_t bins, int64_t extent) {
  if (axis.samples == 0) return {0, 0};
  const T end = axis.start + static_cast<T>(bins) * axis.bin;
  const T slack = (std::fabs(axis.start) + std::fabs(end)) * (std::numeric_limits<T>::epsilon() * T(8));
  return steps_within(T(0), T(kTile), static_cast<int>(blocks_of(extent, kTile)), min_of(axis.start, end) - slack,
                      max_of(axis.start, end) + slack + T(1));
}

// A superset of the bins that touch pixels [low, low + kTile).
template <class T>
__device__ Steps bins_touching(const AlignAxis<T>& axis, int bins, int low) {
  if (axis.samples == 0) return {0, 0};
  return steps_within(axis.start, axis.bin, bins, static_cast<T>(low - 1), static_cast<T>(low) + T(kTile));
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

}  // namespace
}  // namespace boxops::cuda
