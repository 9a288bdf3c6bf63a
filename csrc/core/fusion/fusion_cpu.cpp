#include "fusion/fusion.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "common/isa.h"

#define BOXOPS_SIMD_SOURCE "fusion/fusion_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

template <class T>
int64_t fuse(const FusionModel* models, const FusionRule<T>& options, const FusionResult& result,
             const Parallel& parallel) {
  std::vector<T> weights;
  std::vector<FusionBox<T>> unsorted;
  std::vector<uint64_t> labels, keys;
  int64_t place = 0;
  for (int64_t m = 0; m < options.models; ++m) {
    const FusionModel& model = models[m];
    weights.push_back(static_cast<T>(model.weight));
    for (int64_t i = 0; i < model.boxes.count; ++i, ++place) {
      const T score = load<T>(model.scores.data, model.scores.dtype, i * model.scores.stride);
      const Box<T> box = load_box<T>(model.boxes, 0, i);
      if (!(score >= options.score_threshold && area(box) > T(0))) continue;
      unsorted.push_back({box, score * weights[m], weights[m], m, place});
      labels.push_back(group_key(model.labels, 0, i));
      keys.push_back(falling_key(unsorted.back().score));
    }
  }

  // By label, and in each by falling score.
  const int64_t n = static_cast<int64_t>(unsorted.size()), words = model_words(options.models);
  std::vector<int64_t> order(n), starts{0};
  std::iota(order.begin(), order.end(), 0);
  sort_pairs(keys.data(), order.data(), n);
  for (int64_t i = 0; i < n; ++i) keys[i] = labels[order[i]];
  sort_pairs(keys.data(), order.data(), n);
  std::vector<FusionBox<T>> boxes(n);
  for (int64_t i = 0; i < n; ++i) {
    boxes[i] = unsorted[order[i]];
    if (i > 0 && keys[i] != keys[i - 1]) starts.push_back(i);
  }
  starts.push_back(n);

  const int64_t groups = static_cast<int64_t>(starts.size()) - 1;
  std::vector<Cluster<T>> clusters(n);
  std::vector<uint64_t> bits(n * words);
  std::vector<int64_t> counts(groups);
  const auto cluster = BOXOPS_BY_ISA(cluster<T>);
  constexpr double kBoxNs = 50;  // the cost of a box on one core, more in large groups
  parallel.share(groups, kBoxNs * n / groups, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      counts[g] = cluster(boxes.data() + starts[g], starts[g + 1] - starts[g], options.iou_threshold, words,
                          clusters.data() + starts[g], bits.data() + starts[g] * words);
  });

  // The clusters of all labels by falling confidence, ties by the place of their first box.
  std::vector<uint64_t> places;
  std::vector<int64_t> found;
  std::vector<T> confidences(n);
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t at = starts[g]; at < starts[g] + counts[g]; ++at) {
      confidences[at] = confidence_of(clusters[at], bits.data() + at * words, weights.data(), options);
      places.push_back(static_cast<uint64_t>(clusters[at].first)), found.push_back(at);
    }
  const int64_t count = static_cast<int64_t>(found.size());
  sort_pairs(places.data(), found.data(), count);
  for (int64_t i = 0; i < count; ++i) places[i] = falling_key(confidences[found[i]]);
  sort_pairs(places.data(), found.data(), count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = found[i];
    const Box<T>& b = clusters[at].box;
    T* out = static_cast<T*>(result.boxes) + 4 * i;
    out[0] = b.x1, out[1] = b.y1, out[2] = b.x2, out[3] = b.y2;
    static_cast<T*>(result.scores)[i] = confidences[at];
    store_label(result.labels, result.label_bytes, i, keys[at]);
  }
  return count;
}

}  // namespace

int64_t weighted_boxes_fusion(const FusionModel* models, const FusionOptions& options, const FusionResult& result,
                              const Parallel& parallel) {
  return with_compute_type(compute_type(models, options),
                           [&](auto t) { return fuse(models, FusionRule<decltype(t)>(options), result, parallel); });
}

}  // namespace boxops::cpu
