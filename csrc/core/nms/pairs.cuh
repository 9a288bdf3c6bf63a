// Which of 256 boxes overlap some others too much, by a block of 1,024 threads.
//
//   columns | 64 boxes | 64 boxes | 64 boxes | 64 boxes |     with tables of bits (cells.cuh): which may meet a box
//   threads   0 .. 255   256 ..     512 ..     768 ..         thread t takes the box t % 256 beside one of the words
#pragma once

#include "common/cells.cuh"
#include "nms/overlap.cuh"
#include "nms/settle.cuh"

namespace boxops::cuda {
namespace {

constexpr int kTilePlaces = 256, kTileWords = kTilePlaces / 64;
constexpr int kRoundThreads = kTilePlaces * kTileWords, kRoundWarps = kRoundThreads / 32;

// A box around what the box may meet by coarse_overlap, which of rotated boxes rounds a little.
template <class T>
__device__ Box<T> hull_of(const Upright<T>& box) {
  return {box.x1, box.y1, box.x2, box.y2};
}
template <class T>
__device__ Box<T> hull_of(const RotatedBox<T>& box) {
  constexpr T slack = 8 * std::numeric_limits<T>::epsilon();
  const T x = box.hull_x + slack * (std::fabs(box.cx) + box.hull_x);
  const T y = box.hull_y + slack * (std::fabs(box.cy) + box.hull_y);
  return {box.cx - x, box.cy - y, box.cx + x, box.cy + y};
}
template <class S>
struct HullsOf {
  const S* boxes;
  __device__ Box<typename S::Scalar> operator[](int i) const { return hull_of(boxes[i]); }
};

template <class S>
struct Pairs {
  using T = typename S::Scalar;
  S columns[kTilePlaces];
  Cells<T, kTilePlaces / 32> cells;
  Box<T> hulls[kTilePlaces / 32];
  Word words[kTileWords][kTilePlaces];

  // Brings box_at(c) for every column c; the block waits before and after.
  template <class BoxAt>
  __device__ void load(BoxAt box_at) {
    const int t = static_cast<int>(threadIdx.x), lane = t % 32;
    __syncthreads();
    if (t < kTilePlaces) {
      const S box = box_at(t);
      columns[t] = box;
      const Box<T> own = hull_of(box);
      const bool fits = own.x2 > own.x1 && own.y2 > own.y1 && farthest(own) < std::numeric_limits<T>::infinity();
      const Box<T> hull = warp_hull(fits ? own : nowhere<T>());
      if (lane == 0) hulls[t / 32] = hull;
    }
    __syncthreads();
    if (t < 32) {
      const Box<T> hull = warp_hull(lane < kTilePlaces / 32 ? hulls[lane] : nowhere<T>());
      if (lane == 0) cells.fit(hull);
    }
    __syncthreads();
    cells.build(HullsOf<S>{columns}, kTilePlaces);
    __syncthreads();
  }

  // Bit c: column c of the 64 of a word, one of `among`, overlaps the box too much; where any_is_enough, of some.
  template <bool any_is_enough>
  __device__ Word overlapping(int word, const S& box, Word among, const Threshold<T>& threshold) const {
    if (among == 0) return 0;
    int at[4];
    cells.around(hull_of(box), at);
    Word bits = 0;
    for (among &= Word(cells.near(2 * word + 1, at)) << 32 | cells.near(2 * word, at); among != 0; among &= among - 1) {
      const int c = __ffsll(static_cast<long long>(among)) - 1;
      const S& other = columns[word * 64 + c];
      const T overlap = coarse_overlap(other, box);
      if (!(overlap > T(0)) || !exceeds(overlap, other, box, threshold)) continue;
      bits |= Word(1) << c;
      if (any_is_enough) break;
    }
    return bits;
  }
};

}  // namespace
}  // namespace boxops::cuda
