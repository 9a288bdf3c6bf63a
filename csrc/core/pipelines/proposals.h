// The proposals of a region proposal network: Ren et al. 2015, sections 3.1 and 3.3; per level, Lin et al. 2017, 4.1.
//
// For each image, of each level the pre_nms_top_n anchors of the largest logits (ties by rising index, NaN last) become
// boxes: decoded (boxes/codec.h), clipped to the image, and scored by the sigmoid of the logit. Those with a side
// < min_size or score < score_threshold go, as do NaN. Greedy NMS within each level, by falling score, ties by rank
// among the logits; what is kept goes out by falling score, ties by level and then rank, filled up with zeros.
//
// All numbers are computed in T. The sigmoid is computed in double and rounded once, so it never falls as logits rise.
// Floor: the logits are read once; the anchors and deltas of the few only.
// CUDA: a number of launches known beforehand; nothing waits.
#pragma once

#include "boxes/codec.h"
#include "common/parallel.h"
#include "common/sort.h"

namespace boxops {

struct ProposalsInput {
  Scalars objectness;            // [B, A]
  Boxes deltas;                  // [B, A, 4]
  Boxes anchors;                 // [B, A, 4], or the same for all images by stride 0
  int64_t levels;                //
  const int64_t* level_offsets;  // [levels + 1], rising from 0 to A; on the host
  const double* image_sizes;     // [B, 2], height and width; on the host
};

struct ProposalsOptions {
  int64_t pre_nms_top_n, post_nms_top_n;
  double nms_threshold, score_threshold, min_size;
  CodecOptions codec;
};

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

namespace cpu {

// Writes boxes[B, post_nms_top_n, 4], scores[B, post_nms_top_n] and counts[B].
template <class T>
BOXOPS_API void generate_proposals(const ProposalsInput& input, const ProposalsOptions& options, T* boxes, T* scores,
                                   int64_t* counts, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API size_t generate_proposals_workspace(const ProposalsInput& input, const ProposalsOptions& options,
                                               bool float64);

// Returns a cudaError_t.
template <class T>
BOXOPS_API int generate_proposals(const ProposalsInput& input, const ProposalsOptions& options, T* boxes, T* scores,
                                  int64_t* counts, void* workspace, void* stream);

}  // namespace cuda
}  // namespace boxops
