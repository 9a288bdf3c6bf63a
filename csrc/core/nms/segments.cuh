// Boxes of one group side by side, by falling score, on the device: what soft NMS and fusion start from.
#pragma once

#include "common/cuda_utils.cuh"
#include "common/tile_sort.cuh"

namespace boxops::cuda {
namespace {

constexpr int kSegmentThreads = 256;

// The order of n elements, and where its segments start.
struct Segments {
  SortSpace space;
  int64_t n;
  int64_t *order, *starts, *count;  // starts[count] and one more, n

  Segments(Workspace& w, int64_t n)
      : space(w, n), n(n), order(w.take<int64_t>(n)), starts(w.take<int64_t>(n + 1)), count(w.take<int64_t>(1)) {}
};

// Sorts values stably by rising key into s.order.
template <class Key>
int sort_by(Key key, const int64_t* from, int bits, const Segments& s, void* stream) {
  return sort_by(key, from, bits, s.space, s.order, stream);
}

}  // namespace
}  // namespace boxops::cuda
