// The ops: checked, for arrays of any framework and device. Contracts: core/<family>/<family>.h.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/portability.h"
#include "ops/array.h"

namespace boxops::ops {

// Formats are numbered as in Format, measures as in Measure.
BOXOPS_API Array box_area(Framework&, Array boxes, int64_t format);
BOXOPS_API Array box_convert(Framework&, Array boxes, int64_t from, int64_t to);
BOXOPS_API Array clip_boxes(Framework&, Array boxes, double height, double width);
BOXOPS_API Array remove_small_boxes(Framework&, Array boxes, double min_size);

BOXOPS_API Array iou(Framework&, Array boxes1, Array boxes2, int64_t measure, bool paired, int64_t format,
                     double iou_eps, double eps);
BOXOPS_API std::tuple<Array, Array> iou_backward(Framework&, Array grad, Array boxes1, Array boxes2, int64_t measure,
                                                 bool paired, int64_t format, double iou_eps, double eps);

BOXOPS_API Array nms(Framework&, Array boxes, Array scores, double iou_threshold);
BOXOPS_API Array batched_nms(Framework&, Array boxes, Array scores, Array idxs, double iou_threshold);
BOXOPS_API std::tuple<Array, Array> nms_padded(Framework&, Array boxes, Array scores, double iou_threshold,
                                               int64_t max_output, std::optional<Array> labels,
                                               std::optional<double> score_threshold);

// The image sizes are (height, width) of each image, one after another.
BOXOPS_API std::tuple<Array, Array, Array> generate_proposals(Framework&, Array objectness, Array deltas, Array anchors,
                                                              std::vector<int64_t> num_anchors_per_level,
                                                              std::vector<double> image_sizes, int64_t pre_nms_top_n,
                                                              int64_t post_nms_top_n, double nms_threshold,
                                                              double score_threshold, double min_size,
                                                              std::vector<double> weights, double clip);
BOXOPS_API std::tuple<Array, Array, Array, Array> detect(Framework&, Array boxes, Array scores, double score_threshold,
                                                         double iou_threshold, int64_t max_detections,
                                                         std::optional<int64_t> topk_per_class,
                                                         std::optional<double> min_size, bool class_agnostic);

// "cuda sm_90, cpu avx512": what was built, and which instruction set runs.
BOXOPS_API std::string build_info();

}  // namespace boxops::ops
