// Weighted boxes fusion: boxes of several models that agree become one (Solovyev et al. 2021, section 3).
//
// Scores are multiplied by their model's weight. Within each label, boxes are taken by falling weighted score (ties:
// lower place in the lists put one after another; NaN last); a box joins the cluster whose fused box it overlaps most
// (ties: older cluster) if that IoU exceeds the threshold, else it founds one. A fused box is its boxes' mean, weighted
// by their scores; where those sum to 0 it stays as it was. Boxes whose score is not >= skip_box_thr, and boxes
// without an area > 0 (inverted and NaN ones too), are left out. The results are sorted by falling confidence (ties:
// lower place of the cluster's first box; NaN last). All is rounded to the compute type of all
// boxes and scores at each step.
//
// Floor: 10 operations for each box and cluster before it of its label. Sequential by nature: the parallelism is over
// labels, over the clusters that a box is held against, and on the device over boxes that turn out not to interfere.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

struct FusionModel {
  Boxes boxes;     // [1, N, 4]
  Scalars scores;  // [N], floating or integer
  Scalars labels;  // [N], numbers: equal ones are a label, as are all NaN
  double weight;   // >= 0
};

enum class Confidence : uint8_t { kAvg, kMax, kBoxAndModelAvg, kAbsentModelAwareAvg };
template <>
inline constexpr std::array<const char*, 4> kNames<Confidence> = {"avg", "max", "box_and_model_avg",
                                                                  "absent_model_aware_avg"};

struct FusionOptions {
  double iou_threshold, score_threshold;
  Confidence confidence;
  bool allows_overflow;
  int64_t models;
  double total, largest;  // of the weights
};

struct FusionResult {
  void *boxes, *scores;  // [N of all models, 4], [N of all models], of the compute type
  void* labels;          // [N of all models]
  int64_t label_bytes;
};

namespace cpu {

// Returns the number of results.
BOXOPS_API int64_t weighted_boxes_fusion(const FusionModel* models, const FusionOptions& options,
                                         const FusionResult& result, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API size_t weighted_boxes_fusion_workspace(const FusionModel* models, const FusionOptions& options);

// Leaves the number of results in count[1] on the device; `models` is host memory. Returns a cudaError_t.
BOXOPS_API int weighted_boxes_fusion(const FusionModel* models, const FusionOptions& options,
                                     const FusionResult& result, int64_t* count, void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
