// RoIs from the boxes of each image: the one copy, for every backend.
#pragma once

#include <boxops/roi.h>
#include "common/geometry.h"

namespace boxops {

// Row i of an image.
template <class T>
BOXOPS_HD void put_roi(const Boxes& boxes, int64_t i, int64_t image, T* row) {
  const Box<T> b = load_numbers<T>(boxes, 0, i);
  row[0] = static_cast<T>(image), row[1] = b.x1, row[2] = b.y1, row[3] = b.x2, row[4] = b.y2;
}

}  // namespace boxops
