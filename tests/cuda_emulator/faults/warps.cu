// Planted faults that every build reports: masks that do not fit who is there.
#include "programs/program.h"

namespace {

constexpr unsigned kAll = 0xffffffff;

__global__ void left_lane_kernel(int n, int* out) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  out[threadIdx.x] = __reduce_add_sync(kAll, 1);  // FAULT left_lane
}

PROGRAM(left_lane) {
  Device<int> out(32);
  launch(left_lane_kernel, 1, 32, 20, out);
  return 0;
}

PROGRAM(absent_lane) {  // a block of 40 has 8 lanes in its second warp
  Device<int> out(40);
  launch(left_lane_kernel, 1, 40, 40, out);
  return 0;
}

__global__ void foreign_mask_kernel(int* out) {
  out[threadIdx.x] = static_cast<int>(__ballot_sync(0x0000ffff, 1));  // FAULT foreign_mask
}

PROGRAM(foreign_mask) {
  Device<int> out(32);
  launch(foreign_mask_kernel, 1, 32, out);
  return 0;
}

__global__ void mixed_intrinsics_kernel(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(kAll, 1, 0);  // FAULT mixed_intrinsics
  else out[threadIdx.x] = __any_sync(kAll, 1);                       // FAULT mixed_intrinsics
}

PROGRAM(mixed_intrinsics) {
  Device<int> out(32);
  launch(mixed_intrinsics_kernel, 1, 32, out);
  return 0;
}

__global__ void barrier_and_warp_kernel(int* out) {
  if (threadIdx.x == 3) __syncthreads();  // FAULT barrier_and_warp
  else __syncwarp();                      // FAULT barrier_and_warp
  out[threadIdx.x] = 1;
}

PROGRAM(barrier_and_warp) {
  Device<int> out(64);
  launch(barrier_and_warp_kernel, 1, 64, out);
  return 0;
}

}  // namespace
