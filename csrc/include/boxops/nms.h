// Greedy non-maximum suppression, exact, in groups, and with output of a fixed size.
//
// Boxes are taken by falling score (ties by rising index, NaN last). A box is kept unless its IoU
// with a kept box of its own group exceeds the threshold; IoU is rounded to the compute type as
// boxops/types.h says, so every backend takes the same decisions to the bit. Degenerate, NaN
// and infinite boxes have IoU 0 with everything: they are kept and suppress nothing.
//
// The rotated forms are the same for boxes as in boxops/rotated.h, which in a pair puts the kept box first.
//
// CPU: what follows depends on what is met. A box is first held against the one that suppressed its
// neighbours; then against all kept ones while those are few, and else against those that lie in cells of a grid where
// some could exceed the threshold. Work is near N on a detector's boxes and near N log N on spread-out ones, memory
// O(N). Boxes whose area is about to overflow meet all others one by one. CUDA: workspace O(N), no N x N/64 mask;
// groups of more than 12,288 are taken by such a grid, at thresholds from 0.1 on. Up to 100,000 boxes take at most 18
// launches. Nothing allocates device memory or waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

struct NmsInput {
  Boxes boxes;      // [B, N, 4]; rotated, [B, N, 5]
  Scalars scores;   // [B, N], floating or integer
  bool has_groups;  // false: one group per image
  Scalars groups;   // [B, N], numbers: equal ones are a group, as are all NaN
  int64_t longest_group = std::numeric_limits<int64_t>::max();  // no group of an image is larger; saves CUDA launches
};

struct PaddedOptions {
  int64_t max_output;
  bool has_score_threshold;
  double score_threshold;  // candidates have score > score_threshold, in the score's compute type
};

namespace cpu {

// B == 1. Writes the kept indices by falling score to keep[N]; returns their number.
BOXOPS_API int64_t nms(const NmsInput& input, double iou_threshold, int64_t* keep, const Parallel& parallel);

BOXOPS_API int64_t rotated_nms(const NmsInput& input, double iou_threshold, int64_t* keep, const Parallel& parallel);

// Writes indices[B, max_output], padded with -1, and counts[B].
BOXOPS_API void nms_padded(const NmsInput& input, double iou_threshold, const PaddedOptions& options, int64_t* indices,
                           int64_t* counts, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

// Bytes of workspace that these functions need.
BOXOPS_API size_t nms_workspace(const NmsInput& input, int64_t max_output);
BOXOPS_API size_t rotated_nms_workspace(const NmsInput& input);

// B == 1. Writes the kept indices to keep[N] and their number to count[1], both on the device.
// Returns a cudaError_t.
BOXOPS_API int nms(const NmsInput& input, double iou_threshold, int64_t* keep, int64_t* count, void* workspace,
                   void* stream);

BOXOPS_API int rotated_nms(const NmsInput& input, double iou_threshold, int64_t* keep, int64_t* count, void* workspace,
                           void* stream);

BOXOPS_API int nms_padded(const NmsInput& input, double iou_threshold, const PaddedOptions& options, int64_t* indices,
                          int64_t* counts, void* workspace, void* stream);

}  // namespace cuda
}  // namespace boxops
