// Which of up to 32 kWords boxes may meet a given one: those that, along both axes, begin in its last cell or before it
// and end in its first or behind it.
//
//   cells   | 0 | 1 | 2 | 3 |
//   boxes     aaaaa               a table of bits for each of the four sides; here of where boxes begin along x:
//               bbbbbbb             a   ab  abc abc
//                     ccc         of where they end, mirrored
//
// A range-encoded bitmap index (Chan and Ioannidis 1998). Cells rise with coordinates, however these are rounded, so no
// box that meets the given one is left out.
#pragma once

#include "common/geometry.h"
#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

constexpr int kCells = 64;

// The box around those of all lanes, which hold no NaN.
template <class T>
__device__ Box<T> warp_hull(const Box<T>& own) {
  return {warp_min(own.x1), warp_min(own.y1), warp_max(own.x2), warp_max(own.y2)};
}
__device__ inline Box<float> warp_hull(const Box<float>& own) {
  return {-warp_largest(-own.x1), -warp_largest(-own.y1), warp_largest(own.x2), warp_largest(own.y2)};
}

// The same of all threads of a block, for each of them.
template <int threads, class T>
__device__ Box<T> block_hull(const Box<T>& own) {
  __shared__ Box<T> hulls[threads / 32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Box<T> hull = warp_hull(own);
  if (lane == 0) hulls[threadIdx.x / 32] = hull;
  __syncthreads();
  return warp_hull(lane < threads / 32 ? hulls[lane] : nowhere<T>());
}

template <class T, int kWords>
struct Cells {
  T low[2], scale[2];  // any do, for all is monotone; those of the hull part best
  unsigned bits[4][kWords][kCells];

  __device__ void fit(const Box<T>& hull) {
    low[0] = hull.x1, low[1] = hull.y1;
    scale[0] = T(kCells) / (hull.x2 - hull.x1), scale[1] = T(kCells) / (hull.y2 - hull.y1);
  }
  __device__ int cell(int axis, T x) const {
    const T at = (x - low[axis]) * scale[axis];
    return static_cast<int>(at > T(0) ? min_of(at, T(kCells - 1)) : T(0));  // NaN: 0
  }
  // Where a side of the box stands in its table.
  __device__ int place(int side, const Box<T>& b) const {
    switch (side) {
      case 0: return cell(0, b.x1);
      case 1: return kCells - 1 - cell(0, b.x2);
      case 2: return cell(1, b.y1);
      default: return kCells - 1 - cell(1, b.y2);
    }
  }
  // A warp for each word and side; all warps of the block call. boxes[i]: box i.
  template <class B>
  __device__ void build(const B& boxes, int count) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warps = static_cast<int>(blockDim.x) / 32;
    for (int job = static_cast<int>(threadIdx.x) / 32; job / 4 * 32 < count; job += warps) {
      const int side = job % 4, i = job / 4 * 32 + lane;
      unsigned* table = bits[side][job / 4];
      for (int c = lane; c < kCells; c += 32) table[c] = 0;
      __syncwarp();
      if (i < count) atomicOr(&table[place(side, boxes[i])], 1u << lane);
      __syncwarp();
      const unsigned first = table[2 * lane], both = first | table[2 * lane + 1];
      const unsigned all = warp_scan(both, [](unsigned a, unsigned b) { return a | b; });
      const unsigned before = __shfl_up_sync(kFullMask, all, 1);
      table[2 * lane] = (lane > 0 ? before : 0) | first, table[2 * lane + 1] = all;
    }
  }
  // Where, in the tables, those that meet the box stand at most.
  __device__ void around(const Box<T>& b, int (&at)[4]) const {
    at[0] = cell(0, b.x2), at[1] = kCells - 1 - cell(0, b.x1);
    at[2] = cell(1, b.y2), at[3] = kCells - 1 - cell(1, b.y1);
  }
  // Of 32 boxes, as bits; `at` is around the other one.
  __device__ unsigned near(int word, const int (&at)[4]) const {
    return bits[0][word][at[0]] & bits[1][word][at[1]] & bits[2][word][at[2]] & bits[3][word][at[3]];
  }
};

}  // namespace
}  // namespace boxops::cuda
