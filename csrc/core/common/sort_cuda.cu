// The one file that uses CUB. The emulator of the tests replaces it at link time.
#include <cub/device/device_radix_sort.cuh>

#include "common/sort.h"

namespace boxops::cuda {

size_t sort_pairs_workspace(int64_t n) {
  size_t bytes = 0;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, static_cast<const uint64_t*>(nullptr),
                                  static_cast<uint64_t*>(nullptr), static_cast<const int64_t*>(nullptr),
                                  static_cast<int64_t*>(nullptr), n, 0, 64);
  return bytes;
}

int sort_pairs(const uint64_t* keys_in, uint64_t* keys_out, const int64_t* values_in, int64_t* values_out, int64_t n,
               int bits, void* workspace, size_t workspace_bytes, void* stream) {
  return cub::DeviceRadixSort::SortPairs(workspace, workspace_bytes, keys_in, keys_out, values_in, values_out, n, 0,
                                         bits, static_cast<cudaStream_t>(stream));
}

}  // namespace boxops::cuda
