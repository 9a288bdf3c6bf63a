// Atomics, for the types that CUDA has them for. A launch runs on one thread of the system, so plain
// reads and writes are atomic; the engine only has to know of them, and may let others go first.
#pragma once

#include <stddef.h>

#include <type_traits>

#include "device/qualifiers.h"

namespace cuda_emulator {

// Called before the access; `caller` is where in the kernel it stands.
void atomic_access(const void* address, size_t size, const void* caller);

template <class T, class... Allowed>
constexpr bool is_one_of = (std::is_same_v<T, Allowed> || ...);

template <class T>
struct Value {  // keeps T out of deduction: atomicAdd(unsigned*, int) is the unsigned one
  using type = T;
};

}  // namespace cuda_emulator

#define EMULATOR_ATOMIC(name, result, ...)                                                          \
  template <class T>                                                                                \
  EMULATOR_INTERNAL T name(T* address, typename cuda_emulator::Value<T>::type value) {              \
    static_assert(cuda_emulator::is_one_of<T, __VA_ARGS__>, "CUDA has no " #name " for this type"); \
    cuda_emulator::atomic_access(address, sizeof(T), __builtin_return_address(0));                  \
    const T old = *address;                                                                         \
    *address = static_cast<T>(result);                                                              \
    return old;                                                                                     \
  }

// Signed overflow wraps on the device, so the additions are done unsigned.
namespace cuda_emulator {
template <class T>
EMULATOR_INTERNAL T wrapping_add(T a, T b) {
  if constexpr (std::is_same_v<T, int>) return static_cast<int>(static_cast<unsigned>(a) + static_cast<unsigned>(b));
  else return a + b;
}
}  // namespace cuda_emulator

EMULATOR_ATOMIC(atomicAdd, cuda_emulator::wrapping_add(old, value), int, unsigned, unsigned long long, float, double)
EMULATOR_ATOMIC(atomicSub, cuda_emulator::wrapping_add(old, static_cast<T>(0u - static_cast<unsigned>(value))), int,
                unsigned)
EMULATOR_ATOMIC(atomicExch, value, int, unsigned, unsigned long long, float)
EMULATOR_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, unsigned long long)
EMULATOR_ATOMIC(atomicMax, value > old ? value : old, int, unsigned, long long, unsigned long long)
EMULATOR_ATOMIC(atomicAnd, (old & value), int, unsigned, unsigned long long)
EMULATOR_ATOMIC(atomicOr, (old | value), int, unsigned, unsigned long long)
EMULATOR_ATOMIC(atomicXor, (old ^ value), int, unsigned, unsigned long long)
EMULATOR_ATOMIC(atomicInc, old >= value ? 0 : old + 1, unsigned)
EMULATOR_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1, unsigned)

#undef EMULATOR_ATOMIC

template <class T>
EMULATOR_INTERNAL T atomicCAS(T* address, typename cuda_emulator::Value<T>::type compare,
                              typename cuda_emulator::Value<T>::type value) {
  static_assert(cuda_emulator::is_one_of<T, int, unsigned, unsigned long long, unsigned short>,
                "CUDA has no atomicCAS for this type");
  cuda_emulator::atomic_access(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  if (old == compare) *address = value;
  return old;
}
