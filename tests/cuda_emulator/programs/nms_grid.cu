// Greedy NMS of very many boxes on fewer than it is made for, with a grid and without, in rounds of 128 and more,
// beside the definition: the result counts boxes that are wrongly kept or lost. One seed takes every scene once, with a
// threshold, groups and images drawn for it.
#include "nms/many.cuh"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "programs/program.h"

namespace boxops::cuda {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  double uniform(double low, double high) { return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53; }
  int below(int n) { return static_cast<int>(next() >> 33) % n; }
  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int>(values.size()))];
  }

 private:
  uint64_t next() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return state_ * 0x2545f4914f6cdd1d;
  }
  uint64_t state_;
};

using Corners = Box<double>;

Corners any_box(Draw& d, double extent, double least, double most) {
  const double x = d.uniform(-extent, extent), y = d.uniform(-extent, extent);
  const auto side = [&] { return std::exp2(d.uniform(std::log2(least), std::log2(most))); };
  return {x, y, x + side(), y + side()};
}

// A box that overlaps the other by an IoU near t, in one of the ways that differ most: moved or cut on one axis.
Corners about(Draw& d, Corners b, double t, double off) {
  const double part = std::min(t * (1 + off), 1.0), w = b.x2 - b.x1, h = b.y2 - b.y1;
  const double moved = (1 - part) / (1 + part);
  switch (d.below(6)) {
    case 0: return {b.x1 + w * moved, b.y1, b.x2 + w * moved, b.y2};
    case 1: return {b.x1, b.y1 - h * moved, b.x2, b.y2 - h * moved};
    case 2: return {b.x2 - w * part, b.y1, b.x2, b.y2};
    case 3: return {b.x1, b.y1, b.x2, b.y1 + h / part};
    case 4: return {b.x1, b.y1, b.x1 + w * std::sqrt(part), b.y1 + h * std::sqrt(part)};
    default: return {b.x1 - w * (1 / part - 1), b.y1, b.x2, b.y2};
  }
}

constexpr int kScenes = 10;
std::vector<Corners> scene(int kind, Draw& d, int n, double t, bool single_precision) {
  std::vector<Corners> boxes;
  const Corners object = any_box(d, 100, 10, 100);
  const int side = static_cast<int>(std::sqrt(n)) / 2 + 1;
  const double jitter = d.one_of({0.001, 0.02, 0.2}), ulp = single_precision ? 0x1p-23 : 0x1p-52;
  for (int i = 0; i < n; ++i) {
    const Corners before = i > 0 ? boxes[d.below(i)] : object;
    Corners b = any_box(d, 300, 8, 200);
    switch (kind) {
      case 0: break;
      case 1:  // around one object
        b = object;
        for (double* x : {&b.x1, &b.y1, &b.x2, &b.y2}) *x += d.uniform(-10, 10) * jitter;
        break;
      case 2: b = object; break;
      case 3:  // squares that share edges, each several times
        b.x1 = 10 * d.below(side), b.y1 = 10 * d.below(side), b.x2 = b.x1 + 10, b.y2 = b.y1 + 10;
        break;
      case 4: b = any_box(d, 1, 1e-3, 1e4); break;                            // of all sizes
      case 5: b = {b.x1, b.y1, b.x1 + d.uniform(100, 900), b.y1 + 1}; break;  // thin
      case 6:                                                                 // pairs about the threshold, alone
        b = any_box(d, 1e5, 1e-2, 1e3);
        if (i % 2) b = about(d, boxes[i - 1], t, d.one_of({-1e-3, -4 * ulp, -ulp, 0.0, ulp, 4 * ulp, 1e-3}));
        break;
      case 7:  // a few units of the last place, twins among them
        for (double* x : {&b.x1, &b.y1, &b.x2, &b.y2}) *x = std::round(*x / 4) + 2 / ulp;
        if (i % 3 == 1) b = before;
        break;
      case 8:  // strange numbers among others, twins among all
        if (i % 3 == 1) b = before;
        else if (d.below(3) == 0)
          for (double* x : {&b.x1, &b.y1, &b.x2, &b.y2})
            *x *= d.one_of<double>({NAN, INFINITY, -1.0, 0.0, 1.0, 1e-25, 3e37});
        break;
      default: {  // scaled to the ends of the range
        const double scale = single_precision ? d.one_of({1e-22, 2e-16, 1.0, 1e17, 1e36})
                                              : d.one_of({1e-320, 2e-151, 1.0, 1e154, 5e287, 5e305});
        if (i % 2 && t > 0.2) b = about(d, before, t, 0.01);
        else b = {b.x1 * scale, b.y1 * scale, b.x2 * scale, b.y2 * scale};
      }
    }
    boxes.push_back(b);
  }
  return boxes;
}

// The definition: image by image the kept boxes by falling score, at most `limit`.
template <class T>
std::vector<int64_t> greedy_list(const NmsInput& input, const PaddedOptions& options, T threshold) {
  std::vector<int64_t> kept;
  for (int64_t b = 0; b < input.boxes.batch; ++b) {
    std::vector<int64_t> order(input.boxes.count), here;
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
      return score_key(input.scores, b, i) < score_key(input.scores, b, j);
    });
    const auto shape = [&](int64_t i) { return shape_of<Measure::kIoU>(load_box<T>(input.boxes, b, i)); };
    const auto group = [&](int64_t i) { return input.has_groups ? group_key(input.groups, b, i) : 0; };
    for (const int64_t i : order) {
      if (static_cast<int64_t>(here.size()) == options.max_output) break;
      if (options.has_score_threshold && !score_exceeds(input.scores, b, i, options.score_threshold)) continue;
      if (std::none_of(here.begin(), here.end(),
                       [&](int64_t k) { return group(k) == group(i) && iou_of(shape(k), shape(i)) > threshold; }))
        here.push_back(i);
    }
    for (const int64_t i : here) kept.push_back(b * input.boxes.count + i);
  }
  return kept;
}

template <class Grid, class T>
std::vector<int64_t> in_rounds(const NmsInput& input, const PaddedOptions& options, T threshold, bool sorts,
                               int64_t places) {
  Workspace sizes(nullptr);
  const Many<Upright<T>, Grid> sized(sizes, input, sorts);
  const Device<char> memory(sizes.used());
  Workspace w(memory);
  const Many<Upright<T>, Grid> s(w, input, sorts, threshold);
  const auto check = [](int error) {
    if (error == cudaSuccess) return;
    puts(cudaGetErrorString(static_cast<cudaError_t>(error)));
    fflush(stdout);
    _Exit(3);
  };
  check(sorts ? sort<Upright<T>>(input, options, s, nullptr) : count<Upright<T>>(input, options, s, nullptr));
  const bool one = input.boxes.batch == 1 && !input.has_groups;
  check(keep_of_many(s, one ? options.max_output : s.n, Threshold<T>(threshold), nullptr, places));
  std::vector<int64_t> kept;
  for (int64_t b = 0; b < input.boxes.batch; ++b) {
    const auto first = static_cast<int64_t>(kept.size());
    for (int64_t rank = b * input.boxes.count; rank < (b + 1) * input.boxes.count; ++rank)
      if (s.keep[rank] && static_cast<int64_t>(kept.size()) - first < options.max_output) kept.push_back(s.order[rank]);
  }
  return kept;
}

template <class T>
double wrong(uint64_t seed, int kind) {
  Draw d(seed * kScenes + static_cast<uint64_t>(kind));
  const bool gridded = d.below(4) > 0;
  const T threshold =
      d.one_of<T>({T(gridded ? 0.1 : 0.02), T(0.3), T(0.45), T(0.5), T(0.7), T(0.9), T(0.95), T(0.99), T(0.999), T(1)});
  const int64_t batch = d.one_of({1, 1, 3}), count = d.one_of({1, 129, 400, 700}), n = batch * count;
  const int groups = d.one_of({0, 0, 1, 3, 40});
  const std::vector<Corners> boxes =
      scene(kind, d, static_cast<int>(n), static_cast<double>(threshold), sizeof(T) == 4);
  std::vector<T> numbers;
  std::vector<float> scores(n);
  std::vector<int> ids(n);
  for (const Corners& b : boxes)
    for (const double x : {b.x1, b.y1, b.x2, b.y2}) numbers.push_back(static_cast<T>(x));
  const bool ties = d.below(2) == 0;
  for (float& score : scores) score = ties ? static_cast<float>(d.below(4)) : static_cast<float>(d.uniform(0, 3));
  for (int& id : ids) id = d.below(std::max(groups, 1));
  const Device<T> on_device(numbers);
  const Device<float> scores_there(scores);
  const Device<int> ids_there(ids);
  const NmsInput input{Boxes::contiguous<T>(on_device, count, Format::kXYXY, batch),
                       Scalars::contiguous<float>(scores_there, count), groups > 0,
                       Scalars::contiguous<int>(ids_there, count)};
  const PaddedOptions options{d.one_of({count, count, count / 3}), d.below(4) == 0, 1.5};
  const bool sorts = d.below(2) == 0;
  const int64_t places = d.one_of({128, 256, 768, 4096});
  const double differences = count_differences(gridded ? in_rounds<KeptGrid>(input, options, threshold, sorts, places)
                                                       : in_rounds<NoGrid>(input, options, threshold, sorts, places),
                                               greedy_list(input, options, threshold));
  if (differences > 0)
    fprintf(stderr, "scene %d, threshold %g, %ld x %ld boxes, %d groups, %s\n", kind, static_cast<double>(threshold),
            static_cast<long>(batch), static_cast<long>(count), groups, sizeof(T) == 4 ? "float" : "double");
  return differences;
}

PROGRAM(nms_grid) {
  const uint64_t seed = strtoull(getenv("BOXOPS_EMULATOR_SEED"), nullptr, 0);
  double count = 0;
  for (int kind = 0; kind < kScenes; ++kind) count += wrong<float>(seed, kind) + wrong<double>(seed, kind);
  return count;
}

}  // namespace
}  // namespace boxops::cuda
