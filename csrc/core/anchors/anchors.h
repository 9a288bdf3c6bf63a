// The arithmetic of <boxops/anchors.h>: the one copy, for every backend.
#pragma once

#include <boxops/anchors.h>
#include "boxes/boxes.h"

namespace boxops {

// The centre of column or row i of a grid.
template <class T>
BOXOPS_HD T centre_of(int64_t i, T offset, T stride, T divisor) {
  return (static_cast<T>(i) + offset) * stride / divisor;
}

template <class T>
BOXOPS_HD Box<T> box_around(T cx, T cy, T half_width, T half_height) {
  return {cx - half_width, cy - half_height, cx + half_width, cy + half_height};
}

}  // namespace boxops
