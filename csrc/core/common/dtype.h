// Loading or storing one element as the compute type.
//
// Low precision and integers are storage only: every kernel computes in float, or in double for types
// with values that float does not hold. The dtype is a run-time value, so a kernel exists once per compute type and not
// once per storage type; the switch costs one well-predicted branch per element loaded, which is O(N + M) where the
// kernels are O(N M).
#pragma once

#include <boxops/types.h>

#include <cstdint>
#include <cstring>

namespace boxops {

namespace detail {

template <class To, class From>
BOXOPS_HD To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits_as keeps the size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

BOXOPS_HD float half_to_float(uint16_t h) {
  // Shift exponent and mantissa into place and rebias by a multiplication, which also handles
  // subnormals; inf and NaN come out with exponent 143 and are lifted to 255.
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const float magnitude = bits_as<float>(static_cast<uint32_t>(h & 0x7fffu) << 13) * bits_as<float>(0x77800000u);
  const uint32_t special = (h & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  return bits_as<float>(bits_as<uint32_t>(magnitude) | special | sign);
}

// Round to nearest, ties to even, as NumPy and torch do.
BOXOPS_HD uint16_t float_to_half(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t a = bits & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (a >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (a < 0x38800000u) {  // subnormal half: adding 0.5 makes the FPU round at the last kept bit
    const float shifted = bits_as<float>(a) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_as<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t rounded = a - 0x38000000u + 0x0fffu + ((a >> 13) & 1u);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

BOXOPS_HD float bfloat16_to_float(uint16_t b) { return bits_as<float>(static_cast<uint32_t>(b) << 16); }

BOXOPS_HD uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  if (value != value) return 0x7fc0u;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace detail

// Calls f with a value of the compute type of this dtype, float or double: how a kernel's entry picks its T.
template <class F>
auto with_compute_type(DType dtype, F&& f) {
  return compute_type(dtype) == DType::kFloat64 ? f(double()) : f(float());
}

// Element `i` of an array of dtype `t`, converted to the compute type T.
template <class T>
BOXOPS_HD T load(const void* data, DType t, int64_t i) {
  switch (t) {
    case DType::kUInt8: return static_cast<T>(static_cast<const uint8_t*>(data)[i]);
    case DType::kInt8: return static_cast<T>(static_cast<const int8_t*>(data)[i]);
    case DType::kUInt16: return static_cast<T>(static_cast<const uint16_t*>(data)[i]);
    case DType::kInt16: return static_cast<T>(static_cast<const int16_t*>(data)[i]);
    case DType::kUInt32: return static_cast<T>(static_cast<const uint32_t*>(data)[i]);
    case DType::kInt32: return static_cast<T>(static_cast<const int32_t*>(data)[i]);
    case DType::kUInt64: return static_cast<T>(static_cast<const uint64_t*>(data)[i]);
    case DType::kInt64: return static_cast<T>(static_cast<const int64_t*>(data)[i]);
    case DType::kFloat16: return static_cast<T>(detail::half_to_float(static_cast<const uint16_t*>(data)[i]));
    case DType::kBFloat16: return static_cast<T>(detail::bfloat16_to_float(static_cast<const uint16_t*>(data)[i]));
    case DType::kFloat32: return static_cast<T>(static_cast<const float*>(data)[i]);
    default: return static_cast<T>(static_cast<const double*>(data)[i]);
  }
}

// Stores to a floating dtype, rounding once.
template <class T>
BOXOPS_HD void store(void* data, DType t, int64_t i, T value) {
  switch (t) {
    case DType::kFloat16: static_cast<uint16_t*>(data)[i] = detail::float_to_half(static_cast<float>(value)); break;
    case DType::kBFloat16:
      static_cast<uint16_t*>(data)[i] = detail::float_to_bfloat16(static_cast<float>(value));
      break;
    case DType::kFloat32: static_cast<float*>(data)[i] = static_cast<float>(value); break;
    default: static_cast<double*>(data)[i] = static_cast<double>(value);
  }
}

}  // namespace boxops
