#include <cmath>
#include <vector>

#include <boxops/codecs.h>
#include <boxops/ops.h>
#include "ops/check.h"

namespace boxops::ops {
namespace {

// The checked inputs: views [B, N, 4] of one B and N.
struct Pairs {
  CodecOptions options;
  ImageSizes image_sizes;  // which point into the argument
  DType dtype;             // of the result
  Dims sizes;
  Boxes first, anchors;
};

// A view of `array` broadcast to `sizes`; the last but one of these dims stays apart, so that [N, C] deltas can share N
// anchors.
Boxes view(const Call& call, Array& array, const Dims& sizes) {
  const Dims lead = sizes.head(1);
  Array wide = array;
  wide.sizes = lead, wide.strides = {};
  const int missing = lead.count - (array.rank() - 1);
  for (int i = 0; i < lead.count; ++i)
    wide.strides.push_back(i < missing || array.sizes[i - missing] == 1 ? 0 : array.strides[i - missing]);
  if (lead.count == 0) wide.sizes.push_back(1), wide.strides.push_back(0);
  wide.sizes.push_back(4), wide.strides.push_back(array.strides[-1]);
  array = wide;
  return view_boxes(call, array, array.sizes.head(2), false, Format::kXYXY);
}

Pairs check(const Call& call, const char* first_name, Array& first, Array& anchors, Coding coding,
            const std::vector<double>& weights, const std::vector<double>& stride, double clip,
            const std::vector<double>& sides) {
  check_boxes(call, first_name, first, "[..., 4]");
  check_boxes(call, "anchors", anchors, "[..., 4]");
  check_floating(call, first_name, first);
  check_floating(call, "anchors", anchors);
  check_device(call, "anchors", anchors, first_name);
  check_weights(call, weights);
  const bool rcnn = coding == Coding::kRCNN;
  if (stride.size() != (rcnn ? 0 : 2))
    call.fail(rcnn ? "no stride for this coding" : "a stride for this coding",
              std::to_string(stride.size()) + " numbers");
  for (const double side : stride)
    if (!(side > 0) || std::isinf(side)) call.fail("stride > 0 and finite", to_string(side));
  if (std::isnan(clip)) call.fail("a number or None for clip", "nan");
  if (sides.size() % 2 != 0) call.fail("image_size in pairs", std::to_string(sides.size()) + " numbers");
  const auto images = static_cast<int64_t>(sides.size() / 2);
  for (int64_t i = 0; i < 2 * images; i += 2)
    if (!(sides[i] >= 0 && sides[i + 1] >= 0))
      call.fail("image_size = (height, width), both >= 0",
                "(" + to_string(sides[i]) + ", " + to_string(sides[i + 1]) + ")");
  Pairs pairs{
      {coding, {weights[0], weights[1], weights[2], weights[3]}, clip, rcnn ? 1 : stride[1], rcnn ? 1 : stride[0]},
      {images, sides.data()},
      compute_type(first.dtype, anchors.dtype),
      broadcast(call, first, anchors, 1),
      {},
      {}};
  if (images > 1 && (pairs.sizes.count == 0 || images != pairs.sizes[0]))
    call.fail("image_size of one image, or of each along the first dim of " + to_string(pairs.sizes),
              std::to_string(images));
  pairs.sizes.push_back(4);
  pairs.first = view(call, first, pairs.sizes);
  pairs.anchors = view(call, anchors, pairs.sizes);
  return pairs;
}

}  // namespace

Array encode_boxes(Framework& framework, Array boxes, Array anchors, Coding coding, std::vector<double> weights,
                   std::vector<double> stride) {
  const Call call("encode_boxes", framework, boxes.device);
  const Pairs in = check(call, "boxes", boxes, anchors, coding, weights, stride, 0, {});
  Array deltas = call.empty(in.sizes, in.dtype);
  if (deltas.numel() == 0) return deltas;
  call.run(
      [&](const Parallel& parallel) { cpu::encode_boxes(in.first, in.anchors, in.options, deltas.data, parallel); },
      [&](auto stream) { return cuda::encode_boxes(in.first, in.anchors, in.options, deltas.data, stream); });
  return deltas;
}
BOXOPS_OP(encode_boxes, "boxes", "anchors", "coding", "weights", "stride");

Array decode_boxes(Framework& framework, Array deltas, Array anchors, Coding coding, std::vector<double> weights,
                   std::vector<double> stride, double clip, std::vector<double> image_size) {
  const Call call("decode_boxes", framework, deltas.device);
  const Pairs in = check(call, "deltas", deltas, anchors, coding, weights, stride, clip, image_size);
  Array boxes = call.empty(in.sizes, in.dtype);
  if (boxes.numel() == 0) return boxes;
  call.run(
      [&](const Parallel& parallel) {
        cpu::decode_boxes(in.first, in.anchors, in.options, in.image_sizes, boxes.data, parallel);
      },
      [&](auto stream) {
        return cuda::decode_boxes(in.first, in.anchors, in.options, in.image_sizes, boxes.data, stream);
      });
  return boxes;
}
BOXOPS_OP(decode_boxes, "deltas", "anchors", "coding", "weights", "stride", "clip", "image_size");

std::tuple<Array, Array> encode_boxes_backward(Framework& framework, Array grad, Array boxes, Array anchors,
                                               Coding coding, std::vector<double> weights, std::vector<double> stride,
                                               bool of_anchors) {
  const Call call("encode_boxes_backward", framework, boxes.device);
  const Pairs in = check(call, "boxes", boxes, anchors, coding, weights, stride, 0, {});
  check_gradient(call, grad, in.sizes, in.dtype);
  const Boxes grads = view(call, grad, in.sizes);
  Array grad_boxes = call.empty(in.sizes, in.dtype);
  Array grad_anchors = call.empty(of_anchors ? in.sizes : Dims{0}, in.dtype);
  if (grad_boxes.numel() == 0) return {grad_boxes, grad_anchors};
  void* to_anchors = of_anchors ? grad_anchors.data : nullptr;
  call.run(
      [&](const Parallel& parallel) {
        cpu::encode_boxes_backward(in.first, in.anchors, in.options, grads, grad_boxes.data, to_anchors, parallel);
      },
      [&](auto stream) {
        return cuda::encode_boxes_backward(in.first, in.anchors, in.options, grads, grad_boxes.data, to_anchors,
                                           stream);
      });
  return {grad_boxes, grad_anchors};
}
BOXOPS_OP(encode_boxes_backward, "grad", "boxes", "anchors", "coding", "weights", "stride", "of_anchors");

std::tuple<Array, Array> decode_boxes_backward(Framework& framework, Array grad, Array deltas, Array anchors,
                                               Coding coding, std::vector<double> weights, std::vector<double> stride,
                                               double clip, std::vector<double> image_size, bool of_anchors) {
  const Call call("decode_boxes_backward", framework, deltas.device);
  const Pairs in = check(call, "deltas", deltas, anchors, coding, weights, stride, clip, image_size);
  check_gradient(call, grad, in.sizes, in.dtype);
  const Boxes grads = view(call, grad, in.sizes);
  Array grad_deltas = call.empty(in.sizes, in.dtype);
  Array grad_anchors = call.empty(of_anchors ? in.sizes : Dims{0}, in.dtype);
  if (grad_deltas.numel() == 0) return {grad_deltas, grad_anchors};
  void* to_anchors = of_anchors ? grad_anchors.data : nullptr;
  call.run(
      [&](const Parallel& parallel) {
        cpu::decode_boxes_backward(in.first, in.anchors, in.options, in.image_sizes, grads, grad_deltas.data,
                                   to_anchors, parallel);
      },
      [&](auto stream) {
        return cuda::decode_boxes_backward(in.first, in.anchors, in.options, in.image_sizes, grads, grad_deltas.data,
                                           to_anchors, stream);
      });
  return {grad_deltas, grad_anchors};
}
BOXOPS_OP(decode_boxes_backward, "grad", "deltas", "anchors", "coding", "weights", "stride", "clip", "image_size",
          "of_anchors");

}  // namespace boxops::ops
