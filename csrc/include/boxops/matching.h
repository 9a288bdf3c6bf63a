// Matching of anchors to ground truth boxes, image by image, over a ragged batch.
//
// IoU is that of boxops/types.h, so NaN boxes overlap nothing. Of equal IoUs the lower index wins, so every backend
// gives the same integers. An anchor of an image without boxes gets -1 and IoU 0.
//
// match_max_iou: the box with an anchor's largest IoU, -2 where low <= IoU < high, -1 where IoU < low. With
// allow_low_quality, an anchor whose IoU with some box equals that box's largest keeps its own best box. Then -1
// becomes -2 where intersection / anchor's area with one ignore box exceeds ignore_threshold. match_greedy: takes the
// largest IoU of the matrix (ties: lower anchor, then lower box), matches the two, strikes row and column, and repeats
// until boxes or anchors run out. Then, with a threshold, an anchor still free takes its best box, struck or not, where
// IoU >= threshold; all others get -1.
//
// Neither stores the A x G matrix. A pass over all pairs leaves each anchor's best box and, where columns matter, each
// box's largest IoU in every one of at most 1024 chunks of anchors. Who equals a column's maximum, or is next
// after the anchor struck, is then found by computing one chunk again. Memory O(A + G), up to 4 KB
// per box.
// Floor: A G IoUs (about 16 operations each), but for pairs too far apart to meet; 16 bytes of each anchor read, 12
// written.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/ragged.h>
#include <boxops/types.h>

namespace boxops {

struct MatchInput {
  Boxes anchors;   // [B, A, 4]
  Boxes gt_boxes;  // [1, G, 4], fewer than 2^31
  Ragged images;   // the boxes of each image
};

struct MaxIouOptions {
  double high, low;
  bool allow_low_quality;
  Boxes ignore_boxes;  // [1, C, 4]
  Ragged ignored;      // the ignore boxes of each image
  double ignore_threshold;
};

struct GreedyOptions {
  bool has_threshold;
  double threshold;
};

// A strided view of [B, A, G] numbers; NaN counts as -inf.
struct MatchMatrix {
  const void* data;
  DType dtype;
  int64_t batch, anchors, boxes;
  int64_t batch_stride, anchor_stride, box_stride;
};

namespace cpu {

// All write matches[B, A] and ious[B, A].
BOXOPS_API void match_max_iou(const MatchInput& input, const MaxIouOptions& options, int64_t* matches, void* ious,
                              const Parallel& parallel);
BOXOPS_API void match_greedy(const MatchInput& input, const GreedyOptions& options, int64_t* matches, void* ious,
                             const Parallel& parallel);
BOXOPS_API void match_greedy_matrix(const MatchMatrix& matrix, const GreedyOptions& options, int64_t* matches,
                                    void* ious, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

// Bytes of workspace. Each function returns a cudaError_t.
BOXOPS_API size_t match_max_iou_workspace(const MatchInput& input, const MaxIouOptions& options);
BOXOPS_API size_t match_greedy_workspace(const MatchInput& input);
BOXOPS_API size_t match_greedy_matrix_workspace(const MatchMatrix& matrix);

BOXOPS_API int match_max_iou(const MatchInput& input, const MaxIouOptions& options, int64_t* matches, void* ious,
                             void* workspace, void* stream);
BOXOPS_API int match_greedy(const MatchInput& input, const GreedyOptions& options, int64_t* matches, void* ious,
                            void* workspace, void* stream);
BOXOPS_API int match_greedy_matrix(const MatchMatrix& matrix, const GreedyOptions& options, int64_t* matches,
                                   void* ious, void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
