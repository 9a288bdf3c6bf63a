#include "soft_nms/soft_nms.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <queue>
#include <vector>

#include "common/blocks.h"
#include "common/isa.h"

namespace boxops {
namespace {

template <class T>
struct SoftBox : Box<T> {
  T area, score;
  int64_t index;
};

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "soft_nms/soft_nms_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

// The bits of x and of y by turns: boxes with near keys lie near each other.
uint64_t interleaved(double x, double y) {
  const auto spread = [](double unit) {
    uint64_t v = static_cast<uint64_t>(std::min(std::max(0.0, unit), 1.0) * 65535);  // NaN becomes 0
    v = (v | v << 8) & 0x00ff00ff, v = (v | v << 4) & 0x0f0f0f0f;
    v = (v | v << 2) & 0x33333333, v = (v | v << 1) & 0x55555555;
    return v;
  };
  return spread(x) | spread(y) << 1;
}

// Sorts the boxes so that neighbours lie near each other.
template <class T>
void sort_by_place(SoftBox<T>* boxes, int64_t n) {
  if (n <= 16) return;
  double low_x = std::numeric_limits<double>::infinity(), low_y = low_x, high_x = -low_x, high_y = -low_x;
  for (int64_t i = 0; i < n; ++i) {
    const double x = 0.5 * boxes[i].x1 + 0.5 * boxes[i].x2, y = 0.5 * boxes[i].y1 + 0.5 * boxes[i].y2;
    if (std::isfinite(x)) low_x = std::min(low_x, x), high_x = std::max(high_x, x);
    if (std::isfinite(y)) low_y = std::min(low_y, y), high_y = std::max(high_y, y);
  }
  std::vector<uint64_t> keys(n);
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = 0; i < n; ++i) {
    const double x = 0.5 * boxes[i].x1 + 0.5 * boxes[i].x2, y = 0.5 * boxes[i].y1 + 0.5 * boxes[i].y2;
    keys[i] = interleaved((x - low_x) / (high_x - low_x), (y - low_y) / (high_y - low_y));
  }
  sort_pairs(keys.data(), order.data(), n);
  const std::vector<SoftBox<T>> unsorted(boxes, boxes + n);
  for (int64_t i = 0; i < n; ++i) boxes[i] = unsorted[order[i]];
}

template <class T>
SoftBox<T> load_soft_box(const NmsInput& input, int64_t i) {
  const Shape<T> box = unless_alone(shape_of<Measure::kIoU>(load_box<T>(input.boxes, 0, i)));
  SoftBox<T> b;
  static_cast<Box<T>&>(b) = box, b.area = box.area;
  b.score = load_score<T>(input.scores, i);
  b.index = i;
  return b;
}

template <class T>
int64_t take_all(const NmsInput& input, const Decay<T>& decay, int64_t* kept, T* kept_scores,
                 const Parallel& parallel) {
  std::vector<SoftBox<T>> boxes;
  std::vector<int64_t> starts{0};
  {
    std::vector<int64_t> candidates;
    for (int64_t i = 0; i < input.boxes.count; ++i)
      if (load_score<T>(input.scores, i) > decay.score_threshold) candidates.push_back(i);
    const int64_t n = static_cast<int64_t>(candidates.size());
    if (input.has_groups) {
      std::vector<uint64_t> keys(n);
      for (int64_t i = 0; i < n; ++i) keys[i] = group_key(input.groups, 0, candidates[i]);
      sort_pairs(keys.data(), candidates.data(), n);
      for (int64_t i = 1; i < n; ++i)
        if (keys[i] != keys[i - 1]) starts.push_back(i);
    }
    starts.push_back(n);
    boxes.reserve(n);
    for (const int64_t i : candidates) boxes.push_back(load_soft_box<T>(input, i));
  }
  const bool huge = std::any_of(boxes.begin(), boxes.end(),
                                [](const SoftBox<T>& b) { return b.area > std::numeric_limits<T>::max() / 2; });
  const auto greedy = huge ? baseline::soft_greedy<true, T> : BOXOPS_BY_ISA(soft_greedy<false, T>);
  const int64_t groups = static_cast<int64_t>(starts.size()) - 1;
  if (groups == 1) {
    sort_by_place(boxes.data(), starts[1]);
    return greedy(boxes.data(), starts[1], decay, kept, kept_scores);
  }

  std::vector<int64_t> taken(boxes.size()), ends(groups);
  std::vector<T> taken_scores(boxes.size());
  constexpr double kBoxNs = 300;  // the cost of a box on one core, more in large groups
  parallel.share(groups, kBoxNs * boxes.size() / groups, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = starts[g], n = starts[g + 1] - first;
      sort_by_place(boxes.data() + first, n);
      ends[g] = first + greedy(boxes.data() + first, n, decay, taken.data() + first, taken_scores.data() + first);
    }
  });
  // The groups' lists become one: the best of their heads, again and again.
  const auto after = [&](int64_t g, int64_t h) {
    const T a = taken_scores[starts[g]], b = taken_scores[starts[h]];
    return a < b || (a == b && taken[starts[g]] > taken[starts[h]]);
  };
  std::priority_queue<int64_t, std::vector<int64_t>, decltype(after)> heads(after);
  for (int64_t g = 0; g < groups; ++g)
    if (starts[g] < ends[g]) heads.push(g);
  int64_t count = 0;
  while (!heads.empty()) {
    const int64_t g = heads.top(), at = starts[g];
    heads.pop();
    kept[count] = taken[at], kept_scores[count++] = taken_scores[at];
    if (++starts[g] < ends[g]) heads.push(g);
  }
  return count;
}

}  // namespace

int64_t soft_nms(const NmsInput& input, const SoftNmsOptions& options, int64_t* kept, void* kept_scores,
                 const Parallel& parallel) {
  return with_compute_type(compute_type(input.boxes.dtype, input.scores.dtype), [&](auto t) {
    using T = decltype(t);
    return take_all(input, Decay<T>(options), kept, static_cast<T*>(kept_scores), parallel);
  });
}

}  // namespace boxops::cpu
