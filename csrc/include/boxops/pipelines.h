// From a head's numbers to boxes in one call: proposals of an RPN, detections of any detector.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/codecs.h>
#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

// The proposals of a region proposal network: Ren et al. 2015, sections 3.1 and 3.3; per level, Lin et al. 2017, 4.1.
//
// For each image, of each level the pre_nms_top_n anchors of the largest logits (ties by rising index, NaN last) become
// boxes: decoded (boxops/codecs.h), clipped to the image, and scored by the sigmoid of the logit. Those with a side
// < min_size or score < score_threshold go, as do NaN. Greedy NMS within each level, by falling score, ties by rank
// among the logits; what is kept goes out by falling score, ties by level and then rank, filled up with zeros.
//
// All numbers are computed in the compute type. The sigmoid is computed in double and rounded once, so it never falls
// as logits rise. Floor: the logits are read once; the anchors and deltas of the few only. CUDA: a number of launches
// known beforehand; nothing waits.

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

// Class-wise postprocessing, the last step of R-CNN heads, SSD, RetinaNet and YOLO: of all (box, class) pairs those
// with a score above the threshold, then greedy NMS within each class, then the best of the image.
//
// Candidates are the pairs (n, c) with score > score_threshold, both in the score's compute type (NaN never is), and
// with both sides of the box >= min_size if that is asked for; of each class the per_class best. NMS (boxops/nms.h) by
// falling score; the first max_output kept go out by falling score. All ties go to the lower n * C + c. Boxes and
// scores go out as they are, bit by bit; places left over hold 0, and -1 as label. Fewer than 2^31 scores per image.
//
// Floor: the scores are read once; boxes of candidates only.
// CPU: the pass over the scores is vectorised; images go to threads.
// CUDA: candidates are collected in a list per class, so that no step sorts, or even looks at, the other pairs; a block
// per class suppresses its best, then, where a detection could still come, the others; a block per image merges.
// Workspace: 4 bytes per score, 16 for each box that a class may keep, and 24 for each class.

struct DetectInput {
  int64_t batch, count, classes;
  const void* boxes;  // [B, N, 4], or [B, N, C, 4]
  DType box_dtype;
  int64_t box_strides[4];  // of image, box, class (0 without classes) and coordinate
  const void* scores;      // [B, N, C]
  DType score_dtype;
  int64_t score_strides[3];
};

struct DetectOptions {
  double score_threshold, iou_threshold;
  int64_t max_output;
  int64_t per_class;  // negative: all
  bool has_min_size;
  double min_size;
  bool class_agnostic;  // suppress across classes
};

struct DetectOutput {
  void* boxes;      // [B, D, 4]
  void* scores;     // [B, D]
  int64_t* labels;  // [B, D]
  int64_t* counts;  // [B]
};

namespace cpu {

BOXOPS_API void detect(const DetectInput& input, const DetectOptions& options, const DetectOutput& output,
                       const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API size_t detect_workspace(const DetectInput& input, const DetectOptions& options);

// Returns a cudaError_t.
BOXOPS_API int detect(const DetectInput& input, const DetectOptions& options, const DetectOutput& output,
                      void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
