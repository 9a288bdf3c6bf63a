// Box arithmetic: the one copy, for every backend. The contract is that of Boxes in <boxops/types.h>, each step rounded
// to T (the build forbids contraction into fused multiply-adds).
//
// Huge boxes: where the sum of what a measure is made of (the two areas, and for a penalty the hull's area, or its
// squared diagonal and the squared distance of the centres; for IoA the second area) overflows though all coordinates
// are finite, the pair is measured on coordinates times 2^-66 (double: 2^-514), and so is what eps is added to. This is
// exact, and measures have no scale: they are right up to the last number, on every backend to the bit. Boxes with
// infinite coordinates overlap nothing. At the other end there is no such rule: areas too small for T are 0.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "common/atan.h"
#include "common/dtype.h"

namespace boxops {

template <class T>
struct Box {
  T x1, y1, x2, y2;
};

// What the measures need of each box, computed once per box and not once per pair.
template <class T>
struct Shape : Box<T> {
  using Scalar = T;
  T area;
  T angle;  // angle_of it, for CIoU only
};

// Calls f with the measure as a compile-time constant (f's argument, called, gives it).
template <class F>
void with_measure(Measure measure, F&& f) {
  switch (measure) {
    case Measure::kIoU: return f(std::integral_constant<Measure, Measure::kIoU>());
    case Measure::kIoA: return f(std::integral_constant<Measure, Measure::kIoA>());
    case Measure::kGIoU: return f(std::integral_constant<Measure, Measure::kGIoU>());
    case Measure::kDIoU: return f(std::integral_constant<Measure, Measure::kDIoU>());
    case Measure::kCIoU: return f(std::integral_constant<Measure, Measure::kCIoU>());
  }
}

template <class T>
BOXOPS_HD T max_of(T a, T b) {
  return a > b ? a : b;
}

template <class T>
BOXOPS_HD T min_of(T a, T b) {
  return a < b ? a : b;
}

// Length of an interval; NaN and inverted give 0.
template <class T>
BOXOPS_HD T extent(T lo, T hi) {
  const T d = hi - lo;
  return d > T(0) ? d : T(0);
}

// An empty box that meets nothing.
template <class T>
BOXOPS_HD Box<T> nowhere() {
  constexpr T inf = std::numeric_limits<T>::infinity();
  return {inf, inf, -inf, -inf};
}

template <class T>
BOXOPS_HD bool has_nan(const Box<T>& b) {
  return b.x1 != b.x1 || b.y1 != b.y1 || b.x2 != b.x2 || b.y2 != b.y2;
}

template <class T>
BOXOPS_HD T area(const Box<T>& b) {
  return has_nan(b) ? std::numeric_limits<T>::quiet_NaN() : extent(b.x1, b.x2) * extent(b.y1, b.y2);
}

template <class T>
BOXOPS_HD Box<T> to_corners(const Box<T>& b, Format format) {
  if (format == Format::kXYXY) return b;
  if (format == Format::kXYWH) return {b.x1, b.y1, b.x1 + b.x2, b.y1 + b.y2};
  const T w = T(0.5) * b.x2, h = T(0.5) * b.y2;
  return {b.x1 - w, b.y1 - h, b.x1 + w, b.y1 + h};
}

// A gradient with respect to corners as one with respect to the format's numbers.
template <class T>
BOXOPS_HD Box<T> gradient_from_corners(const Box<T>& g, Format format) {
  if (format == Format::kXYXY) return g;
  if (format == Format::kXYWH) return {g.x1 + g.x2, g.y1 + g.y2, g.x2, g.y2};
  return {g.x1 + g.x2, g.y1 + g.y2, T(0.5) * (g.x2 - g.x1), T(0.5) * (g.y2 - g.y1)};
}

// The four numbers of a box, in the format of the array.
template <class T>
BOXOPS_HD Box<T> load_numbers(const Boxes& boxes, int64_t batch, int64_t i) {
  const int64_t at = batch * boxes.batch_stride + i * boxes.box_stride, s = boxes.coord_stride;
  return {load<T>(boxes.data, boxes.dtype, at), load<T>(boxes.data, boxes.dtype, at + s),
          load<T>(boxes.data, boxes.dtype, at + 2 * s), load<T>(boxes.data, boxes.dtype, at + 3 * s)};
}

// The corners of a box.
template <class T>
BOXOPS_HD Box<T> load_box(const Boxes& boxes, int64_t batch, int64_t i) {
  return to_corners(load_numbers<T>(boxes, batch, i), boxes.format);
}

// Of the diagonal to the y axis; 0 for an empty box.
template <class T>
BOXOPS_HD T angle_of(const Box<T>& b) {
  return atan2_of(extent(b.x1, b.x2), extent(b.y1, b.y2));
}

// A NaN box becomes the inverted box from +inf to -inf with area NaN. The formulas below then give
// the contract's answers with no further test: its overlap clamps to 0, and NaN spreads through
// union and centre into the penalties but not through the guarded quotient.
template <Measure measure, class T>
BOXOPS_HD Shape<T> shape_of(Box<T> b) {
  Shape<T> s;
  if (has_nan(b)) {
    b = nowhere<T>();
    s.area = std::numeric_limits<T>::quiet_NaN();
  } else {
    s.area = extent(b.x1, b.x2) * extent(b.y1, b.y2);
  }
  s.x1 = b.x1, s.y1 = b.y1, s.x2 = b.x2, s.y2 = b.y2;
  s.angle = measure == Measure::kCIoU ? angle_of(b) : T(0);
  return s;
}

template <class T>
BOXOPS_HD T intersection(const Box<T>& a, const Box<T>& b) {
  return extent(max_of(a.x1, b.x1), min_of(a.x2, b.x2)) * extent(max_of(a.y1, b.y1), min_of(a.y2, b.y2));
}

// The same of shapes, which hold no NaN but for areas, in the instructions that a GPU has for it.
template <class T>
BOXOPS_HD T quick_intersection(const Shape<T>& a, const Shape<T>& b) {
  const T width = std::fmax(std::fmin(a.x2, b.x2) - std::fmax(a.x1, b.x1), T(0));
  const T height = std::fmax(std::fmin(a.y2, b.y2) - std::fmax(a.y1, b.y1), T(0));
  return width * height;
}

// The box around two that hold no NaN.
template <class T>
BOXOPS_HD Box<T> hull_of(const Box<T>& a, const Box<T>& b) {
  return {min_of(a.x1, b.x1), min_of(a.y1, b.y1), max_of(a.x2, b.x2), max_of(a.y2, b.y2)};
}

template <class T>
BOXOPS_HD T hull_width(const Box<T>& a, const Box<T>& b) {
  return extent(min_of(a.x1, b.x1), max_of(a.x2, b.x2));
}

template <class T>
BOXOPS_HD T hull_height(const Box<T>& a, const Box<T>& b) {
  return extent(min_of(a.y1, b.y1), max_of(a.y2, b.y2));
}

// Of the centres.
template <class T>
BOXOPS_HD T squared_distance(const Box<T>& a, const Box<T>& b) {
  const T dx = (a.x1 + a.x2) * T(0.5) - (b.x1 + b.x2) * T(0.5);
  const T dy = (a.y1 + a.y2) * T(0.5) - (b.y1 + b.y2) * T(0.5);
  return dx * dx + dy * dy;
}

template <class T>
BOXOPS_HD T guarded_quotient(T inter, T whole, T eps) {
  return whole > T(0) ? inter / (whole + eps) : T(0);
}

template <class T>
BOXOPS_HD T union_of(T inter, T area1, T area2) {
  return (area1 + area2) - inter;
}

// The IoU of two shapes of any kind.
template <class T>
BOXOPS_HD T iou_of_areas(T inter, T area1, T area2) {
  return guarded_quotient(inter, union_of(inter, area1, area2), T(0));
}

// num / den, and 0 where den is not positive; NaN stays NaN.
template <class T>
BOXOPS_HD T penalty_of(T num, T den) {
  return den > T(0) ? num / den : num * T(0);
}

template <class T>
BOXOPS_HD T aspect_difference(const Shape<T>& a, const Shape<T>& b) {
  constexpr T four_over_pi_squared = T(0.40528473456935108577551785283891);
  const T d = b.angle - a.angle;
  return four_over_pi_squared * (d * d);
}

// The largest magnitude of a coordinate; infinite for what shape_of makes of a NaN box.
template <class T>
BOXOPS_HD T farthest(const Box<T>& b) {
  return max_of(max_of(std::fabs(b.x1), std::fabs(b.y1)), max_of(std::fabs(b.x2), std::fabs(b.y2)));
}

// Whether a pair with this box may overflow. Vector loops without such boxes leave the guard out.
template <Measure measure, class T>
BOXOPS_HD bool is_huge(const Shape<T>& s) {
  if (measure == Measure::kIoU || measure == Measure::kIoA) return s.area > std::numeric_limits<T>::max() / 2;
  const T far = farthest(s);
  return (far >= (sizeof(T) == 4 ? T(0x1p61) : T(0x1p509))) & (far < std::numeric_limits<T>::infinity());
}

// Whether what the measure sums overflows.
template <Measure measure, class T>
BOXOPS_HD bool overflows(const Shape<T>& a, const Shape<T>& b) {
  T sum = measure == Measure::kIoA ? b.area : a.area + b.area;
  if (measure != Measure::kIoU && measure != Measure::kIoA) {
    const T hull_w = hull_width(a, b), hull_h = hull_height(a, b);
    sum += measure == Measure::kGIoU ? hull_w * hull_h : (hull_w * hull_w + hull_h * hull_h) + squared_distance(a, b);
  }
  return !(sum < std::numeric_limits<T>::infinity());
}

namespace detail {
template <class T>
constexpr T kShrink = sizeof(T) == 4 ? T(0x1p-66) : T(0x1p-514);
}

template <Measure measure, class T>
BOXOPS_HD Shape<T> shrunk(const Shape<T>& s) {
  constexpr T by = detail::kShrink<T>;
  return shape_of<measure>(Box<T>{s.x1 * by, s.y1 * by, s.x2 * by, s.y2 * by});
}

template <class T>
BOXOPS_HD bool both_finite(const Box<T>& a, const Box<T>& b) {
  return max_of(farthest(a), farthest(b)) < std::numeric_limits<T>::infinity();
}

namespace detail {

// The steps of a measure, for boxes of any kind; common/ordinary.cuh has others, with the same bits, for ordinary ones.
template <class T>
struct AnySteps {
  using Pair = const Shape<T>&;
  BOXOPS_HD static T overlap(Pair a, Pair b) { return intersection(a, b); }
  BOXOPS_HD static T width(Pair a, Pair b) { return hull_width(a, b); }
  BOXOPS_HD static T height(Pair a, Pair b) { return hull_height(a, b); }
  BOXOPS_HD static T distance(Pair a, Pair b) { return squared_distance(a, b); }
  BOXOPS_HD static T iou(T inter, T whole, T eps) { return guarded_quotient(inter, whole, eps); }
  BOXOPS_HD static T ioa(T inter, T area) {
    return area < std::numeric_limits<T>::infinity() ? guarded_quotient(inter, area, T(0)) : T(0);
  }
  BOXOPS_HD static T penalty(T num, T den) { return penalty_of(num, den); }
};

// The measure of a pair that does not overflow; both eps count times `unit`.
template <Measure measure, class Steps, class T>
BOXOPS_HD T measure_by(const Shape<T>& a, const Shape<T>& b, T iou_eps, T eps, T unit) {
  const T inter = Steps::overlap(a, b);
  if (measure == Measure::kIoA) return Steps::ioa(inter, b.area);
  const T uni = (a.area + b.area) - inter;
  const T iou = Steps::iou(inter, uni, iou_eps * unit);
  if (measure == Measure::kIoU) return iou;

  const T hull_w = Steps::width(a, b), hull_h = Steps::height(a, b);
  if (measure == Measure::kGIoU) {
    const T hull = hull_w * hull_h;
    return iou - Steps::penalty(hull - uni, hull + eps * unit);
  }
  const T diou = iou - Steps::penalty(Steps::distance(a, b), (hull_w * hull_w + hull_h * hull_h) + eps * unit);
  if (measure == Measure::kDIoU) return diou;
  const T v = aspect_difference(a, b);
  return diou - Steps::penalty(v, ((T(1) - iou) + v) + eps) * v;
}

template <Measure measure, class T>
BOXOPS_HD T measure_of(const Shape<T>& a, const Shape<T>& b, T iou_eps, T eps, T unit) {
  return measure_by<measure, AnySteps<T>>(a, b, iou_eps, eps, unit);
}

// The measure of a pair that overflows. By value, so that no caller has to keep boxes in memory for it.
template <Measure measure, class T>
BOXOPS_HD_RARE T measure_of_huge(Shape<T> a, Shape<T> b, T iou_eps, T eps) {
  if (!both_finite(a, b)) return measure_of<measure>(a, b, iou_eps, eps, T(1));
  return measure_of<measure>(shrunk<measure>(a), shrunk<measure>(b), iou_eps, eps, kShrink<T> * kShrink<T>);
}

}  // namespace detail

// The measure of one pair. `iou_eps` is added to the IoU's divisor, `eps` to the penalties'. Not `guarded`: neither box
// is_huge. GIoU: Rezatofighi et al. 2019, eq. 2 to 4. DIoU, CIoU: Zheng et al. 2020, eq. 7 to 11.
template <Measure measure, bool guarded = true, class T>
BOXOPS_HD T measure_of(const Shape<T>& a, const Shape<T>& b, T iou_eps, T eps) {
  if (guarded && overflows<measure>(a, b)) return detail::measure_of_huge<measure>(a, b, iou_eps, eps);
  return detail::measure_of<measure>(a, b, iou_eps, eps, T(1));
}

template <bool guarded = true, class T>
BOXOPS_HD T iou_of(const Shape<T>& a, const Shape<T>& b) {
  return measure_of<Measure::kIoU, guarded>(a, b, T(0), T(0));
}

// d min(a, b) / d a (with a and b swapped, d max / d b); a tie splits in half, as in torch.
template <class T>
BOXOPS_HD T below(T a, T b) {
  return a < b ? T(1) : (a == b ? T(0.5) : T(0));
}

namespace detail {

template <Measure measure, bool second, class T>
BOXOPS_HD Box<T> measure_gradient(const Shape<T>& a, const Shape<T>& b, T iou_eps, T eps, T unit, T grad) {
  const Shape<T>&self = second ? b : a, &other = second ? a : b;
  const T lo_x = max_of(a.x1, b.x1), hi_x = min_of(a.x2, b.x2), lo_y = max_of(a.y1, b.y1), hi_y = min_of(a.y2, b.y2);
  const T iw = extent(lo_x, hi_x), ih = extent(lo_y, hi_y), inter = iw * ih;
  const T uni = (a.area + b.area) - inter;

  T d_inter, d_area;  // of the measure with respect to inter and to self's area
  T iou = T(0);
  if (measure == Measure::kIoA) {
    const bool defined = b.area > T(0);
    d_inter = defined ? T(1) / b.area : T(0);
    d_area = second && defined ? -inter / b.area / b.area : T(0);
  } else {
    const bool defined = uni > T(0);
    const T inverse = defined ? T(1) / (uni + iou_eps * unit) : T(0);
    iou = defined ? inter / (uni + iou_eps * unit) : T(0);
    d_inter = (T(1) + iou) * inverse;
    d_area = -iou * inverse;
  }

  T d_hull_w = T(0), d_hull_h = T(0), d_cx = T(0), d_cy = T(0);  // centre: with respect to each of its two ends
  T d_w = T(0), d_h = T(0);                                      // through the aspect ratio
  const T hull_w = hull_width(a, b), hull_h = hull_height(a, b);
  if (measure == Measure::kGIoU) {
    const T hull = hull_w * hull_h, divisor = hull + eps * unit;
    const T inverse = divisor > T(0) ? T(1) / divisor : T(0);
    const T d_hull = ((hull - uni) * inverse - T(1)) * inverse;
    d_hull_w = d_hull * hull_h, d_hull_h = d_hull * hull_w;
    d_inter -= inverse, d_area += inverse;
  }
  if (measure == Measure::kDIoU || measure == Measure::kCIoU) {
    const T dx = (self.x1 + self.x2) * T(0.5) - (other.x1 + other.x2) * T(0.5);
    const T dy = (self.y1 + self.y2) * T(0.5) - (other.y1 + other.y2) * T(0.5);
    const T divisor = (hull_w * hull_w + hull_h * hull_h) + eps * unit;
    const T inverse = divisor > T(0) ? T(1) / divisor : T(0);
    const T d_diagonal = (dx * dx + dy * dy) * inverse * inverse;
    d_hull_w = T(2) * hull_w * d_diagonal, d_hull_h = T(2) * hull_h * d_diagonal;
    d_cx = -dx * inverse, d_cy = -dy * inverse;
  }
  const T w = extent(self.x1, self.x2), h = extent(self.y1, self.y2);
  if (measure == Measure::kCIoU) {
    constexpr T eight_over_pi_squared = T(0.81056946913870217155103570567782);
    const T v = aspect_difference(a, b);
    const T alpha = penalty_of(v, ((T(1) - iou) + v) + eps), square = w * w + h * h;
    const T d_angle = -alpha * eight_over_pi_squared * (self.angle - other.angle) / (square > T(0) ? square : T(1));
    d_w = d_angle * h, d_h = -d_angle * w;
  }

  // Chain to the four coordinates. A side moves the overlap where it is the inner one, the hull
  // where it is the outer one.
  const T d_iw = hi_x > lo_x ? d_inter * ih : T(0), d_ih = hi_y > lo_y ? d_inter * iw : T(0);
  d_w += d_area * h, d_h += d_area * w;
  if (!(self.x2 - self.x1 >= T(0))) d_w = T(0);
  if (!(self.y2 - self.y1 >= T(0))) d_h = T(0);
  return {grad * (-d_iw * below(other.x1, self.x1) - d_hull_w * below(self.x1, other.x1) - d_w + d_cx),
          grad * (-d_ih * below(other.y1, self.y1) - d_hull_h * below(self.y1, other.y1) - d_h + d_cy),
          grad * (d_iw * below(self.x2, other.x2) + d_hull_w * below(other.x2, self.x2) + d_w + d_cx),
          grad * (d_ih * below(self.y2, other.y2) + d_hull_h * below(other.y2, self.y2) + d_h + d_cy)};
}

template <Measure measure, bool second, class T>
BOXOPS_HD_RARE Box<T> gradient_of_huge(Shape<T> a, Shape<T> b, T iou_eps, T eps, T grad) {
  if (!both_finite(a, b)) return measure_gradient<measure, second>(a, b, iou_eps, eps, T(1), grad);
  constexpr T by = detail::kShrink<T>;
  return measure_gradient<measure, second>(shrunk<measure>(a), shrunk<measure>(b), iou_eps, eps, by * by, grad * by);
}

}  // namespace detail

// The gradient with respect to box a (and, for `second`, to box b) of grad * measure_of(a, b). CIoU's alpha counts as a
// constant, as in the paper's code. Where boxes touch, the overlap passes no gradient, as clamp(min=0) of torch from
// 2.14 on and as torchvision's losses on every torch; a side of length 0 passes that of its area, which torchvision
// does not clamp; a tie of two coordinates gives each one half, as in torch.
template <Measure measure, bool second, bool guarded = true, class T>
BOXOPS_HD Box<T> measure_gradient(const Shape<T>& a, const Shape<T>& b, T iou_eps, T eps, T grad) {
  if (guarded && overflows<measure>(a, b)) return detail::gradient_of_huge<measure, second>(a, b, iou_eps, eps, grad);
  return detail::measure_gradient<measure, second>(a, b, iou_eps, eps, T(1), grad);
}

}  // namespace boxops
