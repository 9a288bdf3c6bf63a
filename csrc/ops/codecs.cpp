#include <cmath>
#include <vector>

#include <boxops/codec.h>
#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

// A checked call: its views are [B, N, 4] of one B and N.
struct Call {
  CodecOptions options;
  ImageSize size;
  DType dtype;  // of the result
  Dims lead;
  Boxes first, anchors;
};

// A view of `array` broadcast to `lead`; the last of these dims stays apart, so that [N, C] codes can share N anchors.
Boxes view(Framework& framework, const char* op, Array& array, const Dims& lead) {
  Array wide = array;
  wide.sizes = lead, wide.strides = {};
  const int missing = lead.count - (array.rank() - 1);
  for (int i = 0; i < lead.count; ++i)
    wide.strides.push_back(i < missing || array.sizes[i - missing] == 1 ? 0 : array.strides[i - missing]);
  if (lead.count == 0) wide.sizes.push_back(1), wide.strides.push_back(0);
  wide.sizes.push_back(4), wide.strides.push_back(array.strides[-1]);
  array = wide;
  return view_boxes(framework, op, array, array.sizes.head(2), false, Format::kXYXY);
}

Call check(Framework& framework, const char* op, const char* first_name, Array& first, Array& anchors, int64_t coding,
           const std::vector<double>& weights, const std::vector<double>& stride, double clip,
           const std::vector<double>& size) {
  check_boxes(op, first_name, first, "[..., 4]");
  check_boxes(op, "anchors", anchors, "[..., 4]");
  check_floating(op, first_name, first);
  check_floating(op, "anchors", anchors);
  check_device(op, "anchors", anchors, first_name, first);
  if (coding < 0 || coding > 2) fail(op, "coding in 0..2", std::to_string(coding));
  if (weights.size() != 4) fail(op, "4 weights", std::to_string(weights.size()));
  for (const double weight : weights)
    if (!(weight > 0) || std::isinf(weight)) fail(op, "weights > 0 and finite", to_string(weight));
  if (stride.size() != (coding == 0 ? 0 : 2))
    fail(op, coding == 0 ? "no stride for this coding" : "a stride for this coding",
         std::to_string(stride.size()) + " numbers");
  for (const double side : stride)
    if (!(side > 0) || std::isinf(side)) fail(op, "stride > 0 and finite", to_string(side));
  if (std::isnan(clip)) fail(op, "a number or None for clip", "nan");
  if (!size.empty() && (size.size() != 2 || !(size[0] >= 0) || !(size[1] >= 0)))
    fail(op, "size = (height, width), both >= 0",
         size.size() == 2 ? "(" + to_string(size[0]) + ", " + to_string(size[1]) + ")"
                          : std::to_string(size.size()) + " numbers");
  Call call{{static_cast<Coding>(coding),
             {weights[0], weights[1], weights[2], weights[3]},
             clip,
             coding == 0 ? 1 : stride[1],
             coding == 0 ? 1 : stride[0]},
            {!size.empty(), size.empty() ? 0 : size[0], size.empty() ? 0 : size[1]},
            compute_type(first.dtype, anchors.dtype),
            broadcast(op, first, anchors, 1),
            {},
            {}};
  call.first = view(framework, op, first, call.lead);
  call.anchors = view(framework, op, anchors, call.lead);
  return call;
}

Dims sizes_of(const Call& call) {
  Dims sizes = call.lead;
  sizes.push_back(4);
  return sizes;
}

Boxes check_gradient(Framework& framework, const char* op, Array& grad, const Call& call, const Array& first) {
  if (!(grad.sizes == sizes_of(call)))
    fail(op, "a gradient of shape " + to_string(sizes_of(call)), to_string(grad.sizes));
  if (grad.dtype != call.dtype)
    fail(op, std::string("a gradient of dtype ") + name_of(call.dtype), name_of(grad.dtype));
  if (!(grad.device == first.device)) fail(op, "a gradient on " + to_string(first.device), to_string(grad.device));
  return view(framework, op, grad, call.lead);
}

}  // namespace

Array encode_boxes(Framework& framework, Array boxes, Array anchors, int64_t coding, std::vector<double> weights,
                   std::vector<double> stride) {
  const char* op = "encode_boxes";
  const Call call = check(framework, op, "boxes", boxes, anchors, coding, weights, stride, 0, {});
  Array codes = framework.empty(sizes_of(call), call.dtype, boxes.device);
  if (codes.numel() == 0) return codes;
  with_compute_type(call.dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(
        op, boxes.device,
        cpu::encode_boxes<T>(call.first, call.anchors, call.options, codes.as<T>(), framework.parallel()),
        cuda::encode_boxes<T>(call.first, call.anchors, call.options, codes.as<T>(), framework.stream(boxes.device)));
  });
  return codes;
}

Array decode_boxes(Framework& framework, Array codes, Array anchors, int64_t coding, std::vector<double> weights,
                   std::vector<double> stride, double clip, std::vector<double> size) {
  const char* op = "decode_boxes";
  const Call call = check(framework, op, "codes", codes, anchors, coding, weights, stride, clip, size);
  Array boxes = framework.empty(sizes_of(call), call.dtype, codes.device);
  if (boxes.numel() == 0) return boxes;
  with_compute_type(call.dtype, [&](auto t) {
    using T = decltype(t);
    BOXOPS_DISPATCH(
        op, codes.device,
        cpu::decode_boxes<T>(call.first, call.anchors, call.options, call.size, boxes.as<T>(), framework.parallel()),
        cuda::decode_boxes<T>(call.first, call.anchors, call.options, call.size, boxes.as<T>(),
                              framework.stream(codes.device)));
  });
  return boxes;
}

std::tuple<Array, Array> encode_boxes_backward(Framework& framework, Array grad, Array boxes, Array anchors,
                                               int64_t coding, std::vector<double> weights, std::vector<double> stride,
                                               bool of_anchors) {
  const char* op = "encode_boxes";
  const Call call = check(framework, op, "boxes", boxes, anchors, coding, weights, stride, 0, {});
  const Boxes grads = check_gradient(framework, op, grad, call, boxes);
  Array grad_boxes = framework.empty(sizes_of(call), call.dtype, boxes.device);
  Array grad_anchors = framework.empty(of_anchors ? sizes_of(call) : Dims{0}, call.dtype, boxes.device);
  if (grad_boxes.numel() == 0) return {grad_boxes, grad_anchors};
  with_compute_type(call.dtype, [&](auto t) {
    using T = decltype(t);
    T* to_anchors = of_anchors ? grad_anchors.as<T>() : nullptr;
    BOXOPS_DISPATCH(op, boxes.device,
                    cpu::encode_boxes_backward<T>(call.first, call.anchors, call.options, grads, grad_boxes.as<T>(),
                                                  to_anchors, framework.parallel()),
                    cuda::encode_boxes_backward<T>(call.first, call.anchors, call.options, grads, grad_boxes.as<T>(),
                                                   to_anchors, framework.stream(boxes.device)));
  });
  return {grad_boxes, grad_anchors};
}

std::tuple<Array, Array> decode_boxes_backward(Framework& framework, Array grad, Array codes, Array anchors,
                                               int64_t coding, std::vector<double> weights, std::vector<double> stride,
                                               double clip, std::vector<double> size, bool of_anchors) {
  const char* op = "decode_boxes";
  const Call call = check(framework, op, "codes", codes, anchors, coding, weights, stride, clip, size);
  const Boxes grads = check_gradient(framework, op, grad, call, codes);
  Array grad_codes = framework.empty(sizes_of(call), call.dtype, codes.device);
  Array grad_anchors = framework.empty(of_anchors ? sizes_of(call) : Dims{0}, call.dtype, codes.device);
  if (grad_codes.numel() == 0) return {grad_codes, grad_anchors};
  with_compute_type(call.dtype, [&](auto t) {
    using T = decltype(t);
    T* to_anchors = of_anchors ? grad_anchors.as<T>() : nullptr;
    BOXOPS_DISPATCH(op, codes.device,
                    cpu::decode_boxes_backward<T>(call.first, call.anchors, call.options, call.size, grads,
                                                  grad_codes.as<T>(), to_anchors, framework.parallel()),
                    cuda::decode_boxes_backward<T>(call.first, call.anchors, call.options, call.size, grads,
                                                   grad_codes.as<T>(), to_anchors, framework.stream(codes.device)));
  });
  return {grad_codes, grad_anchors};
}

}  // namespace boxops::ops
