// Which boxes of a label may hang on each other. A guess, which is checked: at first, those are linked that overlap
// enough themselves, and what hangs together by such links is a part, fused by itself. But a cluster may come to
// overlap a box of another part. So then a fused box and a box of another part are linked where the box would rather
// have joined it, and the parts that this unites are fused anew. Once there is no such pair, each box has chosen among
// all clusters of its label, to the bit: by induction over the boxes in their order.
//
//   rows     | 512 boxes, or fused boxes | ...      by position; a block for each tile, a thread for each row
//   columns  | 32 boxes behind them | 32 | ...
//
// Floor: a dozen operations for each pair in a label, by all multiprocessors, each time.
#pragma once

#include "common/last_block.cuh"
#include "fusion/fusion_state.cuh"

namespace boxops::cuda {
namespace {

constexpr int kRows = kFusionThreads, kColumns = 32;

// A box, and what it chose in the guess.
template <class T>
struct Chooser {
  Upright<T> box;
  T best;
  int founder;
  uint64_t root, label;
};

// A cluster as it stood from when box `position` had joined it until box `next` did.
template <class T>
struct Candidate {
  Upright<T> fused;
  int position, next, founder;
  uint64_t root, label;
};

template <class T>
__device__ Upright<T> shape_at(const FusionState<T>& s, int64_t position) {
  const FusionBox<T>& box = s.box(position);
  return {shape_of<Measure::kIoU>(box.model < 0 ? nowhere<T>() : Box<T>(box))};
}

template <class T>
__device__ Chooser<T> chooser_at(const FusionState<T>& s, int position, bool guessed, T threshold) {
  Chooser<T> c{shape_at(s, position), threshold, position, s.components.root(position), s.label(position)};
  if (guessed) c.best = s.best[position], c.founder = s.founder[position];
  return c;
}

template <class T>
__device__ Candidate<T> candidate_at(const FusionState<T>& s, int position, bool guessed) {
  const uint64_t root = s.components.root(position), label = s.label(position);
  if (!guessed) return {shape_at(s, position), position, s.end(), position, root, label};
  return {s.states[position], position, s.next[position], s.founder[position], root, label};
}

// Whether the box would rather have joined the cluster.
template <class T>
__device__ bool prefers(const Chooser<T>& box, const Candidate<T>& cluster, const Threshold<T>& threshold) {
  const T inter = quick_intersection<T>(cluster.fused, box.box);
  if (!(inter > T(0) && exceeds(inter, cluster.fused, box.box, threshold))) return false;
  const T iou = iou_of<true, T>(cluster.fused, box.box);
  return iou > box.best || (iou == box.best && cluster.founder < box.founder);
}

// A thread links a row with those of the `count` columns from `column` on that prefer it.
template <class T>
__device__ void link_row(const FusionState<T>& s, const Chooser<T>* columns, int column, int count,
                         const Candidate<T>& row, int linking, const Threshold<T>& threshold) {
  unsigned meeting = 0;
#pragma unroll 8
  for (int c = 0; c < count; ++c) meeting |= static_cast<unsigned>(meet<T>(columns[c].box, row.fused)) << c;
  meeting &= bits_between(row.position + 1 - column, row.next - column);
  uint64_t root = row.root;
  for (; meeting != 0; meeting &= meeting - 1) {
    const int c = __ffs(static_cast<int>(meeting)) - 1;
    if (columns[c].label != row.label || columns[c].root == root || !prefers(columns[c], row, threshold)) continue;
    root = s.components.unite(root, static_cast<uint64_t>(column + c));
    atomicOr(&s.marks[root], 1u << linking), atomicOr(&s.progress->linked[linking], 1u);
  }
}

// A block links the boxes of 32 columns with those before them.
template <class T>
__device__ void link_columns(const FusionState<T>& s, int linking, const Threshold<T>& threshold) {
  __shared__ Chooser<T> columns[kColumns];
  const int t = static_cast<int>(threadIdx.x), column = static_cast<int>(blockIdx.x) * kColumns;
  const int count = min_of(s.end() - column, kColumns), end = column + count;
  int64_t first = int64_t(blockIdx.y) * kRows;
  if (first >= end) return;
  if (t < count) columns[t] = chooser_at(s, column + t, linking > 0, threshold.value);
  if (!__syncthreads_or(t < count && s.box(column + t).model >= 0)) return;
  for (; first < end; first += int64_t(gridDim.y) * kRows) {
    const int row = static_cast<int>(first) + t;
    if (row >= end || s.label(min_of(row / 32 * 32 + 31, s.end() - 1)) < columns[0].label) continue;
    link_row(s, columns, column, count, candidate_at(s, row, linking > 0), linking, threshold);
  }
}

}  // namespace
}  // namespace boxops::cuda
