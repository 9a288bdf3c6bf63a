// Programs whose performance counters are known by hand (tests/test_cuda_counters.py). The result says nothing.
#include "programs/program.h"

namespace {

constexpr int kThreads = 256, kBlocks = 4, kCount = kThreads * kBlocks;  // 32 warps

__device__ int here() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

template <class T>
__global__ void copy_kernel(const T* from, int stride, T* to) {
  to[here()] = from[here() * stride];
}

template <class T>
double copy(int stride) {
  Device<T> from(kCount * (stride > 0 ? stride : 1)), to(kCount);
  launch(copy_kernel<T>, kBlocks, kThreads, from, stride, to);
  return 0;
}
PROGRAM(coalesced) { return copy<float>(1); }
PROGRAM(coalesced_bytes) { return copy<unsigned char>(1); }
PROGRAM(coalesced_vectors) { return copy<float4>(1); }
PROGRAM(strided) { return copy<float>(32); }
PROGRAM(broadcast) { return copy<float>(0); }

// One warp writes and reads a column of a shared table.
template <class T>
__global__ void column_kernel(int pitch, T* out) {
  __shared__ T table[32 * 33];
  const int lane = static_cast<int>(threadIdx.x);
  table[lane * pitch] = T();
  __syncwarp();
  out[lane] = table[lane * pitch];
}

template <class T>
double column(int pitch) {
  Device<T> out(32);
  launch(column_kernel<T>, 1, 32, pitch, out);
  return 0;
}
PROGRAM(bank_conflicts) { return column<float>(32); }
PROGRAM(two_to_a_bank) { return column<float>(2); }
PROGRAM(no_conflicts) { return column<float>(33); }
PROGRAM(doubles) { return column<double>(1); }
PROGRAM(vectors) { return column<float4>(1); }
PROGRAM(one_double) { return column<double>(0); }
PROGRAM(one_vector) { return column<float4>(0); }

__global__ void add_kernel(unsigned* sums, int lanes_to_a_sum) { atomicAdd(&sums[here() / lanes_to_a_sum], 1u); }

double add(int lanes_to_a_sum) {
  Device<unsigned> sums(kCount);
  launch(add_kernel, kBlocks, kThreads, sums, lanes_to_a_sum);
  return 0;
}
PROGRAM(one_sum_each) { return add(1); }
PROGRAM(one_sum_for_8) { return add(8); }
PROGRAM(one_sum_for_all) { return add(kCount); }

// Block b comes to 2 + b barriers.
__global__ void barriers_kernel() {
  for (unsigned i = 0; i < 2 + blockIdx.x; ++i) __syncthreads();
}
PROGRAM(barriers) {
  launch(barriers_kernel, kBlocks, kThreads);
  return 0;
}

// Half of each warp goes another way, and comes back.
__global__ void two_ways_kernel(int* out) {
  const int i = here();
  if (threadIdx.x & 1) out[i] = 1;
  else out[i] = i * i;
  out[i + kCount] = 2;
}
PROGRAM(two_ways) {
  Device<int> out(2 * kCount);
  launch(two_ways_kernel, kBlocks, kThreads, out);
  return 0;
}

// Lane i reads i numbers.
__global__ void triangle_kernel(const int* in, int* out) {
  int sum = 0;
  for (unsigned i = 0; i < threadIdx.x; ++i) sum += in[i * 32 + threadIdx.x];
  out[threadIdx.x] = sum;
}
PROGRAM(triangle) {
  Device<int> in(32 * 32), out(32);
  launch(triangle_kernel, 1, 32, in, out);
  return 0;
}

// The first lanes of some warps of the first block walk round a ring, whose members lie in sectors of their own.
__global__ void ring_kernel(const int* next, int steps, unsigned warps, int* last) {
  if (blockIdx.x != 0 || threadIdx.x % 32 != 0 || threadIdx.x / 32 >= warps) return;
  int at = 0;
  for (int i = 0; i < steps; ++i) at = next[at];
  last[threadIdx.x] = at;
}

void walk(int members, int steps, unsigned warps) {
  std::vector<int> next(members * 8);
  for (int i = 0; i < members; ++i) next[i * 8] = (i + 1) % members * 8;
  Device<int> ring(next), last(kThreads);
  launch(ring_kernel, kBlocks, kThreads, ring, steps, warps, last);
}

PROGRAM(rings) {
  walk(2000, 1000, 1);
  walk(2000, 2000, 1);
  walk(2000, 2000, 8);
  walk(100, 1100, 1);
  return 0;
}

PROGRAM(operations) {
  Device<int> a(100), b(100);
  cudaMemsetAsync(a, 0, 100);
  cudaMemcpyAsync(b, a, 100, cudaMemcpyDeviceToDevice);
  launch(barriers_kernel, 1, 32);
  return 0;
}

}  // namespace
