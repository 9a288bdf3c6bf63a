// The arithmetic of <boxops/matching.h>: the one copy, for every backend.
#pragma once

#include <boxops/matching.h>
#include "common/blocks.h"
#include "common/geometry.h"

namespace boxops {

inline DType compute_type_of(const MatchInput& in) { return compute_type(in.anchors.dtype, in.gt_boxes.dtype); }
inline DType compute_type_of(const MatchInput& in, const MaxIouOptions& options) {
  return compute_type(in.anchors.dtype, in.gt_boxes.dtype, options.ignore_boxes.dtype);
}

// The options in the compute type: thresholds are rounded once.
template <class T>
struct MaxIouRule {
  T high, low;
  bool allow_low_quality;
  Boxes ignore_boxes;
  Ragged ignored;
  T ignore_threshold;

  explicit MaxIouRule(const MaxIouOptions& o)
      : high(static_cast<T>(o.high)),
        low(static_cast<T>(o.low)),
        allow_low_quality(o.allow_low_quality),
        ignore_boxes(o.ignore_boxes),
        ignored(o.ignored),
        ignore_threshold(static_cast<T>(o.ignore_threshold)) {}
};

template <class T>
struct GreedyRule {
  bool has_threshold;
  T threshold;

  explicit GreedyRule(const GreedyOptions& o)
      : has_threshold(o.has_threshold), threshold(static_cast<T>(o.threshold)) {}
};

// How many anchors share one maximum of a column, a multiple of `least`: so many that the maxima are few, at most
// `most` of a column.
inline int64_t chunk_of(int64_t anchors, int64_t boxes, int64_t least, int64_t most = 1024) {
  const int64_t fitting = (int64_t(1) << 20) / (boxes > 0 ? boxes : 1);
  const int64_t steps = blocks_of(anchors, least * (fitting < 32 ? 32 : fitting > most ? most : fitting));
  return least * (steps > 1 ? steps : 1);
}

}  // namespace boxops
