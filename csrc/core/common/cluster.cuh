// Blocks that run side by side and wait for each other: a cluster, from sm_90 on. Elsewhere every block is one.
#pragma once

#include "common/cuda_utils.cuh"

namespace boxops::cuda {

// cluster_blocks: how many these are; cluster_rank: which of them the block is. cluster_sync waits for all threads of
// the cluster that have not left the kernel; what they wrote to global memory is there then.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
__device__ inline unsigned cluster_blocks() { return 1; }
__device__ inline unsigned cluster_rank() { return 0; }
__device__ inline void cluster_sync() { __syncthreads(); }
#else
__device__ inline unsigned cluster_blocks() { return __clusterSizeInBlocks(); }
__device__ inline unsigned cluster_rank() { return __clusterRelativeBlockRank(); }
__device__ inline void cluster_sync() { __cluster_barrier_arrive(), __cluster_barrier_wait(); }
#endif

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
  const unsigned grid = grid_x(blocks_of(blocks, int64_t(kClusterBlocks)) * kClusterBlocks);
  cudaLaunchConfig_t config = config_of(0, grid, threads, stream);
  config.attrs = &cluster, config.numAttrs = compiled.ptxVersion >= 90 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

}  // namespace boxops::cuda
