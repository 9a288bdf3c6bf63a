#include <boxops/boxes.h>

#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {

Array box_area(Framework& framework, Array boxes, Format fmt) {
  const Call call("box_area", framework, boxes.device);
  check_boxes(call, "boxes", boxes, "[..., 4]");
  const Boxes view = view_boxes(call, boxes, boxes.sizes.head(1), true, fmt);
  Array out = call.empty(boxes.sizes.head(1), compute_type(boxes.dtype));
  call.run([&](const Parallel& parallel) { cpu::box_area(view, out.data, parallel); },
           [&](auto stream) { return cuda::box_area(view, out.data, stream); });
  return out;
}
BOXOPS_OP(box_area, "boxes", "fmt");

Array box_convert(Framework& framework, Array boxes, Format in_fmt, Format out_fmt) {
  const Call call("box_convert", framework, boxes.device);
  check_boxes(call, "boxes", boxes, "[..., 4]");
  const Boxes view = view_boxes(call, boxes, boxes.sizes.head(1), true, in_fmt);
  const DType dtype = is_integer(boxes.dtype) ? compute_type(boxes.dtype) : boxes.dtype;
  Array out = call.empty(boxes.sizes, dtype);
  call.run([&](const Parallel& parallel) { cpu::box_convert(view, out_fmt, out.data, dtype, parallel); },
           [&](auto stream) { return cuda::box_convert(view, out_fmt, out.data, dtype, stream); });
  return out;
}
BOXOPS_OP(box_convert, "boxes", "in_fmt", "out_fmt");

Array clip_boxes_to_image(Framework& framework, Array boxes, double height, double width) {
  const Call call("clip_boxes_to_image", framework, boxes.device);
  check_boxes(call, "boxes", boxes, "[..., 4]");
  if (!(height >= 0) || !(width >= 0))
    call.fail("size = (height, width), both >= 0", "(" + to_string(height) + ", " + to_string(width) + ")");
  const Boxes view = view_boxes(call, boxes, boxes.sizes.head(1), true, Format::kXYXY);
  Array out = call.empty(boxes.sizes, boxes.dtype);
  call.run([&](const Parallel& parallel) { cpu::clip_boxes(view, height, width, out.data, parallel); },
           [&](auto stream) { return cuda::clip_boxes(view, height, width, out.data, stream); });
  return out;
}
BOXOPS_OP(clip_boxes_to_image, "boxes", "height", "width");

Array remove_small_boxes(Framework& framework, Array boxes, double min_size) {
  const Call call("remove_small_boxes", framework, boxes.device);
  check_boxes(call, "boxes", boxes, "[N, 4]");
  check_number(call, "min_size", min_size);
  const Boxes view = boxes_of(boxes);
  return call.select(
      view.count, {{DType::kInt64}},
      [&](auto& to, const Parallel&) { return cpu::large_boxes(view, min_size, static_cast<int64_t*>(to[0])); },
      [&](auto& to, auto count, auto stream) {
        return cuda::large_boxes(view, min_size, static_cast<int64_t*>(to[0]), count,
                                 call.workspace(cuda::large_boxes_workspace(view.count)).data, stream);
      })[0];
}
BOXOPS_OP(remove_small_boxes, "boxes", "min_size");

}  // namespace boxops::ops
