// Right programs: warp intrinsics. The result counts wrong elements.
#include "programs/program.h"

namespace {

constexpr unsigned kAll = 0xffffffff;

// Stable compaction of the odd numbers of a warp's 32, by ballot.
__global__ void compact_kernel(const int* in, int* out, int* counts) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, warp = i / 32, lane = i % 32;
  const unsigned odd = __ballot_sync(kAll, in[i] & 1);
  if (odd >> lane & 1) out[warp * 32 + __popc(odd & ((1u << lane) - 1))] = in[i];
  if (lane == 0) counts[warp] = __popc(odd);
}

PROGRAM(ballot_compact) {
  std::vector<int> in(512), want(512), counts(16);
  for (int i = 0; i < 512; ++i) in[i] = i * 2654435761u >> 16;
  for (int i = 0; i < 512; ++i)
    if (in[i] & 1) want[i / 32 * 32 + counts[i / 32]++] = in[i];
  Device<int> a(in), out(512), n(16);
  launch(compact_kernel, 4, 128, a, out, n);
  return count_differences(out.values(), want) + count_differences(n.values(), counts);
}

// Inclusive scan by shuffles; the last lane's sum comes back to all by another.
__global__ void scan_kernel(const double* in, double* out, double* totals) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, lane = i % 32;
  double sum = in[i];
  for (unsigned step = 1; step < 32; step *= 2) {
    const double left = __shfl_up_sync(kAll, sum, step);
    if (lane >= step) sum += left;
  }
  out[i] = sum;
  totals[i] = __shfl_sync(kAll, sum, 31);
}

PROGRAM(shuffle_scan) {
  std::vector<double> in(256), want(256), totals(256);
  for (int i = 0; i < 256; ++i) in[i] = i * 37 % 101;
  for (int i = 0; i < 256; ++i) want[i] = in[i] + (i % 32 ? want[i - 1] : 0);
  for (int i = 0; i < 256; ++i) totals[i] = want[i | 31];
  Device<double> a(in), out(256), t(256);
  launch(scan_kernel, 2, 128, a, out, t);
  return count_differences(out.values(), want) + count_differences(t.values(), totals);
}

// The other intrinsics, each against what its definition says.
__global__ void intrinsics_kernel(int* wrong) {
  const int lane = static_cast<int>(threadIdx.x);
  const auto expect = [&](bool right) {
    if (!right) atomicAdd(wrong, 1);
  };
  expect(__match_any_sync(kAll, lane / 5) == (lane < 30 ? 31u << lane / 5 * 5 : 3u << 30));
  int all;
  expect(__match_all_sync(kAll, 4.0f, &all) == kAll && all);
  expect(__match_all_sync(kAll, lane, &all) == 0 && !all);
  expect(__shfl_xor_sync(kAll, lane, 5) == (lane ^ 5));
  expect(__shfl_down_sync(kAll, lane, 3, 8) == (lane % 8 < 5 ? lane + 3 : lane));
  expect(__shfl_sync(kAll, lane, 9, 8) == lane / 8 * 8 + 1);
  expect(__reduce_add_sync(kAll, lane) == 496 && __reduce_min_sync(kAll, -lane) == -31);
  expect(__reduce_max_sync(kAll, static_cast<unsigned>(lane)) == 31 && __reduce_or_sync(kAll, 1u << lane) == kAll);
  expect(__any_sync(kAll, lane == 7) && !__any_sync(kAll, lane == 32));
  expect(__all_sync(kAll, lane < 32) && !__all_sync(kAll, lane < 31));
  // Two halves of the warp, apart.
  if (lane < 16) {
    expect(__ballot_sync(0x0000ffff, lane % 2) == 0xaaaa);
  } else {
    expect(__reduce_add_sync(0xffff0000, 1) == 16);
    expect(__ballot_sync(0xffff0000, lane % 2) == 0xaaaa0000);
  }
  __syncwarp();
}

PROGRAM(warp_intrinsics) {
  Device<int> wrong(1);
  launch(intrinsics_kernel, 6, 32, wrong);
  return wrong.values()[0];
}

// Neighbouring lanes exchange through shared memory, ordered by __syncwarp alone.
__global__ void exchange_kernel(int* out) {
  __shared__ int slot[64];
  const unsigned t = threadIdx.x;
  slot[t] = static_cast<int>(t);
  __syncwarp();
  const int other = slot[t ^ 1];
  __syncwarp();
  slot[t] = other;
  out[blockIdx.x * 64 + t] = slot[t];
}

PROGRAM(syncwarp_exchange) {
  std::vector<int> want(128);
  for (int i = 0; i < 128; ++i) want[i] = i % 64 ^ 1;
  Device<int> out(128);
  launch(exchange_kernel, 2, 64, out);
  return count_differences(out.values(), want);
}

}  // namespace
