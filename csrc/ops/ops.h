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

// Methods: 0 linear, 1 gaussian.
BOXOPS_API std::tuple<Array, Array> soft_nms(Framework&, Array boxes, Array scores, double iou_threshold,
                                             int64_t method, double sigma, double score_threshold,
                                             std::optional<Array> idxs);
// Kinds of confidence are numbered as in Confidence.
BOXOPS_API std::tuple<Array, Array, Array> weighted_boxes_fusion(Framework&, std::vector<Array> boxes,
                                                                 std::vector<Array> scores, std::vector<Array> labels,
                                                                 std::vector<double> weights, double iou_threshold,
                                                                 double skip_box_threshold, int64_t confidence,
                                                                 bool allows_overflow);

BOXOPS_API Array paste_masks(Framework&, Array masks, Array boxes, int64_t height, int64_t width, int64_t padding,
                             std::optional<double> threshold);
BOXOPS_API Array masks_to_boxes(Framework&, Array masks);

// "cuda sm_90, cpu avx512": what was built, and which instruction set runs.
BOXOPS_API std::string build_info();

}  // namespace boxops::ops
