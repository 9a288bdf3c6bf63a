#include <boxops/rotated.h>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {

Array rotated_box_iou(Framework& framework, Array boxes1, Array boxes2, bool paired) {
  const Call call("rotated_box_iou", framework, boxes1.device);
  check_boxes(call, "boxes1", boxes1, paired ? "[..., 5]" : "[..., N, 5]");
  check_boxes(call, "boxes2", boxes2, paired ? "[..., 5]" : "[..., M, 5]");
  check_one_device(call, boxes1, boxes2);
  const Dims lead = broadcast(call, boxes1, boxes2, paired ? 1 : 2);
  const Boxes view1 = view_boxes(call, boxes1, lead, paired, Format::kCXCYWH);
  const Boxes view2 = view_boxes(call, boxes2, lead, paired, Format::kCXCYWH);
  Dims sizes = lead;
  if (!paired) sizes.push_back(view1.count), sizes.push_back(view2.count);
  Array out = call.empty(sizes, compute_type(boxes1.dtype, boxes2.dtype));
  if (out.numel() == 0) return out;
  call.run([&](const Parallel& parallel) { cpu::rotated_box_iou(view1, view2, paired, out.data, parallel); },
           [&](auto stream) { return cuda::rotated_box_iou(view1, view2, paired, out.data, stream); });
  return out;
}
BOXOPS_OP(rotated_box_iou, "boxes1", "boxes2", "paired");

namespace {

Array rotated_nms_in_groups(const char* op, Framework& framework, const Array& boxes, const Array& scores,
                            const std::optional<Array>& idxs, double iou_threshold) {
  const Call call(op, framework, boxes.device);
  const NmsInput input = check_nms(call, boxes, "[N, 5]", scores, idxs, iou_threshold);
  return call.select(
      input.boxes.count, {{DType::kInt64}},
      [&](auto& to, const Parallel& parallel) {
        return cpu::rotated_nms(input, iou_threshold, static_cast<int64_t*>(to[0]), parallel);
      },
      [&](auto& to, auto count, auto stream) {
        return cuda::rotated_nms(input, iou_threshold, static_cast<int64_t*>(to[0]), count,
                                 call.workspace(cuda::rotated_nms_workspace(input)).data, stream);
      })[0];
}

}  // namespace

Array rotated_nms(Framework& framework, Array boxes, Array scores, double iou_threshold) {
  return rotated_nms_in_groups("rotated_nms", framework, boxes, scores, std::nullopt, iou_threshold);
}
BOXOPS_OP(rotated_nms, "boxes", "scores", "iou_threshold");

Array batched_rotated_nms(Framework& framework, Array boxes, Array scores, Array idxs, double iou_threshold) {
  return rotated_nms_in_groups("batched_rotated_nms", framework, boxes, scores, idxs, iou_threshold);
}
BOXOPS_OP(batched_rotated_nms, "boxes", "scores", "idxs", "iou_threshold");

}  // namespace boxops::ops
