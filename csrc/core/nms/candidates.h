// What greedy suppression on the CPU knows of boxes, and how candidates come to it: in blocks, coordinates side by
// side.
//
//   block.x1 | x1 x1 x1 ... kBlock of them      The next kBlock boxes by falling score. Places beyond the last
//   block.y1 | y1 y1 y1 ...                     candidate hold boxes without area, which overlap nothing.
//   block.x2 | x2 x2 x2 ...
//   block.y2 | y2 y2 y2 ...
//   block.area | ...
#pragma once

#include "common/geometry.h"
#include "common/rotated_geometry.h"

namespace boxops {

// One box: corners, by which it is found, and area.
template <class T>
struct Ranked : Box<T> {
  using Scalar = T;
  static constexpr double kBoxNs = 30;          // the cost of a box on one core, in the middle of a wide range
  static constexpr bool kCornersAreAll = true;  // that the IoU needs
  static constexpr T kMaxArea = std::numeric_limits<T>::max() / 8;
  T area;

  void load(const Boxes& boxes, int64_t batch, int64_t i) {
    static_cast<Box<T>&>(*this) = load_box<T>(boxes, batch, i);
    area = boxops::area(*this);
  }
  // Whether the box can overlap anything by an IoU above 0, and no measure of a pair of such overflows.
  bool ordinary() const { return area > T(0) && area <= kMaxArea; }
  // Areas so small that they have lost precision: then corners do not bound the IoU.
  bool tiny() const { return area < std::numeric_limits<T>::min() * T(1 << 30); }
  // The others that can overlap anything.
  bool huge() const { return area > kMaxArea && farthest(*this) < std::numeric_limits<T>::infinity(); }

  // An IoU above t needs sides and an overlap on each axis of more than so many times the larger side.
  static double side_ratio(double t) { return t; }
  // Whether boxes with these areas, and an overlap of w x h of their corners, might exceed `lower`.
  static BOXOPS_HD bool may_exceed(T w, T h, T area1, T area2, T lower) {
    return w * h >= lower * ((area1 + area2) - w * h);
  }
  template <bool guarded>
  static BOXOPS_HD T iou(const Ranked& kept, const Ranked& other) {
    return iou_of<guarded>(Shape<T>{kept, kept.area, T(0)}, Shape<T>{other, other.area, T(0)});
  }
};

// A rotated box is found by its hull, a little widened: whatever has an IoU above 0 with it overlaps that. Of what more
// holds for rotated rectangles, only that is used which holds for rounded numbers too: the bounds in intersection().
template <class T>
struct RankedRotated : Ranked<T> {
  static constexpr double kBoxNs = 1000;
  static constexpr bool kCornersAreAll = false;
  RotatedBox<T> box;

  void load(const Boxes& boxes, int64_t batch, int64_t i) {
    box = load_rotated_box<T>(boxes, batch, i);
    constexpr T wider = 8 * std::numeric_limits<T>::epsilon();
    const T w = box.hull_x * (T(1) + wider) + std::fabs(box.cx) * wider;
    const T h = box.hull_y * (T(1) + wider) + std::fabs(box.cy) * wider;
    static_cast<Box<T>&>(*this) = {box.cx - w, box.cy - h, box.cx + w, box.cy + h};
    this->area = box.area;
  }
  static double side_ratio(double) { return 0; }
  static BOXOPS_HD bool may_exceed(T w, T h, T area1, T area2, T lower) {
    const T bound = min_of(w * h * (T(1) + 8 * std::numeric_limits<T>::epsilon()), min_of(area1, area2));
    return bound >= lower * ((area1 + area2) - bound);
  }
  template <bool guarded>
  static T iou(const RankedRotated& kept, const RankedRotated& other) {
    return iou_of<guarded>(kept.box, other.box);
  }
};

template <class R>
struct Candidates {
  using T = typename R::Scalar;
  static constexpr int kBlock = 64;
  static constexpr int kWhole = R::kCornersAreAll ? 1 : kBlock;
  int count;
  alignas(64) T x1[kBlock], y1[kBlock], x2[kBlock], y2[kBlock], area[kBlock];
  R whole[kWhole];  // where corners are not all

  void set(int i, const R& box) {
    x1[i] = box.x1, y1[i] = box.y1, x2[i] = box.x2, y2[i] = box.y2, area[i] = box.area;
    if (!R::kCornersAreAll) whole[i % kWhole] = box;
  }
  R operator[](int i) const {
    if constexpr (R::kCornersAreAll) return R{{x1[i], y1[i], x2[i], y2[i]}, area[i]};
    else return whole[i];
  }
};

// Boxes of one image in the order in which they are taken.
template <class R>
struct RankedBoxes {
  using T = typename R::Scalar;
  const Boxes& boxes;
  int64_t batch;
  const int64_t* order;

  // The next kBlock of the candidates [first, last), or as many as there are.
  void load(int64_t first, int64_t last, Candidates<R>& block) const {
    constexpr int kBlock = Candidates<R>::kBlock;
    block.count = static_cast<int>(last - first < kBlock ? last - first : kBlock);
    const int64_t* at = order + first;
    for (int i = block.count; i < kBlock; ++i)
      block.x1[i] = block.y1[i] = block.x2[i] = block.y2[i] = block.area[i] = T(0);
    if (R::kCornersAreAll && boxes.dtype == dtype_of<T>() && boxes.format == Format::kXYXY && boxes.coord_stride == 1) {
      const T* data = static_cast<const T*>(boxes.data) + batch * boxes.batch_stride;
      for (int i = 0; i < block.count; ++i) {
        const T* box = data + at[i] * boxes.box_stride;
        block.x1[i] = box[0], block.y1[i] = box[1], block.x2[i] = box[2], block.y2[i] = box[3];
      }
      // The area of a NaN box is NaN or 0: neither is an ordinary box's.
      for (int i = 0; i < kBlock; ++i)
        block.area[i] = extent(block.x1[i], block.x2[i]) * extent(block.y1[i], block.y2[i]);
    } else {
      R box;
      for (int i = 0; i < block.count; ++i) box.load(boxes, batch, at[i]), block.set(i, box);
    }
  }
};

}  // namespace boxops
