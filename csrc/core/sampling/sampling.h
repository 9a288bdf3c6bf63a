// The arithmetic of <boxops/sampling.h>: the one copy, for every backend.
#pragma once

#include <boxops/sampling.h>
#include "common/sort.h"

namespace boxops {

// How many hard negatives an image with so many positives asks for.
BOXOPS_HD int64_t hard_negatives(int64_t positives, double ratio, int64_t min_negatives, int64_t count) {
  const double target = ratio * static_cast<double>(positives);
  const int64_t n = target < static_cast<double>(count) ? static_cast<int64_t>(target) : count;
  return n > min_negatives ? n : min_negatives;
}

}  // namespace boxops
