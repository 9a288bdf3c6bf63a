// The arithmetic of <boxops/matching.h>: the one copy, for every backend.
#pragma once

#include <boxops/matching.h>
#include "common/blocks.h"
#include "common/geometry.h"

namespace boxops {

// How many anchors share one maximum of a column, a multiple of `least`: so many that the maxima are few.
inline int64_t chunk_of(int64_t anchors, int64_t boxes, int64_t least) {
  const int64_t fitting = (int64_t(1) << 20) / (boxes > 0 ? boxes : 1);
  const int64_t steps = blocks_of(anchors, least * (fitting < 32 ? 32 : fitting > 1024 ? 1024 : fitting));
  return least * (steps > 1 ? steps : 1);
}

}  // namespace boxops
