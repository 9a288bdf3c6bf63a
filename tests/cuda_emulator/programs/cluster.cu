// Right programs: clusters of blocks. The result counts wrong elements.
#include "common/cluster.cuh"
#include "common/dynamic_shared.cuh"
#include "programs/program.h"

namespace {

using boxops::cuda::cluster_blocks;
using boxops::cuda::cluster_rank;
using boxops::cuda::cluster_sync;

// Round by round, every block hands on what it holds in memory of its own, which the others must not disturb; of an odd
// rank, only half of its threads are still there.
__global__ void hand_on_kernel(int rounds, int* out) {
  __shared__ int held[64];
  int* const more = boxops::cuda::dynamic_shared<int>();
  const int t = static_cast<int>(threadIdx.x), cluster = static_cast<int>(blockIdx.x / cluster_blocks());
  const int blocks = static_cast<int>(cluster_blocks()), rank = static_cast<int>(cluster_rank());
  if (rank % 2 == 1 && t >= 32) return;
  held[t] = rank, more[t] = 100 * cluster;
  int* const passed = out + 64 * cluster * blocks;
  for (int round = 0; round < rounds; ++round) {
    cluster_sync();  // the others have read
    passed[64 * ((rank + 1) % blocks) + t] = held[t] + more[t];
    cluster_sync();
    held[t] = passed[64 * rank + t] - more[t];
  }
  cluster_sync();
  passed[64 * rank + t] = held[t] + more[t];
}

PROGRAM(clusters) {
  constexpr int kBlocks = 4, kClusters = 3, kRounds = 6;
  std::vector<int> want(64 * kBlocks * kClusters);
  for (int i = 0; i < static_cast<int>(want.size()); ++i) {
    const int rank = i / 64 % kBlocks, from = (rank + kBlocks - kRounds % kBlocks) % kBlocks;
    want[i] = i % 64 >= 32 ? 0 : from + 100 * (i / 64 / kBlocks);
  }
  Device<int> out(want.size());
  launch_with(kBlocks, 64 * sizeof(int), hand_on_kernel, kBlocks * kClusters, 64, kRounds, out);
  std::vector<int> got = out.values();
  for (size_t i = 0; i < got.size(); ++i)
    if (i % 64 >= 32) got[i] = 0;  // of blocks whose upper half has come to nobody
  return count_differences(got, want);
}

}  // namespace
