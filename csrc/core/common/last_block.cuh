// A launch whose last block goes on where others would need a launch more. Nothing waits.
#pragma once

#include <cuda_runtime.h>

namespace boxops::cuda {

// Whether this is the last of `blocks` blocks to come here; all its threads call. It then sees what the others wrote
// before. *arrived is 0 before the first comes, and is so again behind the last.
__device__ inline bool is_last_block(unsigned* arrived, unsigned blocks) {
  __syncthreads();
  bool last = false;
  if (threadIdx.x == 0) {
    __threadfence();  // what the block has written is there for whoever sees the count
    last = atomicInc(arrived, blocks - 1) == blocks - 1;
    __threadfence();  // and what the others have for this block
  }
  return __syncthreads_or(last) != 0;
}

}  // namespace boxops::cuda
