// Bit tricks, reinterpretation, and arithmetic with a named rounding.
#pragma once

#include <math.h>
#include <string.h>

#include <type_traits>

#include "device/qualifiers.h"

template <class T>
__forceinline__ T __ldg(const T* address) {
  return *address;
}

constexpr int __popc(unsigned x) { return __builtin_popcount(x); }
constexpr int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
constexpr int __ffs(int x) { return __builtin_ffs(x); }
constexpr int __ffsll(long long x) { return __builtin_ffsll(x); }
constexpr int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
constexpr int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }

constexpr unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1) << (31 - i);
  return reversed;
}
constexpr unsigned long long __brevll(unsigned long long x) {
  return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32 |
         __brev(static_cast<unsigned>(x >> 32));
}
constexpr unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}

namespace cuda_emulator {
template <class To, class From>
__forceinline__ To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}
}  // namespace cuda_emulator

__forceinline__ unsigned __float_as_uint(float x) { return cuda_emulator::bits_as<unsigned>(x); }
__forceinline__ int __float_as_int(float x) { return cuda_emulator::bits_as<int>(x); }
__forceinline__ float __uint_as_float(unsigned x) { return cuda_emulator::bits_as<float>(x); }
__forceinline__ float __int_as_float(int x) { return cuda_emulator::bits_as<float>(x); }
__forceinline__ long long __double_as_longlong(double x) { return cuda_emulator::bits_as<long long>(x); }
__forceinline__ double __longlong_as_double(long long x) { return cuda_emulator::bits_as<double>(x); }

// CPU arithmetic rounds to nearest, and the build forbids contraction.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1.0 / a; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }

// CUDA's min and max: of mixed types the common one; a NaN loses.
template <class A, class B, class T = std::common_type_t<A, B>>
__forceinline__ std::enable_if_t<std::is_arithmetic_v<T>, T> min(A a, B b) {
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  return y < x || x != x ? y : x;
}
template <class A, class B, class T = std::common_type_t<A, B>>
__forceinline__ std::enable_if_t<std::is_arithmetic_v<T>, T> max(A a, B b) {
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  return x < y || x != x ? y : x;
}
