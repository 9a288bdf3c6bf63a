// The arithmetic of <boxops/l1_cost.h>: the one copy, for every backend.
#pragma once

#include <cmath>

#include <boxops/l1_cost.h>
#include "common/geometry.h"

namespace boxops {

template <class T>
BOXOPS_HD T l1_cost(const Box<T>& a, const Box<T>& b) {
  return std::fabs(a.x1 - b.x1) + std::fabs(a.y1 - b.y1) + std::fabs(a.x2 - b.x2) + std::fabs(a.y2 - b.y2);
}

}  // namespace boxops
