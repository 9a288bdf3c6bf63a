#include <cmath>

#include <boxops/ops.h>
#include <boxops/pipelines.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

// Rising from 0 to the number of anchors.
std::vector<int64_t> level_offsets(const Call& call, const std::vector<int64_t>& sizes, int64_t anchors) {
  std::vector<int64_t> offsets{0};
  for (const int64_t size : sizes) check_count(call, "num_anchors_per_level", size);
  for (const int64_t size : sizes) {
    if (size > anchors) break;  // so that no sum overflows
    offsets.push_back(offsets.back() + size);
  }
  if (offsets.size() != sizes.size() + 1 || offsets.back() != anchors) {
    std::string got = "[";
    for (size_t i = 0; i < sizes.size(); ++i) got += (i ? ", " : "") + std::to_string(sizes[i]);
    call.fail("num_anchors_per_level with the sum " + std::to_string(anchors) + " of the anchors", got + "]");
  }
  return offsets;
}

}  // namespace

std::tuple<Array, Array, Array> generate_proposals(Framework& framework, Array objectness, Array deltas, Array anchors,
                                                   std::vector<int64_t> num_anchors_per_level,
                                                   std::vector<double> image_sizes, int64_t pre_nms_top_n,
                                                   int64_t post_nms_top_n, double iou_threshold, double score_threshold,
                                                   double min_size, std::vector<double> weights, double clip) {
  const Call call("generate_proposals", framework, objectness.device);
  check_floating(call, "objectness", objectness);
  check_shape(call, "objectness", objectness, {-1, -1}, "[B, A]");
  const int64_t batch = objectness.sizes[0], count = objectness.sizes[1];
  check_floating(call, "deltas", deltas);
  const Dims full{batch, count, 4};
  check_shape(call, "deltas", deltas, full);
  check_numeric(call, "anchors", anchors);
  if (!(anchors.sizes == full) && !(anchors.sizes == Dims{count, 4}))
    call.fail("anchors of shape " + to_string(Dims{count, 4}) + " or " + to_string(full), to_string(anchors.sizes));
  check_device(call, "deltas", deltas, "objectness");
  check_device(call, "anchors", anchors, "objectness");
  const std::vector<int64_t> offsets = level_offsets(call, num_anchors_per_level, count);
  if (static_cast<int64_t>(image_sizes.size()) != 2 * batch)
    call.fail("image_sizes of " + std::to_string(batch) + " images", std::to_string(image_sizes.size() / 2));
  for (const double side : image_sizes)
    if (!(side >= 0)) call.fail("image_sizes = [(height, width), ...], all >= 0", to_string(side));
  check_count(call, "pre_nms_top_n", pre_nms_top_n);
  check_count(call, "post_nms_top_n", post_nms_top_n);
  check_iou_threshold(call, iou_threshold);
  check_number(call, "score_threshold", score_threshold);
  check_number(call, "min_size", min_size);
  check_number(call, "clip", clip);
  check_weights(call, weights);

  Boxes anchors_of_images = boxes_of(anchors);
  anchors_of_images.batch = batch;
  const ProposalsInput input{scalars_of(objectness), boxes_of(deltas),
                             anchors_of_images,      static_cast<int64_t>(num_anchors_per_level.size()),
                             offsets.data(),         image_sizes.data()};
  const ProposalsOptions options{
      pre_nms_top_n, post_nms_top_n,
      iou_threshold, score_threshold,
      min_size,      {Coding::kRCNN, {weights[0], weights[1], weights[2], weights[3]}, clip, 1.0, 1.0}};
  const DType type = compute_type(objectness.dtype, deltas.dtype, anchors.dtype);
  Array boxes = call.empty({batch, post_nms_top_n, 4}, type);
  Array scores = call.empty({batch, post_nms_top_n}, type);
  Array counts = call.empty({batch}, DType::kInt64);
  auto* counted = counts.as<int64_t>();
  call.run(
      [&](const Parallel& parallel) {
        cpu::generate_proposals(input, options, boxes.data, scores.data, counted, parallel);
      },
      [&](auto stream) {
        return cuda::generate_proposals(input, options, boxes.data, scores.data, counted,
                                        call.workspace(cuda::generate_proposals_workspace(input, options)).data,
                                        stream);
      });
  return {boxes, scores, counts};
}
BOXOPS_OP(generate_proposals, "objectness", "deltas", "anchors", "num_anchors_per_level", "image_sizes",
          "pre_nms_top_n", "post_nms_top_n", "iou_threshold", "score_threshold", "min_size", "weights", "clip");

std::tuple<Array, Array, Array, Array> detect(Framework& framework, Array boxes, Array scores, double score_threshold,
                                              double iou_threshold, int64_t max_output,
                                              std::optional<int64_t> topk_per_class, std::optional<double> min_size,
                                              bool class_agnostic) {
  const Call call("detect", framework, boxes.device);
  check_numeric(call, "scores", scores);
  check_shape(call, "scores", scores, {-1, -1, -1}, "[B, N, C]");
  const int64_t batch = scores.sizes[0], count = scores.sizes[1], classes = scores.sizes[2];
  check_numeric(call, "boxes", boxes);
  const Dims shared{batch, count, 4}, own{batch, count, classes, 4};
  if (!(boxes.sizes == shared) && !(boxes.sizes == own))
    call.fail("boxes of shape " + to_string(shared) + " or " + to_string(own), to_string(boxes.sizes));
  check_device(call, "scores", scores, "boxes");
  constexpr int64_t limit = int64_t(1) << 31;
  if (classes > 0 && count >= (limit + classes - 1) / classes)
    call.fail("fewer than 2^31 scores per image", std::to_string(count) + " x " + std::to_string(classes));
  check_number(call, "score_threshold", score_threshold);
  check_iou_threshold(call, iou_threshold);
  check_count(call, "max_output", max_output);
  if (topk_per_class) check_count(call, "topk_per_class", *topk_per_class);
  if (min_size) check_number(call, "min_size", *min_size);

  const bool per_class = boxes.rank() == 4;
  const DetectInput input{batch,
                          count,
                          classes,
                          boxes.data,
                          boxes.dtype,
                          {boxes.strides[0], boxes.strides[1], per_class ? boxes.strides[2] : 0, boxes.strides[-1]},
                          scores.data,
                          scores.dtype,
                          {scores.strides[0], scores.strides[1], scores.strides[2]}};
  const DetectOptions options{score_threshold,      iou_threshold,        max_output,    topk_per_class.value_or(-1),
                              min_size.has_value(), min_size.value_or(0), class_agnostic};
  Array found = call.empty({batch, max_output, 4}, boxes.dtype);
  Array found_scores = call.empty({batch, max_output}, scores.dtype);
  Array labels = call.empty({batch, max_output}, DType::kInt64);
  Array counts = call.empty({batch}, DType::kInt64);
  const DetectOutput output{found.data, found_scores.data, labels.as<int64_t>(), counts.as<int64_t>()};
  call.run([&](const Parallel& parallel) { cpu::detect(input, options, output, parallel); },
           [&](auto stream) {
             return cuda::detect(input, options, output, call.workspace(cuda::detect_workspace(input, options)).data,
                                 stream);
           });
  return {found, found_scores, labels, counts};
}
BOXOPS_OP(detect, "boxes", "scores", "score_threshold", "iou_threshold", "max_output", "topk_per_class", "min_size",
          "class_agnostic");

}  // namespace boxops::ops
