// Sorting by score and by group, for NMS and its kin.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/dtype.h"

namespace boxops {

// A key whose rising order is the order of falling score: NaN last, -0 equal to +0.
BOXOPS_HD uint64_t falling_key(float score) {
  if (score != score) return 0xffffffffu;
  const uint32_t bits = detail::bits_as<uint32_t>(score + 0.0f);
  return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}
BOXOPS_HD uint64_t falling_key(double score) {
  if (score != score) return ~uint64_t(0);
  const uint64_t bits = detail::bits_as<uint64_t>(score + 0.0), sign = uint64_t(1) << 63;
  return bits & sign ? bits : ~(bits | sign);
}

// The key of score i, exact for every dtype; 32 bits wide, or 64 for scores of 64 bits.
BOXOPS_HD uint64_t score_key(const Scalars& scores, int64_t batch, int64_t i) {
  const int64_t at = batch * scores.batch_stride + i * scores.stride;
  switch (scores.dtype) {
    case DType::kUInt32: return ~static_cast<const uint32_t*>(scores.data)[at];
    case DType::kInt32: return ~(static_cast<const uint32_t*>(scores.data)[at] ^ 0x80000000u);
    case DType::kUInt64: return ~static_cast<const uint64_t*>(scores.data)[at];
    case DType::kInt64: return ~(static_cast<const uint64_t*>(scores.data)[at] ^ uint64_t(1) << 63);
    case DType::kFloat64: return falling_key(static_cast<const double*>(scores.data)[at]);
    default: return falling_key(load<float>(scores.data, scores.dtype, at));
  }
}
inline int score_key_bits(DType scores) {
  return scores == DType::kUInt64 || scores == DType::kInt64 || scores == DType::kFloat64 ? 64 : 32;
}

// Whether score i exceeds the threshold, both in the score's compute type; NaN does not.
BOXOPS_HD bool score_exceeds(const Scalars& scores, int64_t batch, int64_t i, double threshold) {
  const int64_t at = batch * scores.batch_stride + i * scores.stride;
  return compute_type(scores.dtype) == DType::kFloat64
             ? load<double>(scores.data, scores.dtype, at) > threshold
             : load<float>(scores.data, scores.dtype, at) > static_cast<float>(threshold);
}

namespace detail {

// The bits of a float, the same for -0 and +0, and for all NaN; `infinity` has the bits of that.
template <class Bits>
BOXOPS_HD Bits equality_bits(Bits bits, Bits infinity) {
  const Bits all_but_sign = static_cast<Bits>(~Bits(0)) >> 1, magnitude = bits & all_but_sign;
  return magnitude == 0 ? Bits(0) : magnitude > infinity ? all_but_sign : bits;
}

}  // namespace detail

// The group id i as a key as wide as its dtype. Groups are any numbers, only their equality matters.
BOXOPS_HD uint64_t group_key(const Scalars& groups, int64_t batch, int64_t i) {
  const int64_t at = batch * groups.batch_stride + i * groups.stride;
  switch (groups.dtype) {
    case DType::kUInt8:
    case DType::kInt8: return static_cast<const uint8_t*>(groups.data)[at];
    case DType::kUInt16:
    case DType::kInt16: return static_cast<const uint16_t*>(groups.data)[at];
    case DType::kUInt32:
    case DType::kInt32: return static_cast<const uint32_t*>(groups.data)[at];
    case DType::kFloat16: return detail::equality_bits<uint16_t>(static_cast<const uint16_t*>(groups.data)[at], 0x7c00);
    case DType::kBFloat16:
      return detail::equality_bits<uint16_t>(static_cast<const uint16_t*>(groups.data)[at], 0x7f80);
    case DType::kFloat32:
      return detail::equality_bits<uint32_t>(static_cast<const uint32_t*>(groups.data)[at], 0x7f800000);
    case DType::kFloat64:
      return detail::equality_bits<uint64_t>(static_cast<const uint64_t*>(groups.data)[at], 0x7ff0000000000000);
    default: return static_cast<const uint64_t*>(groups.data)[at];
  }
}

// How many of the lowest bits tell apart keys in [0, values).
inline int bits_of(int64_t values) {
  int bits = 1;
  while (bits < 63 && (int64_t(1) << bits) < values) ++bits;
  return bits;
}

namespace cpu {

// Writes the places [0, n) by rising key to order[n], equal keys by rising place. Keys that differ by less than 2^32
// are sorted as 32 bits, with places of 32 bits: scores of such width are, and groups of near ids.
void order_of(const uint64_t* keys, int64_t n, int64_t* order);

// Stable sort of (key, value) pairs by rising key, in place.
void sort_pairs(uint64_t* keys, int64_t* values, int64_t n);

}  // namespace cpu

namespace cuda {

// Stable sort of (key, value) pairs by rising key, looking at the lowest `bits` bits only.
// `workspace` holds sort_pairs_workspace(n) bytes. This wraps CUB; the emulator has its own.
// Returns a cudaError_t.
size_t sort_pairs_workspace(int64_t n);
int sort_pairs(const uint64_t* keys_in, uint64_t* keys_out, const int64_t* values_in, int64_t* values_out, int64_t n,
               int bits, void* workspace, size_t workspace_bytes, void* stream);

}  // namespace cuda
}  // namespace boxops
