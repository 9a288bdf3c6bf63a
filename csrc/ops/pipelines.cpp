#include <cmath>

#include <boxops/detect.h>
#include <boxops/ops.h>
#include <boxops/proposals.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

void check_count(const char* op, const char* name, int64_t value) {
  if (value < 0) fail(op, std::string(name) + " >= 0", std::to_string(value));
}

// Rising from 0 to the number of anchors.
std::vector<int64_t> level_offsets(const char* op, const std::vector<int64_t>& sizes, int64_t anchors) {
  std::vector<int64_t> offsets{0};
  for (const int64_t size : sizes) check_count(op, "num_anchors_per_level", size);
  for (const int64_t size : sizes) {
    if (size > anchors) break;  // so that no sum overflows
    offsets.push_back(offsets.back() + size);
  }
  if (offsets.size() != sizes.size() + 1 || offsets.back() != anchors) {
    std::string got = "[";
    for (size_t i = 0; i < sizes.size(); ++i) got += (i ? ", " : "") + std::to_string(sizes[i]);
    fail(op, "num_anchors_per_level with the sum " + std::to_string(anchors) + " of the anchors", got + "]");
  }
  return offsets;
}

template <class T>
Array workspace(Framework& framework, const Array& on, const ProposalsInput& input, const ProposalsOptions& options) {
  const size_t bytes = cuda::generate_proposals_workspace(input, options, sizeof(T) == 8);
  return framework.empty({static_cast<int64_t>(bytes)}, DType::kUInt8, on.device);
}

// A template, so that nothing refers to CUDA where no CUDA call is compiled.
template <class T>
Array workspace(Framework& framework, const Array& on, const DetectInput& input, const DetectOptions& options) {
  const size_t bytes = cuda::detect_workspace(input, options);
  return framework.empty({static_cast<int64_t>(bytes)}, DType::kUInt8, on.device);
}

}  // namespace

std::tuple<Array, Array, Array> generate_proposals(Framework& framework, Array objectness, Array deltas, Array anchors,
                                                   std::vector<int64_t> num_anchors_per_level,
                                                   std::vector<double> image_sizes, int64_t pre_nms_top_n,
                                                   int64_t post_nms_top_n, double nms_threshold, double score_threshold,
                                                   double min_size, std::vector<double> weights, double clip) {
  const char* op = "generate_proposals";
  check_floating(op, "objectness", objectness);
  check_shape(op, "objectness", objectness, {-1, -1}, "[B, A]");
  const int64_t batch = objectness.sizes[0], count = objectness.sizes[1];
  check_floating(op, "deltas", deltas);
  const Dims full{batch, count, 4};
  check_shape(op, "deltas", deltas, full, to_string(full).c_str());
  check_numeric(op, "anchors", anchors);
  if (!(anchors.sizes == full) && !(anchors.sizes == Dims{count, 4}))
    fail(op, "anchors of shape " + to_string(Dims{count, 4}) + " or " + to_string(full), to_string(anchors.sizes));
  check_device(op, "deltas", deltas, "objectness", objectness);
  check_device(op, "anchors", anchors, "objectness", objectness);
  const std::vector<int64_t> offsets = level_offsets(op, num_anchors_per_level, count);
  if (static_cast<int64_t>(image_sizes.size()) != 2 * batch)
    fail(op, "image_sizes of " + std::to_string(batch) + " images", std::to_string(image_sizes.size() / 2));
  for (const double side : image_sizes)
    if (!(side >= 0)) fail(op, "image_sizes = [(height, width), ...], all >= 0", to_string(side));
  check_count(op, "pre_nms_top_n", pre_nms_top_n);
  check_count(op, "post_nms_top_n", post_nms_top_n);
  if (!(nms_threshold >= 0)) fail(op, "nms_threshold >= 0", to_string(nms_threshold));
  check_number(op, "score_threshold", score_threshold);
  check_number(op, "min_size", min_size);
  check_number(op, "clip", clip);
  if (weights.size() != 4) fail(op, "4 weights", std::to_string(weights.size()));
  for (const double weight : weights)
    if (!(weight > 0) || std::isinf(weight)) fail(op, "weights > 0 and finite", to_string(weight));

  const auto view = [&](const Array& a) {
    const bool batched = a.rank() == 3;
    return Boxes{a.data,        a.dtype,      Format::kXYXY, batch, count, batched ? a.strides[0] : 0,
                 a.strides[-2], a.strides[-1]};
  };
  const ProposalsInput input{
      view_scalars(objectness), view(deltas),      view(anchors), static_cast<int64_t>(num_anchors_per_level.size()),
      offsets.data(),           image_sizes.data()};
  const ProposalsOptions options{
      pre_nms_top_n, post_nms_top_n,
      nms_threshold, score_threshold,
      min_size,      {Coding::kRCNN, {weights[0], weights[1], weights[2], weights[3]}, clip, 1.0, 1.0}};
  const DType type = compute_type(objectness.dtype, deltas.dtype, anchors.dtype);
  Array boxes = framework.empty({batch, post_nms_top_n, 4}, type, objectness.device);
  Array scores = framework.empty({batch, post_nms_top_n}, type, objectness.device);
  Array counts = framework.empty({batch}, DType::kInt64, objectness.device);
  with_compute_type(type, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(op, objectness.device,
                    cpu::generate_proposals<T>(input, options, boxes.as<T>(), scores.as<T>(), counts.as<int64_t>(),
                                               framework.parallel()),
                    cuda::generate_proposals<T>(input, options, boxes.as<T>(), scores.as<T>(), counts.as<int64_t>(),
                                                workspace<T>(framework, objectness, input, options).data,
                                                framework.stream(objectness.device)));
  });
  return {boxes, scores, counts};
}

std::tuple<Array, Array, Array, Array> detect(Framework& framework, Array boxes, Array scores, double score_threshold,
                                              double iou_threshold, int64_t max_detections,
                                              std::optional<int64_t> topk_per_class, std::optional<double> min_size,
                                              bool class_agnostic) {
  const char* op = "detect";
  check_numeric(op, "scores", scores);
  check_shape(op, "scores", scores, {-1, -1, -1}, "[B, N, C]");
  const int64_t batch = scores.sizes[0], count = scores.sizes[1], classes = scores.sizes[2];
  check_numeric(op, "boxes", boxes);
  const Dims shared{batch, count, 4}, own{batch, count, classes, 4};
  if (!(boxes.sizes == shared) && !(boxes.sizes == own))
    fail(op, "boxes of shape " + to_string(shared) + " or " + to_string(own), to_string(boxes.sizes));
  check_device(op, "scores", scores, "boxes", boxes);
  constexpr int64_t most = int64_t(1) << 31;
  if (classes > 0 && count >= (most + classes - 1) / classes)
    fail(op, "fewer than 2^31 scores per image", std::to_string(count) + " x " + std::to_string(classes));
  check_number(op, "score_threshold", score_threshold);
  check_iou_threshold(op, iou_threshold);
  check_count(op, "max_detections", max_detections);
  if (topk_per_class) check_count(op, "topk_per_class", *topk_per_class);
  if (min_size) check_number(op, "min_size", *min_size);

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
  const DetectOptions options{score_threshold,      iou_threshold,        max_detections, topk_per_class.value_or(-1),
                              min_size.has_value(), min_size.value_or(0), class_agnostic};
  Array found = framework.empty({batch, max_detections, 4}, boxes.dtype, boxes.device);
  Array found_scores = framework.empty({batch, max_detections}, scores.dtype, boxes.device);
  Array labels = framework.empty({batch, max_detections}, DType::kInt64, boxes.device);
  Array counts = framework.empty({batch}, DType::kInt64, boxes.device);
  const DetectOutput output{found.data, found_scores.data, labels.as<int64_t>(), counts.as<int64_t>()};
  with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(op, boxes.device, cpu::detect<T>(input, options, output, framework.parallel()),
                    cuda::detect<T>(input, options, output, workspace<T>(framework, boxes, input, options).data,
                                    framework.stream(boxes.device)));
  });
  return {found, found_scores, labels, counts};
}

}  // namespace boxops::ops
