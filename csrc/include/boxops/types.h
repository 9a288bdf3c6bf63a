// The words of all contracts: element types, and views of boxes and of numbers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <boxops/portability.h>

namespace boxops {

// Low precision and integers are storage only: an op computes in compute_type of its arrays.
enum class DType : uint8_t {
  kUInt8,
  kInt8,
  kUInt16,
  kInt16,
  kUInt32,
  kInt32,
  kUInt64,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kBool,
  kComplex64,  // from here on known only so that errors can name them
  kComplex128,
  kObject,
  kOther,
};

inline bool is_integer(DType t) { return t <= DType::kInt64; }
inline bool is_floating(DType t) { return t >= DType::kFloat16 && t <= DType::kFloat64; }

// Of bools, where they count as the numbers 0 and 1.
inline DType number_type(DType t) { return t == DType::kBool ? DType::kUInt8 : t; }

inline int64_t size_of(DType t) {
  constexpr int64_t sizes[] = {1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8, 1, 8, 16, 8, 0};
  return sizes[static_cast<int>(t)];
}

inline const char* name_of(DType t) {
  constexpr const char* names[] = {"uint8",
                                   "int8",
                                   "uint16",
                                   "int16",
                                   "uint32",
                                   "int32",
                                   "uint64",
                                   "int64",
                                   "float16",
                                   "bfloat16",
                                   "float32",
                                   "float64",
                                   "bool",
                                   "complex64",
                                   "complex128",
                                   "object",
                                   "an unsupported dtype"};
  return names[static_cast<int>(t)];
}

// The type an op computes in, and in which it returns measures such as area and IoU: float64 if any of its inputs is
// float64 or an integer of 32 bits or more, whose values float32 does not hold. Beyond 2^53 float64 rounds too.
template <class... Types>
BOXOPS_HD DType compute_type(Types... types) {
  const bool wide = ((types == DType::kFloat64 || (types >= DType::kUInt32 && types <= DType::kInt64)) || ...);
  return wide ? DType::kFloat64 : DType::kFloat32;
}

// The DType of a C++ type.
template <class T>
constexpr DType dtype_of() {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "boxops: expected a number of at most 8 bytes");
  if constexpr (std::is_same_v<T, bool>) return DType::kBool;
  if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 4 ? DType::kFloat32 : DType::kFloat64;
  constexpr DType types[] = {DType::kInt8, DType::kInt16, DType::kInt32, DType::kInt64};
  constexpr int place = sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 1 : sizeof(T) == 4 ? 2 : 3;
  return static_cast<DType>(static_cast<int>(types[place]) - (std::is_unsigned_v<T> ? 1 : 0));
}

// The names of an enum's values, in their order: how they cross from Python and stand in errors.
template <class Enum>
constexpr std::nullptr_t kNames = nullptr;

// How the four numbers of a box are read. xyxy: corners. xywh: lower corner and size. cxcywh: centre and size.
enum class Format : uint8_t { kXYXY, kXYWH, kCXCYWH };
template <>
inline constexpr std::array<const char*, 3> kNames<Format> = {"xyxy", "xywh", "cxcywh"};

// A strided view of [batch, count, 4] numbers; strides count elements, 0 broadcasts.
//
// What a box is, for every op, each step rounded to the compute type:
//   width  = x2 - x1, 0 if negative or NaN; height likewise; area = width * height
//   inter  = the same of the clamped overlap;  union = (area1 + area2) - inter
//   IoU    = inter / union, 0 unless union > 0
// A box with a NaN coordinate overlaps nothing: its IoU and IoA are 0, its penalised measures NaN. Boxes with infinite
// coordinates overlap nothing. Boxes of any finite size are measured right, even where an area overflows.
struct Boxes {
  const void* data;
  DType dtype;
  Format format;
  int64_t batch, count;
  int64_t batch_stride, box_stride, coord_stride;

  // [batch, count, 4] numbers one after another.
  template <class T>
  static Boxes contiguous(const T* data, int64_t count, Format format = Format::kXYXY, int64_t batch = 1) {
    return {data, dtype_of<T>(), format, batch, count, 4 * count, 4, 1};
  }
};

// A strided view of [batch, count] numbers: scores, group ids.
struct Scalars {
  const void* data;
  DType dtype;
  int64_t batch_stride, stride;

  // [batch, count] numbers one after another.
  template <class T>
  static Scalars contiguous(const T* data, int64_t count) {
    return {data, dtype_of<T>(), count, 1};
  }
};

// IoU plain, over the second area (IoA), and with GIoU's, DIoU's, CIoU's penalty.
enum class Measure : uint8_t { kIoU, kIoA, kGIoU, kDIoU, kCIoU };
template <>
inline constexpr std::array<const char*, 5> kNames<Measure> = {"box_iou", "box_ioa", "generalized_box_iou",
                                                               "distance_box_iou", "complete_box_iou"};

}  // namespace boxops
