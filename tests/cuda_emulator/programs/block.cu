// Right programs: barriers, shared memory, atomics. The result counts wrong elements.

#include "common/dynamic_shared.cuh"
#include "programs/program.h"

namespace {

// A tree reduction by each block.
template <int threads>
__global__ void __launch_bounds__(threads) sum_kernel(const int* in, int n, int* out) {
  __shared__ int partial[threads];
  const int t = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x) * threads + t;
  partial[t] = i < n ? in[i] : 0;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) partial[t] += partial[t + half];
  }
  if (t == 0) out[blockIdx.x] = partial[0];
}

PROGRAM(tiled_sum) {
  std::vector<int> in(1000);
  for (int i = 0; i < 1000; ++i) in[i] = i * i % 97;
  std::vector<int> want(8);
  for (int i = 0; i < 1000; ++i) want[i / 128] += in[i];
  Device<int> a(in), out(want.size());
  launch(sum_kernel<128>, 8, 128, a, 1000, out);
  return count_differences(out.values(), want);
}

// The same through dynamic shared memory: reverses each block's elements.
__global__ void reverse_kernel(const double* in, double* out) {
  double* const tile = boxops::cuda::dynamic_shared<double>();
  const unsigned t = threadIdx.y * blockDim.x + threadIdx.x, n = blockDim.x * blockDim.y;
  tile[t] = in[blockIdx.x * n + t];
  __syncthreads();
  out[blockIdx.x * n + t] = tile[n - 1 - t];
}

PROGRAM(dynamic_reverse) {
  std::vector<double> in(12 * 70), want(in.size());
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<double>(i);
  for (size_t i = 0; i < in.size(); ++i) want[i] = in[i / 70 * 70 + 69 - i % 70];
  Device<double> a(in), out(in.size());
  launch_with_shared(70 * sizeof(double), reverse_kernel, 12, dim3(10, 7), a, out);
  return count_differences(out.values(), want);
}

// Shared bins first, then global ones.
__global__ void histogram_kernel(const int* in, int n, unsigned* out) {
  __shared__ unsigned bins[32];
  if (threadIdx.x < 32) bins[threadIdx.x] = 0;
  __syncthreads();
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < static_cast<unsigned>(n); i += gridDim.x * blockDim.x)
    atomicAdd(&bins[in[i] & 31], 1);
  __syncthreads();
  if (threadIdx.x < 32) atomicAdd(&out[threadIdx.x], bins[threadIdx.x]);
}

PROGRAM(histogram) {
  std::vector<int> in(5000);
  std::vector<unsigned> want(32);
  for (int i = 0; i < 5000; ++i) ++want[(in[i] = i * 2654435761u >> 20) & 31];
  Device<int> a(in);
  Device<unsigned> out(32);
  launch(histogram_kernel, 5, 96, a, 5000, out);
  return count_differences(out.values(), want);
}

// One of each atomic, with results that no order changes.
__global__ void atomics_kernel(int* i, unsigned* u, unsigned long long* l, double* d) {
  const int t = static_cast<int>(threadIdx.x);
  atomicMin(&i[0], t), atomicMax(&i[1], t), atomicSub(&i[2], t);
  atomicAnd(&u[0], ~(1u << (t & 31))), atomicXor(&u[1], 1u << (t & 7)), atomicInc(&u[2], 9);
  atomicOr(&l[0], 1ull << (t & 63)), atomicAdd(&l[1], 1ull << 40), atomicMax(&l[2], static_cast<unsigned>(t));
  atomicAdd(&d[0], 0.5);
  unsigned long long old = 0, seen;  // an increment by compare and swap
  while ((seen = atomicCAS(&l[3], old, old + 1)) != old) old = seen;
}

PROGRAM(atomics) {
  Device<int> i({7, 7, 0});
  Device<unsigned> u({0xffffffff, 0, 0});
  Device<unsigned long long> l({0, 0, 0, 0});
  Device<double> d(1);
  launch(atomics_kernel, 1, 64, i, u, l, d);
  return count_differences(i.values(), {0, 63, -2016}) + count_differences(u.values(), {0, 0, 4}) +
         count_differences(l.values(), {~0ull, 64ull << 40, 63, 64}) + count_differences(d.values(), {32.0});
}

// The block that comes last adds up what the others left: ordered by fence and atomic.
__global__ void last_block_kernel(int* partial, unsigned* arrived, int* total) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
    __threadfence();
    last = atomicAdd(arrived, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 1)
    for (unsigned b = 0; b < gridDim.x; ++b) *total += partial[b];
}

PROGRAM(last_block) {
  Device<int> partial(20), total(1);
  Device<unsigned> arrived(1);
  launch(last_block_kernel, 20, 64, partial, arrived, total);
  return count_differences(total.values(), {210});
}

// The votes of a block.
__global__ void votes_kernel(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(t % 3 == 0), all = __syncthreads_and(t < 100), any = __syncthreads_or(t == 99);
  const int not_all = __syncthreads_and(t < 99), none = __syncthreads_or(t == 100);
  if (count != 34 || !all || !any || not_all || none) atomicAdd(out, 1);
}

PROGRAM(block_votes) {
  Device<int> out(1);
  launch(votes_kernel, 3, 100, out);
  return out.values()[0];
}

}  // namespace
