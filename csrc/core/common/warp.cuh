// What the 32 lanes of a warp find out together. All lanes call; but for a scan, all get the same.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>

namespace boxops::cuda {

constexpr unsigned kFullMask = 0xffffffffu;

// A value and whose it is. The larger value comes first, of equal ones that of the lower index; NaN is for the caller
// to keep out.
template <class T>
struct Indexed {
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  T value;
  int64_t index;
  __device__ static Indexed none() { return {-std::numeric_limits<T>::infinity(), kNone}; }  // behind all
  __device__ bool before(const Indexed& o) const { return value > o.value || (value == o.value && index < o.index); }
};

// The first lane for which it holds; -1: none.
__device__ inline int first_lane(bool holds) { return __ffs(static_cast<int>(__ballot_sync(kFullMask, holds))) - 1; }

// What the lane whose number differs in `bits` holds.
template <class T>
__device__ T shuffle_xor(T value, int bits) {
  return __shfl_xor_sync(kFullMask, value, bits);
}
template <class T>
__device__ Indexed<T> shuffle_xor(const Indexed<T>& own, int bits) {
  return {shuffle_xor(own.value, bits), shuffle_xor(own.index, bits)};
}

// op over the values of all lanes; op(a, b) is op(b, a).
template <class T, class Op>
__device__ T warp_reduce(T value, Op op) {
  for (int bits = 16; bits > 0; bits /= 2) value = op(value, shuffle_xor(value, bits));
  return value;
}
template <class T>
__device__ T warp_sum(T value) {
  return warp_reduce(value, [](T a, T b) { return a + b; });
}
template <class T>
__device__ T warp_max(T value) {
  return warp_reduce(value, [](T a, T b) { return a > b ? a : b; });
}
// Of ints in one instruction, where the architecture has it.
__device__ inline int warp_max(int value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return warp_max<int>(value);
#else
  return __reduce_max_sync(kFullMask, value);
#endif
}
template <class T>
__device__ T warp_min(T value) {
  return warp_reduce(value, [](T a, T b) { return a < b ? a : b; });
}
__device__ inline unsigned warp_min(unsigned value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return warp_min<unsigned>(value);
#else
  return __reduce_min_sync(kFullMask, value);
#endif
}
// By halves.
__device__ inline uint64_t warp_min(uint64_t value) {
  const unsigned high = static_cast<unsigned>(value >> 32), low = static_cast<unsigned>(value);
  const unsigned least_high = warp_min(high);
  return uint64_t(least_high) << 32 | warp_min(high == least_high ? low : ~0u);
}
__device__ inline unsigned warp_or(unsigned value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return warp_reduce(value, [](unsigned a, unsigned b) { return a | b; });
#else
  return __reduce_or_sync(kFullMask, value);
#endif
}
// op over the values of the lanes up to and with this one.
template <class T, class Op>
__device__ T warp_scan(T value, Op op) {
  for (int step = 1; step < 32; step *= 2) {
    const T left = __shfl_up_sync(kFullMask, value, step);
    if (static_cast<int>(threadIdx.x % 32) >= step) value = op(left, value);
  }
  return value;
}
// Of things with `before`, such as Indexed, the one before all others.
template <class T>
__device__ T warp_first(const T& own) {
  return warp_reduce(own, [](const T& a, const T& b) { return b.before(a) ? b : a; });
}
// Bits that order as floats do, but for NaN, and -0 below 0; the same makes floats' bits of them again.
__device__ inline int rising_bits(int bits) { return bits < 0 ? bits ^ 0x7fffffff : bits; }
// The largest of numbers, none of them NaN; -0 may be below 0.
template <class T>
__device__ T warp_largest(T value) {
  return warp_max(value);
}
__device__ inline float warp_largest(float value) {
  return __int_as_float(rising_bits(warp_max(rising_bits(__float_as_int(value)))));
}
// Of floats by reductions of integers: the largest value (-0 as 0), then the halves of the lowest index, none of them
// negative, of those that have it.
__device__ inline Indexed<float> warp_first(const Indexed<float>& own) {
  const int key = rising_bits(__float_as_int(own.value + 0.0f));
  const bool largest = key == warp_max(key);
  const unsigned high = static_cast<unsigned>(own.index >> 32), least_high = warp_min(largest ? high : ~0u);
  const bool may_be = largest && high == least_high;
  const unsigned low = static_cast<unsigned>(own.index), least_low = warp_min(may_be ? low : ~0u);
  const int lane = first_lane(may_be && low == least_low);
  return {__shfl_sync(kFullMask, own.value, lane), static_cast<int64_t>(uint64_t(least_high) << 32 | least_low)};
}

}  // namespace boxops::cuda
