// The pairs of <boxops/pipelines.h>: the one copy of where they lie, for every backend.
#pragma once

#include <boxops/pipelines.h>
#include "boxes/boxes.h"
#include "common/sort.h"

namespace boxops {
namespace detail {

BOXOPS_HD int64_t offset_of(const DetectInput& in, const int64_t* strides, int64_t b, int32_t pair) {
  const uint32_t i = static_cast<uint32_t>(pair), c = static_cast<uint32_t>(in.classes);
  return b * strides[0] + i / c * strides[1] + i % c * strides[2];
}

}  // namespace detail

// Where the box and the score of pair n * C + c of image b lie.
BOXOPS_HD int64_t box_at(const DetectInput& in, int64_t b, int32_t pair) {
  return detail::offset_of(in, in.box_strides, b, pair);
}
BOXOPS_HD int64_t score_at(const DetectInput& in, int64_t b, int32_t pair) {
  return detail::offset_of(in, in.score_strides, b, pair);
}

template <class T>
BOXOPS_HD Box<T> box_of(const DetectInput& in, int64_t b, int32_t pair) {
  return load_box<T>({in.boxes, in.box_dtype, Format::kXYXY, 1, 1, 1, 0, in.box_strides[3]}, box_at(in, b, pair), 0);
}

BOXOPS_HD uint64_t key_of(const DetectInput& in, int64_t b, int32_t pair) {
  return score_key({in.scores, in.score_dtype, 1, 0}, score_at(in, b, pair), 0);
}

}  // namespace boxops
