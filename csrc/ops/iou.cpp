#include <boxops/iou.h>

#include <cmath>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

// Errors bear the name of the public function.
const char* name_of(Measure measure, bool loss) {
  constexpr const char* losses[] = {"box_iou_loss", "box_ioa_loss", "generalized_box_iou_loss", "distance_box_iou_loss",
                                    "complete_box_iou_loss"};
  return loss ? losses[static_cast<int>(measure)] : kNames<Measure>[static_cast<size_t>(measure)];
}

// The checked inputs.
struct Pairs {
  MeasureOptions options;
  Dims lead, sizes;  // of the result
  Boxes boxes1, boxes2;
};

Pairs check(const Call& call, Array& boxes1, Array& boxes2, Measure measure, bool paired, Format format, double eps,
            bool loss) {
  check_boxes(call, "boxes1", boxes1, paired ? "[..., 4]" : "[..., N, 4]");
  check_boxes(call, "boxes2", boxes2, paired ? "[..., 4]" : "[..., M, 4]");
  check_one_device(call, boxes1, boxes2);
  if (!(eps >= 0 && std::isfinite(eps))) call.fail("eps >= 0 and finite", to_string(eps));
  const Dims lead = broadcast(call, boxes1, boxes2, paired ? 1 : 2);
  Pairs pairs{{measure, paired, loss ? eps : 0, eps}, lead, lead, {}, {}};
  pairs.boxes1 = view_boxes(call, boxes1, lead, paired, format);
  pairs.boxes2 = view_boxes(call, boxes2, lead, paired, format);
  if (!paired) pairs.sizes.push_back(pairs.boxes1.count), pairs.sizes.push_back(pairs.boxes2.count);
  return pairs;
}

}  // namespace

Array iou(Framework& framework, Array&& boxes1, Array&& boxes2, Measure measure, bool paired, Format format, double eps,
          bool loss) {
  const Call call(name_of(measure, loss), framework, boxes1.device);
  const Pairs in = check(call, boxes1, boxes2, measure, paired, format, eps, loss);
  Array out = call.empty(in.sizes, compute_type(boxes1.dtype, boxes2.dtype));
  if (out.numel() == 0) return out;
  call.run([&](const Parallel& parallel) { cpu::iou(in.boxes1, in.boxes2, in.options, out.data, parallel); },
           [&](auto stream) { return cuda::iou(in.boxes1, in.boxes2, in.options, out.data, stream); });
  return out;
}

Array box_iou(Framework& framework, Array boxes1, Array boxes2, Format fmt, bool paired) {
  return iou(framework, std::move(boxes1), std::move(boxes2), Measure::kIoU, paired, fmt, 0, false);
}
BOXOPS_OP(box_iou, "boxes1", "boxes2", "fmt", "paired");

Array box_ioa(Framework& framework, Array boxes1, Array boxes2, Format fmt, bool paired) {
  return iou(framework, std::move(boxes1), std::move(boxes2), Measure::kIoA, paired, fmt, 0, false);
}
BOXOPS_OP(box_ioa, "boxes1", "boxes2", "fmt", "paired");

Array generalized_box_iou(Framework& framework, Array boxes1, Array boxes2, Format fmt, bool paired) {
  return iou(framework, std::move(boxes1), std::move(boxes2), Measure::kGIoU, paired, fmt, 0, false);
}
BOXOPS_OP(generalized_box_iou, "boxes1", "boxes2", "fmt", "paired");

Array distance_box_iou(Framework& framework, Array boxes1, Array boxes2, double eps, Format fmt, bool paired) {
  return iou(framework, std::move(boxes1), std::move(boxes2), Measure::kDIoU, paired, fmt, eps, false);
}
BOXOPS_OP(distance_box_iou, "boxes1", "boxes2", "eps", "fmt", "paired");

Array complete_box_iou(Framework& framework, Array boxes1, Array boxes2, double eps, Format fmt, bool paired) {
  return iou(framework, std::move(boxes1), std::move(boxes2), Measure::kCIoU, paired, fmt, eps, false);
}
BOXOPS_OP(complete_box_iou, "boxes1", "boxes2", "eps", "fmt", "paired");

Array iou_of_loss(Framework& framework, Array boxes1, Array boxes2, Measure measure, double eps) {
  return iou(framework, std::move(boxes1), std::move(boxes2), measure, true, Format::kXYXY, eps, true);
}
BOXOPS_OP(iou_of_loss, "boxes1", "boxes2", "measure", "eps");

std::tuple<Array, Array> iou_backward(Framework& framework, Array grad, Array boxes1, Array boxes2, Measure measure,
                                      bool paired, Format format, double eps, bool loss) {
  const Call call(name_of(measure, loss), framework, boxes1.device);
  const Pairs in = check(call, boxes1, boxes2, measure, paired, format, eps, loss);
  const DType dtype = compute_type(boxes1.dtype, boxes2.dtype);
  check_gradient(call, grad, in.sizes, dtype);
  grad = contiguous(call, grad);
  Dims sizes1 = in.lead, sizes2 = in.lead;
  if (!paired) sizes1.push_back(in.boxes1.count), sizes2.push_back(in.boxes2.count);
  sizes1.push_back(4), sizes2.push_back(4);
  Array grad1 = call.empty(sizes1, dtype), grad2 = call.empty(sizes2, dtype);
  call.run(
      [&](const Parallel& parallel) {
        cpu::iou_backward(in.boxes1, in.boxes2, in.options, grad.data, grad1.data, grad2.data, parallel);
      },
      [&](auto stream) {
        return cuda::iou_backward(in.boxes1, in.boxes2, in.options, grad.data, grad1.data, grad2.data, stream);
      });
  return {grad1, grad2};
}
BOXOPS_OP(iou_backward, "grad", "boxes1", "boxes2", "measure", "paired", "fmt", "eps", "loss");

}  // namespace boxops::ops
