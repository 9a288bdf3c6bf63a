#include <boxops/nms.h>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

NmsInput check(const char* op, const Array& boxes, const char* shape, const Array& scores, const char* groups_name,
               const std::optional<Array>& groups, double iou_threshold) {
  check_boxes(op, "boxes", boxes, shape);
  check_per_box(op, "scores", scores, boxes);
  if (groups) check_ids(op, groups_name, *groups, boxes);
  check_iou_threshold(op, iou_threshold);
  const bool batched = boxes.rank() == 3;
  NmsInput input{{boxes.data, boxes.dtype, Format::kXYXY, batched ? boxes.sizes[0] : 1, boxes.sizes[-2],
                  batched ? boxes.strides[0] : 0, boxes.strides[-2], boxes.strides[-1]},
                 view_scalars(scores),
                 groups.has_value(),
                 {}};
  if (groups) input.groups = view_scalars(*groups);
  return input;
}

// A template, so that nothing refers to CUDA where no CUDA call is compiled.
template <class T>
Array workspace(Framework& framework, const Array& boxes, const NmsInput& input, int64_t max_output) {
  const auto bytes = static_cast<int64_t>(cuda::nms_workspace(input, max_output, sizeof(T) == 8));
  return framework.empty({bytes}, DType::kUInt8, boxes.device);
}

Array nms_in_groups(const char* op, Framework& framework, const Array& boxes, const Array& scores,
                    const std::optional<Array>& idxs, double iou_threshold) {
  const NmsInput input = check(op, boxes, "[N, 4]", scores, "idxs", idxs, iou_threshold);
  return with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    const T threshold = static_cast<T>(iou_threshold);
    return select(
        framework, op, boxes.device, input.boxes.count,
        [&](int64_t* keep) { return cpu::nms<T>(input, threshold, keep, framework.parallel()); },
        [&](auto keep, auto count, auto stream) {
          return cuda::nms<T>(input, threshold, keep, count,
                              workspace<T>(framework, boxes, input, input.boxes.count).data, stream);
        });
  });
}

}  // namespace

Array nms(Framework& framework, Array boxes, Array scores, double iou_threshold) {
  return nms_in_groups("nms", framework, boxes, scores, std::nullopt, iou_threshold);
}

Array batched_nms(Framework& framework, Array boxes, Array scores, Array idxs, double iou_threshold) {
  return nms_in_groups("batched_nms", framework, boxes, scores, idxs, iou_threshold);
}

std::tuple<Array, Array> nms_padded(Framework& framework, Array boxes, Array scores, double iou_threshold,
                                    int64_t max_output, std::optional<Array> labels,
                                    std::optional<double> score_threshold) {
  const char* op = "nms_padded";
  const NmsInput input = check(op, boxes, "[B, N, 4]", scores, "labels", labels, iou_threshold);
  if (max_output < 0) fail(op, "max_output >= 0", std::to_string(max_output));
  if (score_threshold) check_number(op, "score_threshold", *score_threshold);
  const PaddedOptions options{max_output, score_threshold.has_value(), score_threshold.value_or(0.0)};
  Array indices = framework.empty({input.boxes.batch, max_output}, DType::kInt64, boxes.device);
  Array counts = framework.empty({input.boxes.batch}, DType::kInt64, boxes.device);
  with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    const T threshold = static_cast<T>(iou_threshold);
    BOXOPS_DISPATCH(
        op, boxes.device,
        cpu::nms_padded<T>(input, threshold, options, indices.as<int64_t>(), counts.as<int64_t>(),
                           framework.parallel()),
        cuda::nms_padded<T>(input, threshold, options, indices.as<int64_t>(), counts.as<int64_t>(),
                            workspace<T>(framework, boxes, input, max_output).data, framework.stream(boxes.device)));
  });
  return {indices, counts};
}

}  // namespace boxops::ops
