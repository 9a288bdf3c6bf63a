// Blocks that run side by side and wait for each other: a cluster, from sm_90 on. Elsewhere every block is one.
#pragma once

#include "common/cuda_utils.cuh"

namespace boxops::cuda {

__device__ inline unsigned cluster_blocks() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  return 1;
#else
  return __clusterSizeInBlocks();
#endif
}

// Of the block among those.
__device__ inline unsigned cluster_rank() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  return 0;
#else
  return __clusterRelativeBlockRank();
#endif
}

// Waits for all threads of the cluster that have not left the kernel; what they wrote to global memory is there then.
__device__ inline void cluster_sync() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  __syncthreads();
#else
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
}

}  // namespace boxops::cuda
