// What a radix sort on the device needs, cut from a workspace.
#pragma once

#include "common/cuda_utils.cuh"
#include "common/sort.h"

namespace boxops::cuda {

// Kernels write keys and values; `sort` orders the values by their keys.
struct SortSpace {
  int64_t n = 0;
  uint64_t *keys = nullptr, *sorted = nullptr;  // [n]
  int64_t* values = nullptr;                    // [n]
  void* scratch = nullptr;
  size_t scratch_bytes = 0;

  SortSpace() = default;
  SortSpace(Workspace& w, int64_t n)
      : n(n), keys(w.take<uint64_t>(n)), sorted(w.take<uint64_t>(n)), values(w.take<int64_t>(n)) {
    scratch_bytes = n > 0 ? sort_pairs_workspace(n) : 0;
    scratch = w.take<char>(static_cast<int64_t>(scratch_bytes));
  }

  // Writes the values by rising key, stably, and the keys to `sorted`. Of the keys, the `bits` lowest count.
  int sort(int64_t* order, int bits, void* stream) const {
    return sort_pairs(keys, sorted, values, order, n, bits, scratch, scratch_bytes, stream);
  }
};

}  // namespace boxops::cuda
