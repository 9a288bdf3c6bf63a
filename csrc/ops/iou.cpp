#include <boxops/iou.h>

#include <cmath>

#include <boxops/memory.h>
#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

// One call's checked inputs.
struct Call {
  const char* op;
  MeasureOptions options;
  Dims lead;
  Boxes boxes1, boxes2;
};

// Only the losses have an eps in the IoU; their errors bear their names.
const char* name_of(int64_t measure, double iou_eps) {
  constexpr const char* names[] = {"box_iou", "box_ioa", "generalized_box_iou", "distance_box_iou", "complete_box_iou"};
  constexpr const char* losses[] = {"", "", "generalized_box_iou_loss", "distance_box_iou_loss",
                                    "complete_box_iou_loss"};
  if (measure < 0 || measure > 4) fail("iou", "measure in 0..4", std::to_string(measure));
  return iou_eps != 0 && measure > 1 ? losses[measure] : names[measure];
}

Call check(Framework& framework, Array& boxes1, Array& boxes2, int64_t measure, bool paired, int64_t format,
           double iou_eps, double eps) {
  Call call{name_of(measure, iou_eps), {static_cast<Measure>(measure), paired, iou_eps, eps}, {}, {}, {}};
  const char* op = call.op;
  check_boxes(op, "boxes1", boxes1, paired ? "[..., 4]" : "[..., N, 4]");
  check_boxes(op, "boxes2", boxes2, paired ? "[..., 4]" : "[..., M, 4]");
  check_one_device(op, boxes1, boxes2);
  for (const double value : {iou_eps, eps})
    if (!(value >= 0 && std::isfinite(value))) fail(op, "eps >= 0 and finite", to_string(value));
  call.lead = broadcast(op, boxes1, boxes2, paired ? 1 : 2);
  call.boxes1 = view_boxes(framework, op, boxes1, call.lead, paired, check_format(op, format));
  call.boxes2 = view_boxes(framework, op, boxes2, call.lead, paired, check_format(op, format));
  return call;
}

}  // namespace

Array iou(Framework& framework, Array boxes1, Array boxes2, int64_t measure, bool paired, int64_t format,
          double iou_eps, double eps) try {
  const Call call = check(framework, boxes1, boxes2, measure, paired, format, iou_eps, eps);
  Dims sizes = call.lead;
  if (!paired) sizes.push_back(call.boxes1.count), sizes.push_back(call.boxes2.count);
  const DType dtype = compute_type(boxes1.dtype, boxes2.dtype);
  Array out = framework.empty(sizes, dtype, boxes1.device);
  if (out.numel() == 0) return out;
  with_compute_type(dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(call.op, boxes1.device,
                    cpu::iou<T>(call.boxes1, call.boxes2, call.options, out.as<T>(), framework.parallel()),
                    cuda::iou<T>(call.boxes1, call.boxes2, call.options, out.as<T>(), framework.stream(boxes1.device)));
  });
  return out;
} catch (...) {
  rethrow_named([&] { return name_of(measure, iou_eps); });
}

std::tuple<Array, Array> iou_backward(Framework& framework, Array grad, Array boxes1, Array boxes2, int64_t measure,
                                      bool paired, int64_t format, double iou_eps, double eps) try {
  const Call call = check(framework, boxes1, boxes2, measure, paired, format, iou_eps, eps);
  Dims sizes = call.lead, sizes1 = call.lead, sizes2 = call.lead;
  if (!paired) {
    sizes.push_back(call.boxes1.count), sizes.push_back(call.boxes2.count);
    sizes1.push_back(call.boxes1.count), sizes2.push_back(call.boxes2.count);
  }
  sizes1.push_back(4), sizes2.push_back(4);
  const DType dtype = compute_type(boxes1.dtype, boxes2.dtype);
  if (!(grad.sizes == sizes)) fail(call.op, "a gradient of shape " + to_string(sizes), to_string(grad.sizes));
  if (grad.dtype != dtype) fail(call.op, std::string("a gradient of dtype ") + name_of(dtype), name_of(grad.dtype));
  if (!(grad.device == boxes1.device))
    fail(call.op, "a gradient on " + to_string(boxes1.device), to_string(grad.device));
  grad = contiguous(framework, call.op, grad);
  Array grad1 = framework.empty(sizes1, dtype, boxes1.device), grad2 = framework.empty(sizes2, dtype, boxes1.device);
  with_compute_type(dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(call.op, boxes1.device,
                    cpu::iou_backward<T>(call.boxes1, call.boxes2, call.options, grad.as<T>(), grad1.as<T>(),
                                         grad2.as<T>(), framework.parallel()),
                    cuda::iou_backward<T>(call.boxes1, call.boxes2, call.options, grad.as<T>(), grad1.as<T>(),
                                          grad2.as<T>(), framework.stream(boxes1.device)));
  });
  return {grad1, grad2};
} catch (...) {
  rethrow_named([&] { return name_of(measure, iou_eps); });
}

}  // namespace boxops::ops
