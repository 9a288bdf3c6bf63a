// Takes the place of csrc/core/common/sort_cuda.cu, as strict about its arguments as CUB.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/sort.h"

namespace boxops::cuda {

size_t sort_pairs_workspace(int64_t n) { return static_cast<size_t>(n) * 16 + 1; }

int sort_pairs(const uint64_t* keys_in, uint64_t* keys_out, const int64_t* values_in, int64_t* values_out, int64_t n,
               int bits, void* workspace, size_t workspace_bytes, void*) {
  const bool in_place = keys_in == keys_out || values_in == values_out;
  if (n < 0 || bits < 1 || bits > 64 || workspace_bytes < sort_pairs_workspace(n) || (in_place && n > 0))
    return cudaErrorInvalidValue;
  // CUB puts one kernel into the stream where a block can sort all, else 4 operations and 2 for each 8 bits
  // (dispatch_radix_sort.cuh of CCCL 13.0).
  cuda_emulator::count_operations("sort_pairs", n <= 2304 ? 1 : 4 + 2 * ((bits + 7) / 8));
  memset(workspace, 0x7e, workspace_bytes);  // nobody may count on what was there
  const uint64_t mask = ~uint64_t(0) >> (64 - bits);
  std::vector<std::pair<uint64_t, int64_t>> pairs;
  for (int64_t i = 0; i < n; ++i) pairs.push_back({keys_in[i], values_in[i]});
  std::stable_sort(pairs.begin(), pairs.end(),
                   [=](const auto& a, const auto& b) { return (a.first & mask) < (b.first & mask); });
  for (int64_t i = 0; i < n; ++i) keys_out[i] = pairs[i].first, values_out[i] = pairs[i].second;
  return cudaSuccess;
}

}  // namespace boxops::cuda
