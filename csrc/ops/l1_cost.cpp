#include <boxops/l1_cost.h>

#include <boxops/registry.h>
#include "ops/check.h"

namespace boxops::ops {

static Array box_l1_cost(Framework& framework, Array boxes1, Array boxes2) {
  const Call call("box_l1_cost", framework, boxes1.device);
  check_boxes(call, "boxes1", boxes1, "[..., N, 4]");
  check_boxes(call, "boxes2", boxes2, "[..., M, 4]");
  check_one_device(call, boxes1, boxes2);
  const Dims lead = broadcast(call, boxes1, boxes2, 2);
  const Boxes view1 = view_boxes(call, boxes1, lead, false, Format::kXYXY);
  const Boxes view2 = view_boxes(call, boxes2, lead, false, Format::kXYXY);
  Dims sizes = lead;
  sizes.push_back(view1.count), sizes.push_back(view2.count);
  Array out = call.empty(sizes, compute_type(boxes1.dtype, boxes2.dtype));
  call.run([&](const Parallel& parallel) { cpu::box_l1_cost(view1, view2, out.data, parallel); },
           [&](auto stream) { return cuda::box_l1_cost(view1, view2, out.data, stream); });
  return out;
}
BOXOPS_OP(box_l1_cost, "boxes1", "boxes2");

}  // namespace boxops::ops
