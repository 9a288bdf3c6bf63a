// The ops: checked, for arrays of any framework and device. Contracts: the other headers.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <boxops/array.h>
#include <boxops/assignment.h>
#include <boxops/codecs.h>
#include <boxops/fusion.h>
#include <boxops/portability.h>
#include <boxops/registry.h>
#include <boxops/roi.h>
#include <boxops/soft_nms.h>
#include <boxops/types.h>

namespace boxops::ops {

BOXOPS_API std::tuple<Array, Array> linear_sum_assignment(Framework&, Array cost, bool maximize,
                                                          std::optional<Array> offsets, OnInvalid on_invalid);
BOXOPS_API Array detr_cost(Framework&, Array logits, Array boxes, Array gt_labels, Array gt_boxes, Array offsets,
                           double class_weight, double box_weight, double giou_weight, bool focal);
// `like` gives the device and the floating dtype of the anchors. Sizes and strides are (height, width) or (y, x) pairs.
BOXOPS_API Array multibox_anchors(Framework&, Array like, int64_t height, int64_t width, std::vector<double> sizes,
                                  std::vector<double> aspect_ratios, bool normalized);
// A pair of `grid_sizes` and of `strides` for each level; the levels' sizes and ratios one after another, with counts.
BOXOPS_API Array grid_anchors(Framework&, Array like, std::vector<int64_t> grid_sizes, std::vector<int64_t> strides,
                              std::vector<double> sizes, std::vector<int64_t> size_counts, std::vector<double> ratios,
                              std::vector<int64_t> ratio_counts);
// priors: (width, height) pairs.
BOXOPS_API Array cell_anchors(Framework&, Array like, int64_t height, int64_t width, std::vector<double> priors,
                              double stride_y, double stride_x);

BOXOPS_API Array box_area(Framework&, Array boxes, Format format);
BOXOPS_API Array box_convert(Framework&, Array boxes, Format in_fmt, Format out_fmt);
BOXOPS_API Array clip_boxes_to_image(Framework&, Array boxes, double height, double width);
BOXOPS_API Array remove_small_boxes(Framework&, Array boxes, double min_size);

// stride: empty, or (y, x) for YOLO. image_size: empty, or (height, width) to clip to, of one image or of each along
// the first dim.
BOXOPS_API Array encode_boxes(Framework&, Array boxes, Array anchors, Coding coding, std::vector<double> weights,
                              std::vector<double> stride);
BOXOPS_API Array decode_boxes(Framework&, Array deltas, Array anchors, Coding coding, std::vector<double> weights,
                              std::vector<double> stride, double clip, std::vector<double> image_size);
// The gradients have the shape of `grad`; without `of_anchors` the second one is empty.
BOXOPS_API std::tuple<Array, Array> encode_boxes_backward(Framework&, Array grad, Array boxes, Array anchors,
                                                          Coding coding, std::vector<double> weights,
                                                          std::vector<double> stride, bool of_anchors);
BOXOPS_API std::tuple<Array, Array> decode_boxes_backward(Framework&, Array grad, Array deltas, Array anchors,
                                                          Coding coding, std::vector<double> weights,
                                                          std::vector<double> stride, double clip,
                                                          std::vector<double> image_size, bool of_anchors);

BOXOPS_API Array box_iou(Framework&, Array boxes1, Array boxes2, Format fmt, bool paired);
BOXOPS_API Array box_ioa(Framework&, Array boxes1, Array boxes2, Format fmt, bool paired);
BOXOPS_API Array generalized_box_iou(Framework&, Array boxes1, Array boxes2, Format fmt, bool paired);
BOXOPS_API Array distance_box_iou(Framework&, Array boxes1, Array boxes2, double eps, Format fmt, bool paired);
BOXOPS_API Array complete_box_iou(Framework&, Array boxes1, Array boxes2, double eps, Format fmt, bool paired);
// What a loss takes from 1: paired corners, with `eps` in the divisors of the IoU and of the penalty.
BOXOPS_API Array iou_of_loss(Framework&, Array boxes1, Array boxes2, Measure measure, double eps);
// All of these in one; `loss` as in iou_of_loss.
BOXOPS_API Array iou(Framework&, Array&& boxes1, Array&& boxes2, Measure measure, bool paired, Format format,
                     double eps, bool loss);
BOXOPS_API std::tuple<Array, Array> iou_backward(Framework&, Array grad, Array boxes1, Array boxes2, Measure measure,
                                                 bool paired, Format format, double eps, bool loss);

// -> matches, ious. `offsets` says which of the boxes are whose image's; without them there is one image.
BOXOPS_API std::tuple<Array, Array> match_greedy(Framework&, Array anchors, Array gt_boxes,
                                                 std::optional<double> iou_threshold, std::optional<Array> offsets);
BOXOPS_API std::tuple<Array, Array> match_greedy_matrix(Framework&, Array iou, std::optional<double> iou_threshold);
BOXOPS_API std::tuple<Array, Array> match_max_iou(Framework&, Array anchors, Array gt_boxes, double high, double low,
                                                  bool allow_low_quality, std::optional<Array> offsets,
                                                  std::optional<Array> ignore_boxes,
                                                  std::optional<Array> ignore_offsets, double ignore_threshold);

BOXOPS_API Array nms(Framework&, Array boxes, Array scores, double iou_threshold);
BOXOPS_API Array batched_nms(Framework&, Array boxes, Array scores, Array idxs, double iou_threshold);
BOXOPS_API std::tuple<Array, Array> nms_padded(Framework&, Array boxes, Array scores, double iou_threshold,
                                               int64_t max_output, std::optional<Array> idxs,
                                               std::optional<double> score_threshold);

// The seed is a number or, so that none is waited for, an array [1] on the device of the matches; else one is drawn.
BOXOPS_API std::tuple<Array, Array, Array> sample_matches(Framework&, Array matches, int64_t size,
                                                          double positive_fraction, std::optional<int64_t> seed,
                                                          std::optional<Array> device_seed);
BOXOPS_API Array mine_hard_negatives(Framework&, Array loss, Array matches, double ratio, int64_t min_negatives);
// [K, 5] of float32 or float64 for the ops below, the image in front, from the boxes [L, 4] of each image of `input`.
// Errors name the op that the RoIs are for.
BOXOPS_API Array boxes_to_rois(Framework&, Array input, std::vector<Array> boxes, Pooling op);
// Boxes [K, 5] with the image in front; see boxops/roi.h. Gradients have the dtype of grad.
BOXOPS_API Array roi_align(Framework&, Array input, Array boxes, int64_t height, int64_t width, double spatial_scale,
                           int64_t sampling_ratio, bool aligned);
BOXOPS_API Array roi_align_backward(Framework&, Array grad, Array boxes, int64_t count, int64_t height, int64_t width,
                                    double spatial_scale, int64_t sampling_ratio, bool aligned);
BOXOPS_API Array multiscale_roi_align(Framework&, std::vector<Array> features, Array boxes, int64_t height,
                                      int64_t width, std::vector<double> scales, int64_t sampling_ratio, bool aligned,
                                      double canonical_scale, int64_t canonical_level);
// The gradients of all levels one after another, each [count, C, height, width].
BOXOPS_API Array multiscale_roi_align_backward(Framework&, Array grad, Array boxes, int64_t count,
                                               std::vector<int64_t> heights, std::vector<int64_t> widths,
                                               std::vector<double> scales, int64_t sampling_ratio, bool aligned,
                                               double canonical_scale, int64_t canonical_level);
BOXOPS_API Array ps_roi_align(Framework&, Array input, Array boxes, int64_t height, int64_t width, double spatial_scale,
                              int64_t sampling_ratio);
BOXOPS_API Array ps_roi_align_backward(Framework&, Array grad, Array boxes, int64_t count, int64_t height,
                                       int64_t width, double spatial_scale, int64_t sampling_ratio);
BOXOPS_API Array roi_pool(Framework&, Array input, Array boxes, int64_t height, int64_t width, double spatial_scale);
BOXOPS_API std::tuple<Array, Array> roi_pool_with_argmax(Framework&, Array input, Array boxes, int64_t height,
                                                         int64_t width, double spatial_scale);
BOXOPS_API Array roi_pool_backward(Framework&, Array grad, Array argmax, Array boxes, int64_t count, int64_t height,
                                   int64_t width, double spatial_scale);
BOXOPS_API Array ps_roi_pool(Framework&, Array input, Array boxes, int64_t height, int64_t width, double spatial_scale);
BOXOPS_API Array ps_roi_pool_backward(Framework&, Array grad, Array boxes, int64_t count, int64_t height, int64_t width,
                                      double spatial_scale);
BOXOPS_API std::tuple<Array, Array> soft_nms(Framework&, Array boxes, Array scores, double iou_threshold,
                                             SoftNmsMethod method, double sigma, double score_threshold,
                                             std::optional<Array> idxs);
BOXOPS_API std::tuple<Array, Array, Array> weighted_boxes_fusion(Framework&, std::vector<Array> boxes,
                                                                 std::vector<Array> scores, std::vector<Array> labels,
                                                                 std::vector<double> weights, double iou_threshold,
                                                                 double score_threshold, Confidence confidence,
                                                                 bool allows_overflow);

BOXOPS_API Array paste_masks(Framework&, Array masks, Array boxes, int64_t height, int64_t width, int64_t padding,
                             std::optional<double> threshold);
BOXOPS_API Array masks_to_boxes(Framework&, Array masks);
BOXOPS_API Array rotated_box_iou(Framework&, Array boxes1, Array boxes2, bool paired);
BOXOPS_API Array rotated_nms(Framework&, Array boxes, Array scores, double iou_threshold);
BOXOPS_API Array batched_rotated_nms(Framework&, Array boxes, Array scores, Array idxs, double iou_threshold);
// The image sizes are (height, width) of each image, one after another.
BOXOPS_API std::tuple<Array, Array, Array> generate_proposals(Framework&, Array objectness, Array deltas, Array anchors,
                                                              std::vector<int64_t> num_anchors_per_level,
                                                              std::vector<double> image_sizes, int64_t pre_nms_top_n,
                                                              int64_t post_nms_top_n, double iou_threshold,
                                                              double score_threshold, double min_size,
                                                              std::vector<double> weights, double clip);
BOXOPS_API std::tuple<Array, Array, Array, Array> detect(Framework&, Array boxes, Array scores, double score_threshold,
                                                         double iou_threshold, int64_t max_output,
                                                         std::optional<int64_t> topk_per_class,
                                                         std::optional<double> min_size, bool class_agnostic);

// "cuda sm_90, cpu avx512": what was built, and which instruction set runs.
BOXOPS_API std::string build_info();

}  // namespace boxops::ops
