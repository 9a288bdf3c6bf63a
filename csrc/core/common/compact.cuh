// Ordered selection by one block.
#pragma once

#include <cstdint>

#include "common/warp.cuh"

namespace boxops::cuda {

constexpr int kCompactThreads = 512;

// Calls emit(place, i) for the first `limit` of the i < count with flag(i), places rising with i;
// returns how many. All kCompactThreads threads of the block call it; each looks at up to 16 flags in a
// row, and scans of the warps and of their sums tell it where to write.
template <class Flag, class Emit>
__device__ int64_t compact(int64_t count, int64_t limit, Flag flag, Emit emit) {
  constexpr int kMaxRun = 16, kWarps = kCompactThreads / 32;
  __shared__ int sums[kWarps];
  const int t = static_cast<int>(threadIdx.x), warp = t / 32;
  const int64_t even = (count + kCompactThreads - 1) / kCompactThreads;
  const int run = even < kMaxRun ? static_cast<int>(even) : kMaxRun;
  int64_t written = 0;
  for (int64_t base = 0; base < count && written < limit; base += kCompactThreads * run) {
    const int64_t first = base + int64_t(t) * run;
    unsigned flags = 0;
    for (int k = 0; k < run && first + k < count; ++k) flags |= static_cast<unsigned>(flag(first + k)) << k;
    const int sum = warp_scan(__popc(flags), [](int a, int b) { return a + b; });
    if (t % 32 == 31) sums[warp] = sum;
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) before = all;
      all += sums[w];
    }
    int64_t at = written + before + sum - __popc(flags);
    for (int k = 0; k < run; ++k)
      if (flags >> k & 1) {
        if (at < limit) emit(at, first + k);
        ++at;
      }
    written += all;
    __syncthreads();
  }
  return written < limit ? written : limit;
}

}  // namespace boxops::cuda
