#include <boxops/nms.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "common/isa.h"
#include "common/rotated_geometry.h"
#include "common/sort.h"

namespace boxops {
namespace {

// What the greedy pass knows of a box: corners, by which it is filed, and area.
template <class T>
struct Ranked : Box<T> {
  using Scalar = T;
  static constexpr double kBoxNs = 50;          // the cost of a box on one core, in the middle of a wide range
  static constexpr bool kCornersAreAll = true;  // that the IoU needs
  static constexpr T kMost = std::numeric_limits<T>::max() / 8;
  T area;
  void load(const Boxes& boxes, int64_t batch, int64_t i) {
    static_cast<Box<T>&>(*this) = load_box<T>(boxes, batch, i);
    area = boxops::area(*this);
  }
  // Whether the box can overlap anything by an IoU above 0, and no measure of a pair of such overflows.
  bool ordinary() const { return area > T(0) && area <= kMost; }
  // The others that can overlap anything.
  bool huge() const { return area > kMost && farthest(*this) < std::numeric_limits<T>::infinity(); }

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

// A rotated box is filed by its hull, a little widened: whatever has an IoU above 0 with it overlaps that. Of what more
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
    const T most = min_of(w * h * (T(1) + 8 * std::numeric_limits<T>::epsilon()), min_of(area1, area2));
    return most >= lower * ((area1 + area2) - most);
  }
  template <bool guarded>
  static T iou(const RankedRotated& kept, const RankedRotated& other) {
    return iou_of<guarded>(kept.box, other.box);
  }
};

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "nms/nms_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

constexpr double kLoadNs = 5;  // the cost of a box on one core

// The candidates of one image by falling score.
std::vector<int64_t> rank(const NmsInput& input, int64_t batch, std::vector<int64_t> candidates) {
  std::vector<uint64_t> keys(candidates.size());
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = score_key(input.scores, batch, candidates[i]);
  sort_pairs(keys.data(), candidates.data(), static_cast<int64_t>(candidates.size()));
  return candidates;
}

// Reads which of the ranked boxes are kept, at most `limit` of each group.
template <class R>
void suppress(const NmsInput& input, int64_t batch, const std::vector<int64_t>& ranked, typename R::Scalar threshold,
              int64_t limit, bool* keep, const Parallel& parallel) {
  const int64_t n = static_cast<int64_t>(ranked.size());
  // place[i]: the rank of the i-th box when groups lie one after another, each by falling score.
  std::vector<int64_t> place, starts{0};
  if (input.has_groups) {
    place.resize(n);
    std::iota(place.begin(), place.end(), 0);
    std::vector<uint64_t> keys(n);
    for (int64_t i = 0; i < n; ++i) keys[i] = group_key(input.groups, batch, ranked[i]);
    sort_pairs(keys.data(), place.data(), n);
    for (int64_t i = 1; i < n; ++i)
      if (keys[i] != keys[i - 1]) starts.push_back(i);
  }
  starts.push_back(n);

  std::vector<R> boxes(n);
  parallel.share(n, kLoadNs, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) boxes[i].load(input.boxes, batch, ranked[place.empty() ? i : place[i]]);
  });
  const auto greedy = [&](const R* group, int64_t size, bool* kept) {
    const bool huge = std::any_of(group, group + size, [](const R& box) { return box.huge(); });
    (huge ? baseline::greedy<R, true> : BOXOPS_BY_ISA(greedy<R, false>))(group, size, threshold, limit, kept);
  };
  if (place.empty()) return greedy(boxes.data(), n, keep);
  std::vector<uint8_t> flags(n, 0);
  bool* kept = reinterpret_cast<bool*>(flags.data());
  const int64_t groups = static_cast<int64_t>(starts.size()) - 1;
  parallel.share(groups, R::kBoxNs * n / groups, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) greedy(boxes.data() + starts[s], starts[s + 1] - starts[s], kept + starts[s]);
  });
  for (int64_t i = 0; i < n; ++i) keep[place[i]] = kept[i];
}

// Suppresses the ranked candidates and writes the first `limit` kept to `out`.
template <class R>
int64_t keep_first(const NmsInput& input, int64_t batch, const std::vector<int64_t>& ranked,
                   typename R::Scalar threshold, int64_t limit, int64_t* out, const Parallel& parallel) {
  std::vector<uint8_t> flags(ranked.size(), 0);
  bool* keep = reinterpret_cast<bool*>(flags.data());
  suppress<R>(input, batch, ranked, threshold, limit, keep, parallel);
  int64_t count = 0;
  for (size_t i = 0; i < ranked.size() && count < limit; ++i)
    if (keep[i]) out[count++] = ranked[i];
  return count;
}

template <class R>
int64_t keep_all(const NmsInput& input, typename R::Scalar threshold, int64_t* out, const Parallel& parallel) {
  std::vector<int64_t> all(input.boxes.count);
  std::iota(all.begin(), all.end(), 0);
  return keep_first<R>(input, 0, rank(input, 0, std::move(all)), threshold, input.boxes.count, out, parallel);
}

}  // namespace

template <class T>
int64_t nms(const NmsInput& input, T iou_threshold, int64_t* keep, const Parallel& parallel) {
  return keep_all<Ranked<T>>(input, iou_threshold, keep, parallel);
}

template <class T>
int64_t rotated_nms(const NmsInput& input, T iou_threshold, int64_t* keep, const Parallel& parallel) {
  return keep_all<RankedRotated<T>>(input, iou_threshold, keep, parallel);
}

template <class T>
void nms_padded(const NmsInput& input, T iou_threshold, const PaddedOptions& options, int64_t* indices, int64_t* counts,
                const Parallel& parallel) {
  parallel.share(input.boxes.batch, Ranked<T>::kBoxNs * input.boxes.count, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      std::vector<int64_t> candidates;
      for (int64_t i = 0; i < input.boxes.count; ++i)
        if (!options.has_score_threshold || score_exceeds(input.scores, b, i, options.score_threshold))
          candidates.push_back(i);
      int64_t* out = indices + b * options.max_output;
      counts[b] = keep_first<Ranked<T>>(input, b, rank(input, b, std::move(candidates)), iou_threshold,
                                        options.max_output, out, Serial());
      std::fill(out + counts[b], out + options.max_output, -1);
    }
  });
}

#define INSTANTIATE(T)                                                            \
  template int64_t nms<T>(const NmsInput&, T, int64_t*, const Parallel&);         \
  template int64_t rotated_nms<T>(const NmsInput&, T, int64_t*, const Parallel&); \
  template void nms_padded<T>(const NmsInput&, T, const PaddedOptions&, int64_t*, int64_t*, const Parallel&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace boxops::cpu
