// The proposals of a region proposal network: Ren et al. 2015, sections 3.1 and 3.3; per level, Lin et al. 2017, 4.1.
//
// For each image, of each level the pre_nms_top_n anchors of the largest logits (ties by rising index, NaN last) become
// boxes: decoded (boxops/codec.h), clipped to the image, and scored by the sigmoid of the logit. Those with a side
// < min_size or score < score_threshold go, as do NaN. Greedy NMS within each level, by falling score, ties by rank
// among the logits; what is kept goes out by falling score, ties by level and then rank, filled up with zeros.
//
// All numbers are computed in the compute type. The sigmoid is computed in double and rounded once, so it never falls
// as logits rise. Floor: the logits are read once; the anchors and deltas of the few only. CUDA: a number of launches
// known beforehand; nothing waits.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/codec.h>
#include <boxops/parallel.h>
#include <boxops/types.h>

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
  double iou_threshold, score_threshold, min_size;
  CodecOptions codec;
};

namespace cpu {

// Writes boxes[B, post_nms_top_n, 4], scores[B, post_nms_top_n] and counts[B].
BOXOPS_API void generate_proposals(const ProposalsInput& input, const ProposalsOptions& options, void* boxes,
                                   void* scores, int64_t* counts, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API size_t generate_proposals_workspace(const ProposalsInput& input, const ProposalsOptions& options);

// Returns a cudaError_t.
BOXOPS_API int generate_proposals(const ProposalsInput& input, const ProposalsOptions& options, void* boxes,
                                  void* scores, int64_t* counts, void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
