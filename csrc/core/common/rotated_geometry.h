// Arithmetic of rotated rectangles: the one copy, for every backend.
//
// A box is centre x, centre y, width, height and angle in degrees, counter-clockwise as seen in an image whose y points
// down: the axis along the width is (cos, -sin), that along the height (sin, cos). Each step is rounded to T.
//
// The overlap is found in the frame of the first box, with the origin at the centre of the second. There the first is
// a plain rectangle, and a point is clamped to it coordinate by coordinate. Clamping the second's outline leaves the
// outline of the overlap, whose area is the sum over four edges of the integral of the clamped y over the clamped x.
// There is no vertex list, no sorting and no tolerance, and nothing is decided on the way: the area depends
// continuously on all numbers, so that edges which nearly coincide do no harm.
#pragma once

#include <cmath>
#include <limits>

#include "common/geometry.h"

namespace boxops {

// What the IoU needs of each box, computed once per box and not once per pair. Quarter turns are swaps of the sides.
template <class T>
struct RotatedBox {
  using Scalar = T;
  T cx, cy;           // the centre
  T a, b;             // half the sides
  T angle, cos, sin;  // within [-45, 45] degrees
  T hull_x, hull_y;   // half the sides of the axis-parallel hull; -inf for a box that overlaps nothing
  T area;             // 0 for such a box
};

template <class T>
BOXOPS_HD T clamp_to(T x, T low, T high) {
  return min_of(max_of(x, low), high);
}

// Of 0 to 45 degrees either way, within an ulp or two. No standard rounds sine and cosine, so that C libraries, vector
// units and GPUs differ; this is the same everywhere. Coefficients: Cephes for float, fdlibm for double.
template <class T>
BOXOPS_HD void sin_cos_degrees(T degrees, T* sin, T* cos) {
  const T x = degrees * T(0.017453292519943295769), z = x * x;
  T sine, cosine;
  if constexpr (sizeof(T) == 4) {
    sine = (T(-1.9515295891e-4) * z + T(8.3321608736e-3)) * z + T(-1.6666654611e-1);
    cosine = (T(2.443315711809948e-5) * z + T(-1.388731625493765e-3)) * z + T(4.166664568298827e-2);
  } else {
    sine = T(1.58969099521155010221e-10) * z + T(-2.50507602534068634195e-08);
    sine = (sine * z + T(2.75573137070700676789e-06)) * z + T(-1.98412698298579493134e-04);
    sine = (sine * z + T(8.33333333332248946124e-03)) * z + T(-1.66666666666666324348e-01);
    cosine = T(-1.13596475577881948265e-11) * z + T(2.08757232129817482790e-09);
    cosine = (cosine * z + T(-2.75573143513906633035e-07)) * z + T(2.48015872894767294178e-05);
    cosine = (cosine * z + T(-1.38888888888741095749e-03)) * z + T(4.16666666666666019037e-02);
  }
  *sin = x + x * (z * sine);
  *cos = (T(1) - T(0.5) * z) + (z * z) * cosine;
}

// Of the five numbers, the angle within (-180, 180). The box overlaps nothing if a number is NaN or about to overflow,
// or the area is 0 or subnormal. Every step that reduces the angle is exact.
template <class T>
BOXOPS_HD RotatedBox<T> rotated_box_of(T cx, T cy, T width, T height, T angle) {
  using Limits = std::numeric_limits<T>;
  const T area = max_of(width, T(0)) * max_of(height, T(0)), limit = Limits::max() / 8;
  const bool ordinary = (std::fabs(cx) <= limit) & (std::fabs(cy) <= limit) & (width <= limit) & (height <= limit) &
                        (angle - angle == T(0)) & (area >= 4 * Limits::min());
  angle = angle > T(90) ? angle - T(180) : angle < T(-90) ? angle + T(180) : angle;
  const bool quarter = std::fabs(angle) > T(45);
  angle = quarter ? angle - (angle > T(0) ? T(90) : T(-90)) : angle;
  const T a = T(0.5) * (quarter ? height : width), b = T(0.5) * (quarter ? width : height);
  T sin, cos;
  sin_cos_degrees(angle, &sin, &cos);
  const T hull_x = a * cos + b * std::fabs(sin), hull_y = a * std::fabs(sin) + b * cos, apart = -Limits::infinity();
  return {ordinary ? cx : T(0),      ordinary ? cy : T(0),  ordinary ? a : T(0),   ordinary ? b : T(0),
          ordinary ? angle : T(0),   ordinary ? cos : T(0), ordinary ? sin : T(0), ordinary ? hull_x : apart,
          ordinary ? hull_y : apart, ordinary ? area : T(0)};
}

// Any finite angle within (-180, 180), exactly; a rectangle is the same after half a turn.
template <class T>
BOXOPS_HD T within_half_turn(T angle) {
  return std::fabs(angle) < T(180) ? angle : std::fmod(angle, T(180));
}

template <class T>
BOXOPS_HD RotatedBox<T> load_rotated_box(const Boxes& boxes, int64_t batch, int64_t i) {
  const int64_t at = batch * boxes.batch_stride + i * boxes.box_stride, s = boxes.coord_stride;
  return rotated_box_of(load<T>(boxes.data, boxes.dtype, at), load<T>(boxes.data, boxes.dtype, at + s),
                        load<T>(boxes.data, boxes.dtype, at + 2 * s), load<T>(boxes.data, boxes.dtype, at + 3 * s),
                        within_half_turn(load<T>(boxes.data, boxes.dtype, at + 4 * s)));
}

// Few operations that settle most pairs.
template <class T>
BOXOPS_HD bool hulls_meet(const RotatedBox<T>& first, const RotatedBox<T>& second) {
  return (std::fabs(second.cx - first.cx) < first.hull_x + second.hull_x) &
         (std::fabs(second.cy - first.cy) < first.hull_y + second.hull_y);
}

namespace detail {

// The rectangle that an edge is clamped to, and the edge's direction.
template <class T>
struct Window {
  T left, right, bottom, top;
  T slope, steep;  // sine / cosine of at most 45 degrees, and its inverse

  BOXOPS_HD T x(T value) const { return clamp_to(value, left, right); }
  BOXOPS_HD T y(T value) const { return clamp_to(value, bottom, top); }

  // Integral of clamped y over clamped x, on an edge that rises from left to right by at most 1 in 1.
  BOXOPS_HD T along(T x0, T y0, T x1, T y1) const {
    const T from = x(x0), to = x(x1);
    const T low = y(y0 + (from - x0) * slope), high = y(y1 - (x1 - to) * slope);
    const T enter = clamp_to(x0 + (bottom - y0) * steep, from, to), leave = clamp_to(x0 + (top - y0) * steep, from, to);
    return low * (to - from) + (high - low) * (((to - enter) + (to - leave)) * T(0.5));
  }

  // The same on an edge that leads upwards in y, and backwards in x by at most 1 in 1.
  BOXOPS_HD T up(T x0, T y0, T x1, T y1) const {
    const T low = y(y0), high = y(y1);
    const T first = x(x0 - (low - y0) * slope), last = x(x1 + (y1 - high) * slope);
    const T enter = clamp_to(y0 + (x0 - left) * steep, low, high),
            leave = clamp_to(y0 + (x0 - right) * steep, low, high);
    const T outside = low * (first - x(x0)) + high * (x(x1) - last);
    return (last - first) * ((enter + leave) * T(0.5)) + outside;
  }
};

}  // namespace detail

// The area that two boxes share, if their hulls meet.
template <class T>
BOXOPS_HD T intersection(const RotatedBox<T>& first, const RotatedBox<T>& second) {
  // The frame of the first, mirrored such that the second is turned by 0 to 45 degrees from x towards y.
  const T turn = second.angle - first.angle, size = std::fabs(turn);
  const bool quarter = size > T(45);
  const T a = first.a, b = first.b, p = quarter ? second.b : second.a, q = quarter ? second.a : second.b;
  T sin, cos;
  sin_cos_degrees(quarter ? T(90) - size : size, &sin, &cos);
  const T dx = second.cx - first.cx, dy = second.cy - first.cy;
  const T u = dx * first.cos - dy * first.sin, down = dx * first.sin + dy * first.cos;
  const T v = (turn > T(0)) != quarter ? -down : down;

  // Separated along an axis of either: exactly 0.
  const T ex = p * cos, ey = p * sin, fx = q * sin, fy = q * cos;  // half the sides as vectors: (ex, ey) and (-fx, fy)
  const bool meet = (std::fabs(u) < a + (ex + fx)) & (std::fabs(v) < b + (ey + fy)) &
                    (std::fabs(u * cos + v * sin) < p + (a * cos + b * sin)) &
                    (std::fabs(v * cos - u * sin) < q + (a * sin + b * cos));

  const detail::Window<T> window{-a - u, a - u,     -b - v,
                                 b - v,  sin / cos, cos / max_of(sin, std::numeric_limits<T>::min())};
  const T x = ex + fx, y = ey - fy, x_ = fx - ex, y_ = -ey - fy;  // corners: (x, y), (-x, -y), (x_, y_), (-x_, -y_)
  const T outline = (window.along(-x, -y, -x_, -y_) - window.along(x_, y_, x, y)) +
                    (window.up(x_, y_, -x, -y) - window.up(x, y, -x_, -y_));
  // Bounds that the overlap has anyway, and now its rounded value too: NMS leans on them.
  const T hull_w = min_of((first.hull_x + second.hull_x) - std::fabs(dx), T(2) * min_of(first.hull_x, second.hull_x));
  const T hull_h = min_of((first.hull_y + second.hull_y) - std::fabs(dy), T(2) * min_of(first.hull_y, second.hull_y));
  const T inter = min_of(min_of(outline, hull_w * hull_h), min_of(first.area, second.area));
  return (meet & (inter > T(0))) ? inter : T(0);
}

// Whether what an overlap with this box sums may overflow: then the pair is measured times kShrink, as in geometry.h.
template <class T>
BOXOPS_HD bool is_huge(const RotatedBox<T>& b) {
  return b.area > std::numeric_limits<T>::max() / 8;
}

template <class T>
BOXOPS_HD RotatedBox<T> shrunk(const RotatedBox<T>& s) {
  constexpr T by = detail::kShrink<T>;
  const T a = s.a * by, b = s.b * by;
  return {s.cx * by, s.cy * by, a, b, s.angle, s.cos, s.sin, s.hull_x * by, s.hull_y * by, (T(2) * a) * (T(2) * b)};
}

namespace detail {

// Of a pair with a huge box. By value, so that no caller has to keep boxes in memory for it.
template <class T>
BOXOPS_HD_RARE T iou_of_huge(RotatedBox<T> first, RotatedBox<T> second) {
  first = shrunk(first), second = shrunk(second);
  return iou_of_areas(intersection(first, second), first.area, second.area);
}

}  // namespace detail

// Of boxes whose hulls meet. Not `guarded`: neither is_huge.
template <bool guarded = true, class T>
BOXOPS_HD T iou_of_meeting(const RotatedBox<T>& first, const RotatedBox<T>& second) {
  if (guarded && (is_huge(first) || is_huge(second))) return detail::iou_of_huge(first, second);
  return iou_of_areas(intersection(first, second), first.area, second.area);
}

template <bool guarded = true, class T>
BOXOPS_HD T iou_of(const RotatedBox<T>& first, const RotatedBox<T>& second) {
  return hulls_meet(first, second) ? iou_of_meeting<guarded>(first, second) : T(0);
}

}  // namespace boxops
