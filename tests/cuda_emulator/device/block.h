// What a thread knows of its place in the grid, the block's barrier, and fences.
#pragma once

#include "device/qualifiers.h"
#include "device/vector_types.h"

// The engine sets these whenever it switches threads; to any one thread they are constant. They are
// true variables so that a debugger can test them: break nms_cuda.cu:90 if threadIdx.x == 7
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_emulator {

// Waits for every thread of the block; returns how many came with a true predicate.
int block_barrier(const char* name, bool predicate, Place place);
// Waits for every thread of the cluster that has not left the kernel.
void cluster_barrier(Place place);
unsigned cluster_blocks();
unsigned cluster_rank();
// Publishes what the thread has written to whoever reads the next atomic it performs.
void fence();
// Lets another thread run.
void yield();
[[noreturn]] void trap(Place place);

}  // namespace cuda_emulator

inline void __syncthreads(cuda_emulator::Place place = cuda_emulator::Place::here()) {
  cuda_emulator::block_barrier("__syncthreads", false, place);
}
inline int __syncthreads_count(int predicate, cuda_emulator::Place place = cuda_emulator::Place::here()) {
  return cuda_emulator::block_barrier("__syncthreads_count", predicate != 0, place);
}
inline int __syncthreads_or(int predicate, cuda_emulator::Place place = cuda_emulator::Place::here()) {
  return cuda_emulator::block_barrier("__syncthreads_or", predicate != 0, place) != 0;
}
inline int __syncthreads_and(int predicate, cuda_emulator::Place place = cuda_emulator::Place::here()) {
  return cuda_emulator::block_barrier("__syncthreads_and", predicate == 0, place) == 0;
}

// Clusters, along x. Nobody waits at the barrier's first half.
inline unsigned __clusterSizeInBlocks() { return cuda_emulator::cluster_blocks(); }
inline unsigned __clusterRelativeBlockRank() { return cuda_emulator::cluster_rank(); }
inline void __cluster_barrier_arrive() {}
inline void __cluster_barrier_wait(cuda_emulator::Place place = cuda_emulator::Place::here()) {
  cuda_emulator::cluster_barrier(place);
}

inline void __threadfence() { cuda_emulator::fence(); }
inline void __threadfence_block() { cuda_emulator::fence(); }
inline void __threadfence_system() { cuda_emulator::fence(); }
inline void __nanosleep(unsigned) { cuda_emulator::yield(); }
[[noreturn]] inline void __trap(cuda_emulator::Place place = cuda_emulator::Place::here()) {
  cuda_emulator::trap(place);
}
