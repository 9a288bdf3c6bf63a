// Tiles of gradients, and what the bins of a RoI have to do with one: which touch it, in which pieces they are taken,
// and what each gives the tile's rows and columns. roi_backward.cuh has the figure.
#pragma once

#include "roi/roi_cuda.cuh"

namespace boxops::cuda {
namespace {

constexpr int kTile = 8;    // pixels along a side
constexpr int kSpan = 16;   // bins of a piece along one axis, at most
constexpr int kPiece = 49;  // bins of a piece; odd, so that lanes read from different banks

struct Tile {
  int level, y, x;
  int64_t image;
};

inline int64_t tiles_of(const FeatureMap& m) { return blocks_of(m.height, kTile) * blocks_of(m.width, kTile); }

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

// A superset of the bins that touch pixels [low, low + kTile).
template <class T>
__device__ Steps bins_touching(const AlignAxis<T>& axis, int bins, int low) {
  if (axis.samples == 0) return {0, 0};
  return steps_within(axis.start, axis.bin, bins, static_cast<T>(low - 1), static_cast<T>(low) + T(kTile));
}
template <class T>
__device__ Steps bins_touching(const PoolAxis& axis, int bins, int low) {
  if (axis.length == 0) return {0, 0};
  return steps_within(static_cast<T>(axis.start), static_cast<T>(axis.length) / static_cast<T>(bins), bins,
                      static_cast<T>(low - 1), static_cast<T>(low) + T(kTile));
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
__device__ unsigned tile_weights(const PoolAxis& axis, int p, int64_t bins, int64_t extent, int low, T, T* weight) {
  const Steps range = range_of<pooling, T>(axis, p, bins, extent);
  unsigned touched = 0;
  for (int i = 0; i < kTile; ++i) {
    const bool inside = low + i >= range.begin && low + i < range.end;
    weight[i] = static_cast<T>(inside);
    touched |= static_cast<unsigned>(inside) << i;
  }
  return touched;
}

// A RoI that touches a tile: its bins that do, and how they are cut into pieces.
struct Hit {
  int64_t roi;
  int offset;                // of its place, from the first of the chunk
  Steps y, x;                // its bins
  int rows, across, pieces;  // bins along y in a piece; pieces along x, and in all

  __device__ bool touches() const { return y.begin < y.end && x.begin < x.end; }
  __device__ void cut() {
    rows = min_of(kSpan, kPiece / min_of(kSpan, x.end - x.begin));
    across = (x.end - x.begin + kSpan - 1) / kSpan;
    pieces = (y.end - y.begin + rows - 1) / rows * across;
  }
};

struct Piece {
  int p, q, rows, columns;  // no rows: no piece
};

__device__ Piece piece_of(const Hit& hit, int i) {
  if (i >= hit.pieces) return {0, 0, 0, 0};
  int p = hit.y.begin, q = hit.x.begin;
  if (i > 0) p += i / hit.across * hit.rows, q += i % hit.across * kSpan;
  return {p, q, min_of(hit.rows, hit.y.end - p), min_of(kSpan, hit.x.end - q)};
}

}  // namespace
}  // namespace boxops::cuda
