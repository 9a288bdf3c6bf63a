#include <boxops/boxes.h>

#include <boxops/memory.h>
#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {

Array box_area(Framework& framework, Array boxes, int64_t format) {
  const char* op = "box_area";
  check_boxes(op, "boxes", boxes, "[..., 4]");
  const Boxes view = view_boxes(framework, op, boxes, boxes.sizes.head(1), true, check_format(op, format));
  Array out = framework.empty(boxes.sizes.head(1), compute_type(boxes.dtype), boxes.device);
  with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(op, boxes.device, cpu::box_area<T>(view, out.as<T>(), framework.parallel()),
                    cuda::box_area<T>(view, out.as<T>(), framework.stream(boxes.device)));
  });
  return out;
}

Array box_convert(Framework& framework, Array boxes, int64_t from, int64_t to) {
  const char* op = "box_convert";
  check_boxes(op, "boxes", boxes, "[..., 4]");
  const Format out_format = check_format(op, to);
  const Boxes view = view_boxes(framework, op, boxes, boxes.sizes.head(1), true, check_format(op, from));
  const DType dtype = is_integer(boxes.dtype) ? compute_type(boxes.dtype) : boxes.dtype;
  Array out = framework.empty(boxes.sizes, dtype, boxes.device);
  with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(op, boxes.device, cpu::box_convert<T>(view, out_format, out.data, dtype, framework.parallel()),
                    cuda::box_convert<T>(view, out_format, out.data, dtype, framework.stream(boxes.device)));
  });
  return out;
}

Array clip_boxes(Framework& framework, Array boxes, double height, double width) try {
  const char* op = "clip_boxes_to_image";
  check_boxes(op, "boxes", boxes, "[..., 4]");
  if (!(height >= 0) || !(width >= 0))
    fail(op, "size = (height, width), both >= 0", "(" + to_string(height) + ", " + to_string(width) + ")");
  const Boxes view = view_boxes(framework, op, boxes, boxes.sizes.head(1), true, Format::kXYXY);
  Array out = framework.empty(boxes.sizes, boxes.dtype, boxes.device);
  BOXOPS_DISPATCH(op, boxes.device, cpu::clip_boxes(view, height, width, out.data, framework.parallel()),
                  cuda::clip_boxes(view, height, width, out.data, framework.stream(boxes.device)));
  return out;
} catch (...) {
  rethrow_named([] { return "clip_boxes_to_image"; });
}

Array remove_small_boxes(Framework& framework, Array boxes, double min_size) {
  const char* op = "remove_small_boxes";
  check_boxes(op, "boxes", boxes, "[N, 4]");
  check_number(op, "min_size", min_size);
  const Boxes view = view_boxes(framework, op, boxes, boxes.sizes.head(1), true, Format::kXYXY);
  return with_compute_type(boxes.dtype, [&](auto t) {
    using T = decltype(t);
    return select(
        framework, op, boxes.device, view.count,
        [&](int64_t* indices) { return cpu::large_boxes<T>(view, static_cast<T>(min_size), indices); },
        [&](auto indices, auto count, auto stream) {
          const auto bytes = static_cast<int64_t>(cuda::large_boxes_workspace(view.count));
          const Array workspace = framework.empty({bytes}, DType::kUInt8, boxes.device);
          return cuda::large_boxes<T>(view, static_cast<T>(min_size), indices, count, workspace.data, stream);
        });
  });
}

}  // namespace boxops::ops
