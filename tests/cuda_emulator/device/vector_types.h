// CUDA's vector types, as large and as aligned as on the device (UBSan reports misaligned access).
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

// A copy is one access of memory, as it is one instruction on the device: the compiler would make it one for each
// member.
#define EMULATOR_VECTOR_COPIES(name, bytes)                                    \
  using Whole = unsigned char __attribute__((vector_size(bytes), may_alias));  \
  name() = default;                                                            \
  name(const name& other) { *this = other; }                                   \
  name& operator=(const name& other) {                                         \
    *reinterpret_cast<Whole*>(this) = *reinterpret_cast<const Whole*>(&other); \
    return *this;                                                              \
  }

#define EMULATOR_VECTOR2(type, name)               \
  struct alignas(2 * sizeof(type)) name {          \
    type x, y;                                     \
    EMULATOR_VECTOR_COPIES(name, 2 * sizeof(type)) \
    constexpr name(type x, type y) : x(x), y(y) {} \
  };                                               \
  constexpr name make_##name(type x, type y) { return {x, y}; }

#define EMULATOR_VECTOR4(type, name, alignment)                                \
  struct alignas(alignment) name {                                             \
    type x, y, z, w;                                                           \
    EMULATOR_VECTOR_COPIES(name, 4 * sizeof(type))                             \
    constexpr name(type x, type y, type z, type w) : x(x), y(y), z(z), w(w) {} \
  };                                                                           \
  constexpr name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

EMULATOR_VECTOR2(unsigned char, uchar2)
EMULATOR_VECTOR2(short, short2)
EMULATOR_VECTOR2(unsigned short, ushort2)
EMULATOR_VECTOR2(int, int2)
EMULATOR_VECTOR2(unsigned, uint2)
EMULATOR_VECTOR2(long long, longlong2)
EMULATOR_VECTOR2(unsigned long long, ulonglong2)
EMULATOR_VECTOR2(float, float2)
EMULATOR_VECTOR2(double, double2)
EMULATOR_VECTOR4(unsigned char, uchar4, 4)
EMULATOR_VECTOR4(short, short4, 8)
EMULATOR_VECTOR4(unsigned short, ushort4, 8)
EMULATOR_VECTOR4(int, int4, 16)
EMULATOR_VECTOR4(unsigned, uint4, 16)
EMULATOR_VECTOR4(float, float4, 16)
EMULATOR_VECTOR4(long long, longlong4, 16)
EMULATOR_VECTOR4(double, double4, 16)

#undef EMULATOR_VECTOR2
#undef EMULATOR_VECTOR4
