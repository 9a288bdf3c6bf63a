// Ordered selection by one block.
#pragma once

#include <cstdint>

namespace boxops::cuda {

constexpr int kCompactThreads = 512;

// Calls emit(place, i) for the first `limit` of the i < count with flag(i), places rising with i;
// returns how many. All kCompactThreads threads of the block call it; each looks at 16 flags in a
// row, and a scan over the block tells it where to write.
template <class Flag, class Emit>
__device__ int64_t compact(int64_t count, int64_t limit, Flag flag, Emit emit) {
  constexpr int kRun = 16;
  __shared__ int sums[kCompactThreads];
  const int t = static_cast<int>(threadIdx.x);
  int64_t written = 0;
  for (int64_t base = 0; base < count && written < limit; base += kCompactThreads * kRun) {
    const int64_t first = base + int64_t(t) * kRun;
    unsigned flags = 0;
    for (int k = 0; k < kRun && first + k < count; ++k) flags |= static_cast<unsigned>(flag(first + k)) << k;
    int sum = __popc(flags);
    sums[t] = sum;
    __syncthreads();
    for (int step = 1; step < kCompactThreads; step *= 2) {
      const int left = t >= step ? sums[t - step] : 0;
      __syncthreads();
      sums[t] = sum += left;
      __syncthreads();
    }
    int64_t at = written + sum - __popc(flags);
    for (int k = 0; k < kRun; ++k)
      if (flags >> k & 1) {
        if (at < limit) emit(at, first + k);
        ++at;
      }
    written += sums[kCompactThreads - 1];
    __syncthreads();
  }
  return written < limit ? written : limit;
}

}  // namespace boxops::cuda
