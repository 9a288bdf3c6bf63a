#include <boxops/fusion.h>

#include <cmath>

#include <boxops/ops.h>
#include "ops/select_rows.h"

namespace boxops::ops {

std::tuple<Array, Array, Array> weighted_boxes_fusion(Framework& framework, std::vector<Array> boxes,
                                                      std::vector<Array> scores, std::vector<Array> labels,
                                                      std::vector<double> weights, double iou_threshold,
                                                      double skip_box_threshold, int64_t confidence,
                                                      bool allows_overflow) {
  const char* op = "weighted_boxes_fusion";
  if (boxes.empty()) fail(op, "the boxes of one model at least", "none");
  const auto check_length = [&](const char* name, size_t length) {
    if (length != boxes.size())
      fail(op, std::string(name) + " for each of " + std::to_string(boxes.size()) + " models", std::to_string(length));
  };
  check_length("scores_list", scores.size());
  check_length("labels_list", labels.size());
  check_length("weights", weights.size());
  if (!(iou_threshold >= 0)) fail(op, "iou_thr >= 0", to_string(iou_threshold));
  check_number(op, "skip_box_thr", skip_box_threshold);
  if (confidence < 0 || confidence > 3) fail(op, "a conf_type in 0..3", std::to_string(confidence));

  const Device device = boxes[0].device;
  DType dtype = DType::kFloat32;
  int64_t total = 0;
  double sum = 0, largest = 0;
  std::vector<FusionModel> models;
  for (size_t m = 0; m < boxes.size(); ++m) {
    const std::string at = "[" + std::to_string(m) + "]";
    const std::string names[] = {"boxes_list" + at, "scores_list" + at, "labels_list" + at};
    check_boxes(op, names[0].c_str(), boxes[m], "[N, 4]");
    const Dims count{boxes[m].sizes[0]};
    const std::string words = to_string(count);
    for (const auto* part : {&scores[m], &labels[m]}) {
      const char* name = names[part == &labels[m] ? 2 : 1].c_str();
      if (part == &labels[m]) check_number_or_bool(op, name, *part);
      else check_numeric(op, name, *part);
      check_shape(op, name, *part, count, words.c_str());
      check_device(op, name, *part, "boxes_list[0]", boxes[0]);
    }
    check_device(op, names[0].c_str(), boxes[m], "boxes_list[0]", boxes[0]);
    check_whole(op, names[2].c_str(), labels[m]);
    if (labels[m].dtype != labels[0].dtype)
      fail(op, names[2] + " of the dtype of labels_list[0] (" + name_of(labels[0].dtype) + ")",
           name_of(labels[m].dtype));
    if (!(weights[m] >= 0 && std::isfinite(weights[m]))) fail(op, "weights >= 0", to_string(weights[m]));
    dtype = compute_type(dtype, boxes[m].dtype, scores[m].dtype);
    const Array& b = boxes[m];
    models.push_back({{b.data, b.dtype, Format::kXYXY, 1, b.sizes[0], 0, b.strides[0], b.strides[1]},
                      view_scalars(scores[m]),
                      view_scalars(labels[m]),
                      weights[m]});
    total += b.sizes[0], sum += weights[m], largest = std::max(largest, weights[m]);
  }
  if (!(sum > 0)) fail(op, "a weight > 0", "none");

  Array out_boxes = framework.empty({total, 4}, dtype, device), out_scores = framework.empty({total}, dtype, device);
  Array out_labels = framework.empty({total}, labels[0].dtype, device);
  with_compute_type(dtype, [&](auto t) {
    using T = decltype(t);
    const FusionOptions<T> options{static_cast<T>(iou_threshold),
                                   static_cast<T>(skip_box_threshold),
                                   static_cast<Confidence>(confidence),
                                   allows_overflow,
                                   static_cast<int64_t>(models.size()),
                                   static_cast<T>(sum),
                                   static_cast<T>(largest)};
    const FusionResult<T> result{out_boxes.as<T>(), out_scores.as<T>(), out_labels.data, size_of(out_labels.dtype)};
    select_rows(
        framework, op, device, {&out_boxes, &out_scores, &out_labels},
        [&] { return cpu::weighted_boxes_fusion<T>(models.data(), options, result, framework.parallel()); },
        [&](auto count, auto stream) {
          const auto bytes = static_cast<int64_t>(cuda::fusion_workspace(total, options.models, sizeof(T) == 8));
          const Array workspace = framework.empty({bytes}, DType::kUInt8, device);
          return cuda::weighted_boxes_fusion<T>(models.data(), options, result, count, workspace.data, stream);
        });
  });
  return {out_boxes, out_scores, out_labels};
}

}  // namespace boxops::ops
