#include <boxops/nms.h>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

Array nms_in_groups(const char* op, Framework& framework, const Array& boxes, const Array& scores,
                    const std::optional<Array>& idxs, double iou_threshold) {
  const Call call(op, framework, boxes.device);
  const NmsInput input = check_nms(call, boxes, "[N, 4]", scores, idxs, iou_threshold);
  return call.select(
      input.boxes.count, {{DType::kInt64}},
      [&](auto& to, const Parallel& parallel) {
        return cpu::nms(input, iou_threshold, static_cast<int64_t*>(to[0]), parallel);
      },
      [&](auto& to, auto count, auto stream) {
        return cuda::nms(input, iou_threshold, static_cast<int64_t*>(to[0]), count,
                         call.workspace(cuda::nms_workspace(input, input.boxes.count)).data, stream);
      })[0];
}

}  // namespace

Array nms(Framework& framework, Array boxes, Array scores, double iou_threshold) {
  return nms_in_groups("nms", framework, boxes, scores, std::nullopt, iou_threshold);
}
BOXOPS_OP(nms, "boxes", "scores", "iou_threshold");

Array batched_nms(Framework& framework, Array boxes, Array scores, Array idxs, double iou_threshold) {
  return nms_in_groups("batched_nms", framework, boxes, scores, idxs, iou_threshold);
}
BOXOPS_OP(batched_nms, "boxes", "scores", "idxs", "iou_threshold");

std::tuple<Array, Array> nms_padded(Framework& framework, Array boxes, Array scores, double iou_threshold,
                                    int64_t max_output, std::optional<Array> idxs,
                                    std::optional<double> score_threshold) {
  const Call call("nms_padded", framework, boxes.device);
  const NmsInput input = check_nms(call, boxes, "[B, N, 4]", scores, idxs, iou_threshold);
  check_count(call, "max_output", max_output);
  if (score_threshold) check_number(call, "score_threshold", *score_threshold);
  const PaddedOptions options{max_output, score_threshold.has_value(), score_threshold.value_or(0.0)};
  Array indices = call.empty({input.boxes.batch, max_output}, DType::kInt64);
  Array counts = call.empty({input.boxes.batch}, DType::kInt64);
  auto *to = indices.as<int64_t>(), *counted = counts.as<int64_t>();
  call.run([&](const Parallel& parallel) { cpu::nms_padded(input, iou_threshold, options, to, counted, parallel); },
           [&](auto stream) {
             return cuda::nms_padded(input, iou_threshold, options, to, counted,
                                     call.workspace(cuda::nms_workspace(input, max_output)).data, stream);
           });
  return {indices, counts};
}
BOXOPS_OP(nms_padded, "boxes", "scores", "iou_threshold", "max_output", "idxs", "score_threshold");

}  // namespace boxops::ops
