// Planted faults of clusters.
#include "common/cluster.cuh"
#include "programs/program.h"

namespace {

// The race build alone sees it: nothing orders what one block writes and the other reads.
__global__ void missing_cluster_barrier_kernel(int* data, int* out) {
  const unsigned at = boxops::cuda::cluster_rank();
  data[at] = 1;                     // FAULT missing_cluster_barrier
  __syncthreads();                  // of the block alone
  out[threadIdx.x] = data[1 - at];  // FAULT missing_cluster_barrier
}

PROGRAM(missing_cluster_barrier) {
  Device<int> data(2), out(32);
  launch_with(2, 0, missing_cluster_barrier_kernel, 2, 1, data, out);
  return 0;
}

// A cluster's barrier orders its own blocks alone.
__global__ void foreign_cluster_kernel(int* data) {
  boxops::cuda::cluster_sync();
  if (threadIdx.x == 0 && boxops::cuda::cluster_rank() == 0) data[0] = 1;  // FAULT foreign_cluster
  boxops::cuda::cluster_sync();
}

PROGRAM(foreign_cluster) {
  Device<int> data(1);
  launch_with(2, 0, foreign_cluster_kernel, 4, 32, data);
  return 0;
}

__global__ void block_and_cluster_kernel(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();  // FAULT block_and_cluster
  } else {
    boxops::cuda::cluster_sync();
  }
  out[threadIdx.x] = 1;
}

PROGRAM(block_and_cluster) {
  Device<int> out(64);
  launch(block_and_cluster_kernel, 1, 64, out);
  return 0;
}

}  // namespace
