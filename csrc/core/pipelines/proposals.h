// The arithmetic of <boxops/pipelines.h>: the one copy, for every backend.
#pragma once

#include <boxops/pipelines.h>
#include "codecs/codecs.h"
#include "common/sort.h"

namespace boxops {

inline DType compute_type_of(const ProposalsInput& in) {
  return compute_type(in.objectness.dtype, in.deltas.dtype, in.anchors.dtype);
}

// Element i of image b as a box, and whether it may become a proposal.
template <class T>
BOXOPS_HD bool propose(const ProposalsInput& in, const ProposalsOptions& o, T height, T width, int64_t b, int64_t i,
                       Box<T>* box, T* score) {
  *box = clip_box(decode_box(load_box<T>(in.deltas, b, i), load_box<T>(in.anchors, b, i), o.codec), height, width);
  const double x =
      load<T>(in.objectness.data, in.objectness.dtype, b * in.objectness.batch_stride + i * in.objectness.stride);
  *score = static_cast<T>(1 / (1 + exp_of(-x)));
  return is_large(*box, static_cast<T>(o.min_size)) && *score >= static_cast<T>(o.score_threshold);
}

}  // namespace boxops
