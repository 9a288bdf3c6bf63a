#include <boxops/rotated.h>

#include <boxops/nms.h>
#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {

Array rotated_box_iou(Framework& framework, Array boxes1, Array boxes2, bool paired) {
  const char* op = "rotated_box_iou";
  check_boxes(op, "boxes1", boxes1, paired ? "[..., 5]" : "[..., N, 5]");
  check_boxes(op, "boxes2", boxes2, paired ? "[..., 5]" : "[..., M, 5]");
  check_one_device(op, boxes1, boxes2);
  const Dims lead = broadcast(op, boxes1, boxes2, paired ? 1 : 2);
  const Boxes view1 = view_boxes(framework, op, boxes1, lead, paired, Format::kCXCYWH);
  const Boxes view2 = view_boxes(framework, op, boxes2, lead, paired, Format::kCXCYWH);
  Dims sizes = lead;
  if (!paired) sizes.push_back(view1.count), sizes.push_back(view2.count);
  const DType dtype = compute_type(boxes1.dtype, boxes2.dtype);
  Array out = framework.empty(sizes, dtype, boxes1.device);
  if (out.numel() == 0) return out;
  with_compute_type(dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(op, boxes1.device, cpu::rotated_box_iou<T>(view1, view2, paired, out.as<T>(), framework.parallel()),
                    cuda::rotated_box_iou<T>(view1, view2, paired, out.as<T>(), framework.stream(boxes1.device)));
  });
  return out;
}

namespace {

// A template, so that nothing refers to CUDA where no CUDA call is compiled.
template <class T>
Array workspace(Framework& framework, const Array& boxes, const NmsInput& input) {
  const auto bytes = static_cast<int64_t>(cuda::rotated_nms_workspace(input, sizeof(T) == 8));
  return framework.empty({bytes}, DType::kUInt8, boxes.device);
}

Array rotated_nms_in_groups(const char* op, Framework& framework, const Array& boxes, const Array& scores,
                            const std::optional<Array>& idxs, double iou_threshold) {
  check_boxes(op, "boxes", boxes, "[N, 5]");
  check_per_box(op, "scores", scores, boxes);
  if (idxs) check_ids(op, "idxs", *idxs, boxes);
  check_iou_threshold(op, iou_threshold);
  const int64_t count = boxes.sizes[0];
  NmsInput input{{boxes.data, boxes.dtype, Format::kCXCYWH, 1, count, 0, boxes.strides[0], boxes.strides[1]},
                 view_scalars(scores),
                 idxs.has_value(),
                 {}};
  if (idxs) input.groups = view_scalars(*idxs);
  return with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    const T threshold = static_cast<T>(iou_threshold);
    return select(
        framework, op, boxes.device, count,
        [&](int64_t* keep) { return cpu::rotated_nms<T>(input, threshold, keep, framework.parallel()); },
        [&](auto keep, auto kept, auto stream) {
          return cuda::rotated_nms<T>(input, threshold, keep, kept, workspace<T>(framework, boxes, input).data, stream);
        });
  });
}

}  // namespace

Array rotated_nms(Framework& framework, Array boxes, Array scores, double iou_threshold) {
  return rotated_nms_in_groups("rotated_nms", framework, boxes, scores, std::nullopt, iou_threshold);
}

Array batched_rotated_nms(Framework& framework, Array boxes, Array scores, Array idxs, double iou_threshold) {
  return rotated_nms_in_groups("batched_rotated_nms", framework, boxes, scores, idxs, iou_threshold);
}

}  // namespace boxops::ops
