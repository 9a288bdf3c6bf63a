#include <boxops/fusion.h>

#include <cmath>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {

std::tuple<Array, Array, Array> weighted_boxes_fusion(Framework& framework, std::vector<Array> boxes,
                                                      std::vector<Array> scores, std::vector<Array> labels,
                                                      std::vector<double> weights, double iou_threshold,
                                                      double score_threshold, Confidence confidence,
                                                      bool allows_overflow) {
  const Call call("weighted_boxes_fusion", framework, boxes.empty() ? Device() : boxes[0].device);
  if (boxes.empty()) call.fail("the boxes of one model at least", "none");
  const auto check_length = [&](const char* name, size_t length) {
    if (length != boxes.size())
      call.fail(std::string(name) + " for each of " + std::to_string(boxes.size()) + " models", std::to_string(length));
  };
  check_length("scores_list", scores.size());
  check_length("labels_list", labels.size());
  check_length("weights", weights.size());
  check_iou_threshold(call, iou_threshold);
  check_number(call, "score_threshold", score_threshold);

  DType dtype = DType::kFloat32;
  int64_t total = 0;
  double sum = 0, largest = 0;
  std::vector<FusionModel> models;
  for (size_t m = 0; m < boxes.size(); ++m) {
    const std::string at = "[" + std::to_string(m) + "]";
    const std::string names[] = {"boxes_list" + at, "scores_list" + at, "labels_list" + at};
    check_boxes(call, names[0].c_str(), boxes[m], "[N, 4]");
    const Dims count{boxes[m].sizes[0]};
    for (const auto* part : {&scores[m], &labels[m]}) {
      const char* name = names[part == &labels[m] ? 2 : 1].c_str();
      if (part == &labels[m]) check_number_or_bool(call, name, *part);
      else check_numeric(call, name, *part);
      check_shape(call, name, *part, count);
      check_device(call, name, *part, "boxes_list[0]");
    }
    check_device(call, names[0].c_str(), boxes[m], "boxes_list[0]");
    check_whole(call, names[2].c_str(), labels[m]);
    if (labels[m].dtype != labels[0].dtype)
      call.fail(names[2] + " of the dtype of labels_list[0] (" + name_of(labels[0].dtype) + ")",
                name_of(labels[m].dtype));
    if (!(weights[m] >= 0 && std::isfinite(weights[m]))) call.fail("weights >= 0", to_string(weights[m]));
    dtype = compute_type(dtype, boxes[m].dtype, scores[m].dtype);
    const Array& b = boxes[m];
    models.push_back({boxes_of(b), scalars_of(scores[m]), scalars_of(labels[m]), weights[m]});
    total += b.sizes[0], sum += weights[m], largest = std::max(largest, weights[m]);
  }
  if (!(sum > 0)) call.fail("a weight > 0", "none");

  const FusionOptions options{
      iou_threshold, score_threshold, confidence, allows_overflow, static_cast<int64_t>(models.size()), sum, largest};
  const DType label_type = labels[0].dtype;
  const auto result = [&](const auto& to) { return FusionResult{to[0], to[1], to[2], size_of(label_type)}; };
  auto [out_boxes, out_scores, out_labels] = call.select(
      total, {{dtype, {4}}, {dtype}, {label_type}},
      [&](auto& to, const Parallel& parallel) {
        return cpu::weighted_boxes_fusion(models.data(), options, result(to), parallel);
      },
      [&](auto& to, auto count, auto stream) {
        return cuda::weighted_boxes_fusion(
            models.data(), options, result(to), count,
            call.workspace(cuda::weighted_boxes_fusion_workspace(models.data(), options)).data, stream);
      });
  return {out_boxes, out_scores, out_labels};
}
BOXOPS_OP(weighted_boxes_fusion, "boxes_list", "scores_list", "labels_list", "weights", "iou_threshold",
          "score_threshold", "conf_type", "allows_overflow");

}  // namespace boxops::ops
