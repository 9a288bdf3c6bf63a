// Warp intrinsics. The lanes that a mask names meet in the engine, each with one value, and each
// computes its own result from the values of all.
#pragma once

#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "device/qualifiers.h"

namespace cuda_emulator {

struct Lanes {
  uint64_t value[32];
};

// Waits until all lanes of the mask have called it by the same name.
Lanes meet(const char* name, unsigned mask, uint64_t value, Place place);
void warp_barrier(unsigned mask, Place place);
int lane();

template <class T>
EMULATOR_INTERNAL uint64_t to_bits(T value) {
  static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>, "warp intrinsics take numbers");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}

// The value of lane `source`. One that the mask does not name is undefined in CUDA: here it is noise.
template <class T>
EMULATOR_INTERNAL T shuffle(const char* name, unsigned mask, T value, int source, Place place) {
  uint64_t bits = meet(name, mask, to_bits(value), place).value[source];
  if (!(mask >> source & 1)) bits = 0x7e7e7e7e7e7e7e7e;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

// Folds the values of the mask's lanes with f, as T.
template <class T, class F>
EMULATOR_INTERNAL T reduce(const char* name, unsigned mask, T value, Place place, F f) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>, "__reduce_*_sync takes int or unsigned");
  const Lanes lanes = meet(name, mask, to_bits(value), place);
  bool first = true;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const T other = static_cast<T>(lanes.value[i]);
    value = first ? other : f(value, other);
    first = false;
  }
  return value;
}

}  // namespace cuda_emulator

#define EMULATOR_PLACE cuda_emulator::Place place = cuda_emulator::Place::here()

inline void __syncwarp(unsigned mask = 0xffffffff, EMULATOR_PLACE) { cuda_emulator::warp_barrier(mask, place); }

// The lanes that happen to run together: CUDA promises no more than the caller.
inline unsigned __activemask() { return 1u << cuda_emulator::lane(); }

template <class T>
EMULATOR_INTERNAL T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_PLACE) {
  const int segment = cuda_emulator::lane() & -width;
  return cuda_emulator::shuffle("__shfl_sync", mask, value, segment | (source & (width - 1)), place);
}

template <class T>
EMULATOR_INTERNAL T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_PLACE) {
  const int lane = cuda_emulator::lane(), source = lane - static_cast<int>(delta);
  return cuda_emulator::shuffle("__shfl_up_sync", mask, value, source < (lane & -width) ? lane : source, place);
}

template <class T>
EMULATOR_INTERNAL T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_PLACE) {
  const int lane = cuda_emulator::lane(), source = lane + static_cast<int>(delta);
  return cuda_emulator::shuffle("__shfl_down_sync", mask, value, source > (lane | (width - 1)) ? lane : source, place);
}

template <class T>
EMULATOR_INTERNAL T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMULATOR_PLACE) {
  const int lane = cuda_emulator::lane(), source = lane ^ bits;
  return cuda_emulator::shuffle("__shfl_xor_sync", mask, value, source > (lane | (width - 1)) ? lane : source, place);
}

EMULATOR_INTERNAL inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_PLACE) {
  const cuda_emulator::Lanes lanes = cuda_emulator::meet("__ballot_sync", mask, predicate != 0, place);
  unsigned ballot = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) ballot |= static_cast<unsigned>(lanes.value[i]) << i;
  return ballot;
}

inline int __any_sync(unsigned mask, int predicate, EMULATOR_PLACE) {
  return __ballot_sync(mask, predicate, place) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATOR_PLACE) {
  return __ballot_sync(mask, !predicate, place) == 0;
}

template <class T>
EMULATOR_INTERNAL unsigned __match_any_sync(unsigned mask, T value, EMULATOR_PLACE) {
  const uint64_t mine = cuda_emulator::to_bits(value);
  const cuda_emulator::Lanes lanes = cuda_emulator::meet("__match_any_sync", mask, mine, place);
  unsigned equal = 0;
  for (int i = 0; i < 32; ++i)
    if ((mask >> i & 1) && lanes.value[i] == mine) equal |= 1u << i;
  return equal;
}

template <class T>
EMULATOR_INTERNAL unsigned __match_all_sync(unsigned mask, T value, int* predicate, EMULATOR_PLACE) {
  *predicate = __match_any_sync(mask, value, place) == mask;
  return *predicate ? mask : 0;
}

template <class T>
EMULATOR_INTERNAL T __reduce_add_sync(unsigned mask, T value, EMULATOR_PLACE) {
  return cuda_emulator::reduce("__reduce_add_sync", mask, value, place,
                               [](unsigned a, unsigned b) EMULATOR_INTERNAL { return a + b; });
}
template <class T>
EMULATOR_INTERNAL T __reduce_min_sync(unsigned mask, T value, EMULATOR_PLACE) {
  return cuda_emulator::reduce("__reduce_min_sync", mask, value, place,
                               [](T a, T b) EMULATOR_INTERNAL { return b < a ? b : a; });
}
template <class T>
EMULATOR_INTERNAL T __reduce_max_sync(unsigned mask, T value, EMULATOR_PLACE) {
  return cuda_emulator::reduce("__reduce_max_sync", mask, value, place,
                               [](T a, T b) EMULATOR_INTERNAL { return a < b ? b : a; });
}
EMULATOR_INTERNAL inline unsigned __reduce_and_sync(unsigned mask, unsigned value, EMULATOR_PLACE) {
  return cuda_emulator::reduce("__reduce_and_sync", mask, value, place,
                               [](unsigned a, unsigned b) EMULATOR_INTERNAL { return a & b; });
}
EMULATOR_INTERNAL inline unsigned __reduce_or_sync(unsigned mask, unsigned value, EMULATOR_PLACE) {
  return cuda_emulator::reduce("__reduce_or_sync", mask, value, place,
                               [](unsigned a, unsigned b) EMULATOR_INTERNAL { return a | b; });
}
EMULATOR_INTERNAL inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, EMULATOR_PLACE) {
  return cuda_emulator::reduce("__reduce_xor_sync", mask, value, place,
                               [](unsigned a, unsigned b) EMULATOR_INTERNAL { return a ^ b; });
}

#undef EMULATOR_PLACE
