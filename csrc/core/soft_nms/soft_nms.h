// The arithmetic of <boxops/soft_nms.h>: the one copy, for every backend.
#pragma once

#include <limits>

#include <boxops/soft_nms.h>
#include "common/exp_log.h"
#include "common/geometry.h"
#include "common/sort.h"

namespace boxops {

// The options of a call, rounded to its compute type.
template <class T>
struct Decay {
  bool gaussian;
  T iou_threshold, sigma, score_threshold;

  explicit Decay(const SoftNmsOptions& o)
      : gaussian(o.method == SoftNmsMethod::kGaussian),
        iou_threshold(static_cast<T>(o.iou_threshold)),
        sigma(max_of(static_cast<T>(o.sigma), std::numeric_limits<T>::denorm_min())),  // > 0 as a T, too
        score_threshold(static_cast<T>(o.score_threshold)) {}
};

// The factor of a box with this IoU, for the two methods. It is never below 0, though rounding can put an IoU above 1.
template <bool gaussian, class T>
BOXOPS_HD T decay_weight(T iou, const Decay<T>& d) {
  if (gaussian) return exp_of(-((iou * iou) / d.sigma));
  return iou > d.iou_threshold ? max_of(T(1) - iou, T(0)) : T(1);
}

// The box, or where it overlaps nothing the empty one without area.
template <class T>
BOXOPS_HD Shape<T> unless_alone(const Shape<T>& box) {
  const bool overlaps = box.area > T(0) && farthest(box) < std::numeric_limits<T>::infinity();
  return overlaps ? box : Shape<T>{nowhere<T>(), T(0), T(0)};
}

template <class T>
BOXOPS_HD T load_score(const Scalars& scores, int64_t i) {
  return load<T>(scores.data, scores.dtype, i * scores.stride);
}

}  // namespace boxops
