// The arithmetic of <boxops/codecs.h>: the one copy, for every backend.
#pragma once

#include <cmath>

#include <boxops/codecs.h>
#include "boxes/boxes.h"
#include "common/exp_log.h"

namespace boxops {

namespace detail {  // one axis

constexpr double kCellMargin = 1e-6;  // from the cell's border, in cells: <boxops/codecs.h>

// An axis of a box as its centre and its size.
template <class T>
struct Span {
  T centre, size;
};

template <class T>
BOXOPS_HD Span<T> span_of(T lo, T hi) {
  return {lo + T(0.5) * (hi - lo), hi - lo};
}

// Upper ends keep NaN.
template <class T>
BOXOPS_HD T at_most(T value, T limit) {
  return value > limit ? limit : value;
}

// What an axis of a delta does to an anchor: the centre moves by `shift` units, the size grows by `ratio`.
template <class T>
struct Step {
  T shift, ratio;
};

template <class T>
BOXOPS_HD Step<T> step_of(T position, T extent, T position_weight, T extent_weight, const CodecOptions& o) {
  const T clip = static_cast<T>(o.clip);
  if (o.coding == Coding::kRCNN) return {position / position_weight, exp_of(at_most(extent / extent_weight, clip))};
  if (o.coding == Coding::kYOLOv1) return {position - T(0.5), extent * extent};
  return {T(1) / (T(1) + exp_of(-position)) - T(0.5), exp_of(at_most(extent, clip))};
}

// One axis of decoding, backwards: from the gradients of both ends to those of position, extent and the anchor's ends.
template <class T>
struct AxisGradient {
  T position, extent, lo, hi;
};

template <class T>
BOXOPS_HD AxisGradient<T> decode_axis_gradient(T position, T extent, T anchor_size, T position_weight, T extent_weight,
                                               T stride, const CodecOptions& o, T grad_lo, T grad_hi) {
  const Step<T> step = step_of(position, extent, position_weight, extent_weight, o);
  const T grad_centre = grad_lo + grad_hi, grad_size = T(0.5) * (grad_hi - grad_lo);
  const bool rcnn = o.coding == Coding::kRCNN, v1 = o.coding == Coding::kYOLOv1;
  T grad_position = grad_centre * (rcnn ? anchor_size / position_weight : stride);
  if (!rcnn && !v1) grad_position *= (T(0.5) + step.shift) * (T(0.5) - step.shift);  // sigmoid's slope
  const T slope = v1 ? T(2) * extent : (rcnn ? step.ratio / extent_weight : step.ratio);
  const T scaled = rcnn ? extent / extent_weight : extent;
  const bool passes = v1 || scaled < static_cast<T>(o.clip);
  const T grad_anchor_size = grad_size * step.ratio + (rcnn ? grad_centre * step.shift : T(0));
  return {grad_position, passes ? grad_size * slope * anchor_size : T(0), T(0.5) * grad_centre - grad_anchor_size,
          T(0.5) * grad_centre + grad_anchor_size};
}

// A centre's place in its cell, in (0, 1); NaN stays NaN.
template <class T>
BOXOPS_HD T inside_cell(T place) {
  const T margin = static_cast<T>(kCellMargin);
  return place < margin ? margin : at_most(place, T(1) - margin);
}

template <class T>
BOXOPS_HD Span<T> encode_axis(const Span<T>& box, const Span<T>& anchor, T position_weight, T extent_weight, T stride,
                              const CodecOptions& o) {
  const T ratio = box.size / anchor.size;
  if (o.coding == Coding::kRCNN)
    return {position_weight * (box.centre - anchor.centre) / anchor.size, extent_weight * log_of(ratio)};
  const T place = (box.centre - anchor.centre) / stride + T(0.5);
  if (o.coding == Coding::kYOLOv1) return {place, std::sqrt(ratio)};
  const T inside = inside_cell(place);
  return {log_of(inside / (T(1) - inside)), log_of(ratio)};
}

// One axis of encoding, backwards; lo and hi are those of the box, then those of the anchor.
template <class T>
struct EncodeAxisGradient {
  T box_lo, box_hi, anchor_lo, anchor_hi;
};

template <class T>
BOXOPS_HD EncodeAxisGradient<T> encode_axis_gradient(const Span<T>& box, const Span<T>& anchor, T position_weight,
                                                     T extent_weight, T stride, const CodecOptions& o, T grad_position,
                                                     T grad_extent) {
  T centre, box_size, anchor_size;  // the gradients of the box's centre, its size and the anchor's size
  if (o.coding == Coding::kRCNN) {
    centre = grad_position * position_weight / anchor.size;
    box_size = grad_extent * extent_weight / box.size;
    anchor_size = -(centre * (box.centre - anchor.centre) + grad_extent * extent_weight) / anchor.size;
  } else {
    centre = grad_position / stride;
    if (o.coding != Coding::kYOLOv1) {
      const T place = (box.centre - anchor.centre) / stride + T(0.5), inside = inside_cell(place);
      centre = place == inside ? centre / (inside * (T(1) - inside)) : T(0);
      box_size = grad_extent / box.size;
      anchor_size = -grad_extent / anchor.size;
    } else {
      const T root = std::sqrt(box.size / anchor.size);
      box_size = T(0.5) * grad_extent / (root * anchor.size);
      anchor_size = T(-0.5) * grad_extent * root / anchor.size;
    }
  }
  return {T(0.5) * centre - box_size, T(0.5) * centre + box_size, T(-0.5) * centre - anchor_size,
          T(-0.5) * centre + anchor_size};
}

}  // namespace detail

// The arithmetic below is torchvision's BoxCoder, step by step.
template <class T>
BOXOPS_HD Box<T> decode_box(const Box<T>& delta, const Box<T>& anchor, const CodecOptions& o) {
  const detail::Span<T> ax = detail::span_of(anchor.x1, anchor.x2), ay = detail::span_of(anchor.y1, anchor.y2);
  const detail::Step<T> sx =
      detail::step_of(delta.x1, delta.x2, static_cast<T>(o.weights[0]), static_cast<T>(o.weights[2]), o);
  const detail::Step<T> sy =
      detail::step_of(delta.y1, delta.y2, static_cast<T>(o.weights[1]), static_cast<T>(o.weights[3]), o);
  const bool rcnn = o.coding == Coding::kRCNN;
  const T x = sx.shift * (rcnn ? ax.size : static_cast<T>(o.stride_x)) + ax.centre;
  const T y = sy.shift * (rcnn ? ay.size : static_cast<T>(o.stride_y)) + ay.centre;
  const T half_w = T(0.5) * (sx.ratio * ax.size), half_h = T(0.5) * (sy.ratio * ay.size);
  return {x - half_w, y - half_h, x + half_w, y + half_h};
}

// A gradient with respect to a delta or box, and one with respect to its anchor.
template <class T>
struct CodecGradient {
  Box<T> self, anchor;
};

// The image of a box, which it is clipped to, if `clips`.
struct ImageSize {
  bool clips;
  double height, width;
};

// The gradient of grad * decode_box. A clip passes it strictly inside its limits only, as torch's clamp since 2.14.
template <class T>
BOXOPS_HD CodecGradient<T> decode_gradient(const Box<T>& delta, const Box<T>& anchor, const CodecOptions& o,
                                           const ImageSize& size, Box<T> grad) {
  if (size.clips) {
    const Box<T> b = decode_box(delta, anchor, o);
    const T width = static_cast<T>(size.width), height = static_cast<T>(size.height);
    grad.x1 = b.x1 > T(0) && b.x1 < width ? grad.x1 : T(0);
    grad.y1 = b.y1 > T(0) && b.y1 < height ? grad.y1 : T(0);
    grad.x2 = b.x2 > T(0) && b.x2 < width ? grad.x2 : T(0);
    grad.y2 = b.y2 > T(0) && b.y2 < height ? grad.y2 : T(0);
  }
  const detail::AxisGradient<T> x =
      detail::decode_axis_gradient(delta.x1, delta.x2, anchor.x2 - anchor.x1, static_cast<T>(o.weights[0]),
                                   static_cast<T>(o.weights[2]), static_cast<T>(o.stride_x), o, grad.x1, grad.x2);
  const detail::AxisGradient<T> y =
      detail::decode_axis_gradient(delta.y1, delta.y2, anchor.y2 - anchor.y1, static_cast<T>(o.weights[1]),
                                   static_cast<T>(o.weights[3]), static_cast<T>(o.stride_y), o, grad.y1, grad.y2);
  return {{x.position, y.position, x.extent, y.extent}, {x.lo, y.lo, x.hi, y.hi}};
}

template <class T>
BOXOPS_HD Box<T> encode_box(const Box<T>& box, const Box<T>& anchor, const CodecOptions& o) {
  const detail::Span<T> x =
      detail::encode_axis(detail::span_of(box.x1, box.x2), detail::span_of(anchor.x1, anchor.x2),
                          static_cast<T>(o.weights[0]), static_cast<T>(o.weights[2]), static_cast<T>(o.stride_x), o);
  const detail::Span<T> y =
      detail::encode_axis(detail::span_of(box.y1, box.y2), detail::span_of(anchor.y1, anchor.y2),
                          static_cast<T>(o.weights[1]), static_cast<T>(o.weights[3]), static_cast<T>(o.stride_y), o);
  return {x.centre, y.centre, x.size, y.size};
}

// The gradient of grad * encode_box; 0 for a centre that was held inside its cell.
template <class T>
BOXOPS_HD CodecGradient<T> encode_gradient(const Box<T>& box, const Box<T>& anchor, const CodecOptions& o,
                                           const Box<T>& grad) {
  const detail::EncodeAxisGradient<T> x = detail::encode_axis_gradient(
      detail::span_of(box.x1, box.x2), detail::span_of(anchor.x1, anchor.x2), static_cast<T>(o.weights[0]),
      static_cast<T>(o.weights[2]), static_cast<T>(o.stride_x), o, grad.x1, grad.x2);
  const detail::EncodeAxisGradient<T> y = detail::encode_axis_gradient(
      detail::span_of(box.y1, box.y2), detail::span_of(anchor.y1, anchor.y2), static_cast<T>(o.weights[1]),
      static_cast<T>(o.weights[3]), static_cast<T>(o.stride_y), o, grad.y1, grad.y2);
  return {{x.box_lo, y.box_lo, x.box_hi, y.box_hi}, {x.anchor_lo, y.anchor_lo, x.anchor_hi, y.anchor_hi}};
}

}  // namespace boxops
