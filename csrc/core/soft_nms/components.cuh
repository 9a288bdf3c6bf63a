// Which boxes decay each other, at once or by way of others: the connected components of the graph of pairs that
// overlap.
//
//   places   | 128 rows | 128 rows | ...     by rising group; a block for each pair of tiles, a thread for each row
//   columns  | 32 | 32 | 32 | 32 | ...
//
// Floor: a dozen operations for each pair in a group, by all multiprocessors.
#pragma once

#include "common/components.cuh"
#include "common/load_box.cuh"
#include "nms/overlap.cuh"
#include "soft_nms/soft_nms.h"

namespace boxops::cuda {
namespace {

constexpr int kRows = 128, kColumns = 32;

// Whether one of two boxes decays the other.
template <bool gaussian, class T>
__device__ bool decays(const Shape<T>& a, const Shape<T>& b, const Decay<T>& decay) {
  return meet(a, b) && (gaussian || iou_of(a, b) > decay.iou_threshold);
}

// Boxes by place; with groups, by rising key of these.
struct Places {
  int64_t n;
  bool grouped;
  const int64_t* order;
  const uint64_t* groups;
  __device__ int64_t index(int64_t place) const { return grouped ? order[place] : place; }
  __device__ uint64_t group(int64_t place) const { return grouped ? groups[place] : 0; }
};

// The box at a place, and what else tells whether it may be decayed.
template <class T>
struct Node {
  Upright<T> box;
  int64_t index;
  uint64_t group;
  __device__ Node(const NmsInput& input, const Decay<T>& decay, const Places& places, int64_t place)
      : index(places.index(place)), group(places.group(place)) {
    box = {unless_alone(shape_of<Measure::kIoU>(load_box_at_once<T>(input.boxes, 0, index)))};
    if (!(load_score<T>(input.scores, index) > decay.score_threshold)) box.x1 = std::numeric_limits<T>::infinity();
  }
};

// A thread unites one box with those of 32 columns that are behind it, have its group, and are decayed by it or decay
// it.
template <bool gaussian, class T>
__global__ void __launch_bounds__(kRows)
    unite_kernel(NmsInput input, Decay<T> decay, Places places, Components components) {
  __shared__ Upright<T> columns[kColumns];
  __shared__ int64_t indices[kColumns];
  __shared__ uint64_t groups[kColumns];
  const int t = static_cast<int>(threadIdx.x);
  const int64_t column = int64_t(blockIdx.x) * kColumns;
  const int count = static_cast<int>(min_of<int64_t>(places.n - column, kColumns));
  int64_t first = int64_t(blockIdx.y) * kRows;
  if (first >= column + count) return;
  if (t < count) {
    const Node<T> node(input, decay, places, column + t);
    columns[t] = node.box, indices[t] = node.index, groups[t] = node.group;
  }
  __syncthreads();
  for (; first < column + count; first += int64_t(gridDim.y) * kRows) {
    if (first + t >= column + count || places.group(min_of(first + kRows, places.n) - 1) < groups[0]) continue;
    const Node<T> own(input, decay, places, first + t);
    unsigned meeting = 0;
#pragma unroll 8
    for (int c = 0; c < count; ++c)
      meeting |= static_cast<unsigned>(meet<T>(columns[c], own.box) & (column + c > first + t)) << c;
    uint64_t root = static_cast<uint64_t>(own.index);
    for (; meeting != 0; meeting &= meeting - 1) {
      const int c = __ffs(static_cast<int>(meeting)) - 1;
      if (groups[c] == own.group && decays<gaussian, T>(columns[c], own.box, decay))
        root = components.unite(root, static_cast<uint64_t>(indices[c]));
    }
  }
}

// Boxes that decay each other come to have one root.
template <class T>
int unite(const NmsInput& input, const Decay<T>& decay, const Places& places, const Components& components,
          void* stream) {
  const dim3 grid(grid_x(blocks_of(places.n, kColumns)), grid_yz(blocks_of(places.n, kRows)));
  return launch(decay.gaussian ? unite_kernel<true, T> : unite_kernel<false, T>, grid, kRows, stream, input, decay,
                places, components);
}

}  // namespace
}  // namespace boxops::cuda
