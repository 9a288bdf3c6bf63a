// The arithmetic of <boxops/top_boxes.h>: the one copy, for every backend.
#pragma once

#include <boxops/top_boxes.h>
#include "common/geometry.h"

namespace boxops {

// What box i counts for.
template <class T>
struct Worth {
  Boxes boxes;
  Scalars scores;
  TopMethod method;

  BOXOPS_HD T operator()(int64_t i) const {
    const T score = load<T>(scores.data, scores.dtype, i * scores.stride);
    return method == TopMethod::kScore ? score : score * area(load_box<T>(boxes, 0, i));
  }
};

}  // namespace boxops
