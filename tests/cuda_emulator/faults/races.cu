// Planted faults that the race build reports.
#include <algorithm>

#include "programs/program.h"

namespace {

__global__ void missing_syncthreads_kernel(int* out) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  tile[t] = 0;
  __syncthreads();
  tile[t] = t;            // FAULT missing_syncthreads
  out[t] = tile[63 - t];  // FAULT missing_syncthreads
}

PROGRAM(missing_syncthreads) {
  Device<int> out(64);
  launch(missing_syncthreads_kernel, 1, 64, out);
  return 0;
}

// The barrier between reading a tile and overwriting it.
__global__ void missing_second_barrier_kernel(const int* in, int* out) {
  __shared__ int tile[64];
  const int t = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int k = 0; k < 4; ++k) {
    tile[t] = in[k * 64 + t];  // FAULT missing_second_barrier
    __syncthreads();
    for (int i = 0; i < 64; ++i) sum += tile[i];  // FAULT missing_second_barrier
  }
  out[t] = sum;
}

PROGRAM(missing_second_barrier) {
  Device<int> in(256), out(64);
  launch(missing_second_barrier_kernel, 1, 64, in, out);
  return 0;
}

// A shuffle makes lanes meet, but orders no memory.
__global__ void missing_syncwarp_kernel(int* out) {
  __shared__ int slot[32];
  const int t = static_cast<int>(threadIdx.x);
  slot[t] = t;  // FAULT missing_syncwarp
  out[t] = __shfl_sync(0xffffffff, t, 0);
  out[t] += slot[t ^ 1];  // FAULT missing_syncwarp
}

PROGRAM(missing_syncwarp) {
  Device<int> out(32);
  launch(missing_syncwarp_kernel, 1, 32, out);
  return 0;
}

__global__ void racing_blocks_kernel(int* out) {
  if (threadIdx.x == 5) out[0] = static_cast<int>(blockIdx.x);  // FAULT racing_blocks
}

PROGRAM(racing_blocks) {
  Device<int> out(1);
  launch(racing_blocks_kernel, dim3(2, 3), 32, out);
  return 0;
}

__global__ void plain_and_atomic_kernel(int* out) {
  if (threadIdx.x == 5) out[0] += 1;  // FAULT plain_and_atomic
  else atomicAdd(out, 1);             // FAULT plain_and_atomic
}

PROGRAM(plain_and_atomic) {
  Device<int> out(1);
  launch(plain_and_atomic_kernel, 1, 32, out);
  return 0;
}

// Bytes: neighbours share a word but not a byte; thread 7 takes one too many.
__global__ void racing_bytes_kernel(unsigned char* out) {
  const unsigned t = threadIdx.x;
  out[t] = 1;                  // FAULT racing_bytes
  if (t == 7) out[t + 1] = 2;  // FAULT racing_bytes
}

PROGRAM(racing_bytes) {
  Device<unsigned char> out(64);
  launch(racing_bytes_kernel, 1, 64, out);
  return 0;
}

// As programs/block.cu: last_block, without the fence.
__global__ void missing_fence_kernel(int* partial, unsigned* arrived, int* total) {
  partial[blockIdx.x] = 1;  // FAULT missing_fence
  if (atomicAdd(arrived, 1) != gridDim.x - 1) return;
  for (unsigned b = 0; b < gridDim.x; ++b) *total += partial[b];  // FAULT missing_fence
}

PROGRAM(missing_fence) {
  Device<int> partial(8), total(1);
  Device<unsigned> arrived(1);
  launch(missing_fence_kernel, 8, 1, partial, arrived, total);
  return 0;
}

// Shared memory keeps nothing from block to block: only the first one writes all of it.
__global__ void uninitialised_kernel(int n, int* out) {
  __shared__ int tile[64];
  if (static_cast<int>(threadIdx.x) < n || blockIdx.x == 0) tile[threadIdx.x] = 1;
  __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = tile[threadIdx.x];  // FAULT uninitialised_shared
}

PROGRAM(uninitialised_shared) {
  Device<int> out(16 * 64);
  launch(uninitialised_kernel, 16, 64, 63, out);
  int least = out.values()[64 + 63];
  for (int b = 2; b < 16; ++b) least = std::min(least, out.values()[b * 64 + 63]);
  return least;
}

}  // namespace
