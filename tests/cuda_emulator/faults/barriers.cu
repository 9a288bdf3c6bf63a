// Planted faults that every build reports: barriers that not all threads come to.
#include "programs/program.h"

namespace {

__global__ void early_return_kernel(int n, int* out) {
  __shared__ int tile[64];
  if (static_cast<int>(threadIdx.x) >= n) return;
  tile[threadIdx.x] = 1;
  __syncthreads();  // FAULT early_return
  out[threadIdx.x] = tile[n - 1 - static_cast<int>(threadIdx.x)];
}

PROGRAM(early_return) {
  Device<int> out(64);
  launch(early_return_kernel, 1, 64, 60, out);
  return 0;
}

__global__ void two_barriers_kernel(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();  // FAULT two_barriers
    out[threadIdx.x] = 1;
  } else {
    out[threadIdx.x] = 2;
    __syncthreads();  // FAULT two_barriers
  }
}

PROGRAM(two_barriers) {
  Device<int> out(64);
  launch(two_barriers_kernel, 1, 64, out);
  return 0;
}

__global__ void trap_kernel(int n) {
  if (static_cast<int>(threadIdx.x) == n) __trap();  // FAULT trap
}

PROGRAM(trap) {
  launch(trap_kernel, 1, 64, 40);
  return 0;
}

}  // namespace
