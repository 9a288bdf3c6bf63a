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

constexpr unsigned kClusterBlocks = 8;  // as many as every device with clusters has room for

// Launches clusters of kClusterBlocks blocks, or single blocks where the kernel is not compiled for clusters: as few as
// make up `blocks`.
template <class... Params, class... Args>
int launch_clusters(void (*kernel)(Params...), int64_t blocks, unsigned threads, void* stream, Args... args) {
  cudaFuncAttributes compiled;
  BOXOPS_TRY(cudaFuncGetAttributes(&compiled, kernel));
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = kClusterBlocks, cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = static_cast<unsigned>(blocks_of(blocks, int64_t(kClusterBlocks)) * kClusterBlocks);
  config.blockDim = threads;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &cluster, config.numAttrs = compiled.ptxVersion >= 90 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

}  // namespace boxops::cuda
