// Planted faults that the asan build reports.
#include "common/dynamic_shared.cuh"
#include "programs/program.h"

namespace {

// Apart, so that the overflow is one at run time only.
template <class T>
__attribute__((noinline)) __device__ void put(T* array, unsigned i, T value) {
  array[i] = value;  // FAULT shared_overflow
}

template <class T>
__global__ void shared_overflow_kernel(T* out) {
  __shared__ T tile[64];
  put(tile, threadIdx.x + 1, out[threadIdx.x]);
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

PROGRAM(shared_overflow) {
  Device<float> out(64);
  launch(shared_overflow_kernel<float>, 1, 64, out);
  return 0;
}

__global__ void dynamic_overflow_kernel(float* out) {
  float* const tile = boxops::cuda::dynamic_shared<float>();
  tile[threadIdx.x] = 1;  // FAULT dynamic_overflow
  __syncthreads();
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

PROGRAM(dynamic_overflow) {
  Device<float> out(64);
  launch_with_shared(63 * sizeof(float), dynamic_overflow_kernel, 1, 64, out);
  return 0;
}

__global__ void global_overflow_kernel(float* out) {
  out[blockIdx.x * blockDim.x + threadIdx.x] = 1;  // FAULT global_overflow
}

PROGRAM(global_overflow) {
  Device<float> out(100);
  launch(global_overflow_kernel, 2, 64, out);
  return 0;
}

__global__ void misaligned_kernel(const float* in, float4* out) {
  out[0] = *reinterpret_cast<const float4*>(in + 1);  // FAULT misaligned
}

PROGRAM(misaligned) {
  Device<float> in(8);
  Device<float4> out(1);
  launch(misaligned_kernel, 1, 1, in, out);
  return 0;
}

}  // namespace
