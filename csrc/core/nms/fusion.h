// Weighted boxes fusion: boxes of several models that agree become one (Solovyev et al. 2021, section 3).
//
// Scores are multiplied by their model's weight. Within each label, boxes are taken by falling weighted score (ties:
// lower place in the lists put one after another; NaN last); a box joins the cluster whose fused box it overlaps most
// (ties: older cluster) if that IoU exceeds the threshold, else it founds one. A fused box is its boxes' mean, weighted
// by their scores; where those sum to 0 it stays as it was. Boxes whose score is not >= skip_box_thr, and boxes
// without an area > 0 (inverted and NaN ones too), are left out. The results are sorted by falling confidence (ties:
// lower place of the cluster's first box; NaN last). All is rounded to the compute type T at each step.
//
// Floor: 10 operations for each box and cluster before it of its label. Sequential by nature: the parallelism is over
// labels, over the clusters that a box is held against, and on the device over boxes that turn out not to interfere.
#pragma once

#include "common/geometry.h"
#include "common/parallel.h"
#include "common/sort.h"

namespace boxops {

struct FusionModel {
  Boxes boxes;     // [1, N, 4]
  Scalars scores;  // [N], floating or integer
  Scalars labels;  // [N], numbers: equal ones are a label, as are all NaN
  double weight;   // >= 0
};

enum class Confidence : uint8_t { kAvg, kMax, kBoxAndModelAvg, kAbsentModelAwareAvg };

template <class T>
struct FusionOptions {
  T iou_threshold, skip_score;
  Confidence confidence;
  bool allows_overflow;
  int64_t models;
  T total, largest;  // of the weights
};

template <class T>
struct FusionResult {
  T *boxes, *scores;  // [N of all models, 4], [N of all models]
  void* labels;       // [N of all models]
  int64_t label_bytes;
};

// A box that takes part.
template <class T>
struct FusionBox : Box<T> {
  T score, weight;  // the score is weighted
  int64_t model, place;
};

template <class T>
struct Cluster {
  Box<T> box, sum;
  T conf, weight, top;  // sums of scores and weights, and the largest score
  int64_t count, first;
};

// Words of bits that say which models a cluster has boxes of.
inline int64_t model_words(int64_t models) { return (models + 63) / 64; }

template <class T>
BOXOPS_HD void join(Cluster<T>& c, const FusionBox<T>& b) {
  c.sum.x1 += b.score * b.x1, c.sum.y1 += b.score * b.y1, c.sum.x2 += b.score * b.x2, c.sum.y2 += b.score * b.y2;
  c.conf += b.score, c.weight += b.weight, ++c.count;
  if (c.conf != T(0)) c.box = {c.sum.x1 / c.conf, c.sum.y1 / c.conf, c.sum.x2 / c.conf, c.sum.y2 / c.conf};
}

template <class T>
BOXOPS_HD Cluster<T> found(const FusionBox<T>& b) {
  Cluster<T> c{b, {T(0), T(0), T(0), T(0)}, T(0), T(0), b.score, 0, b.place};
  join(c, b);
  c.box = b;
  return c;
}

template <class T>
BOXOPS_HD T ratio_of(T amount, T whole) {
  return whole > T(0) ? amount / whole : amount * T(0);
}

// weights[models]; bits: of the cluster. But for kMax, and where overflow is allowed, the confidence is held to 1, or
// to the mean of the boxes' own scores, weighted as they are, where that is larger: scores up to 1 give none above it.
template <class T>
BOXOPS_HD T confidence_of(const Cluster<T>& c, const uint64_t* bits, const T* weights, const FusionOptions<T>& o) {
  if (o.confidence == Confidence::kMax) return ratio_of(c.top, o.largest);
  const T mean = c.conf / static_cast<T>(c.count), sum = mean * static_cast<T>(c.count);
  T confidence;
  if (o.confidence == Confidence::kAvg) {
    if (o.allows_overflow) return ratio_of(sum, o.total);
    confidence = ratio_of(mean * static_cast<T>(min_of(c.count, o.models)), o.total);
  } else {
    T present = T(0), absent = T(0);
    for (int64_t m = 0; m < o.models; ++m) {
      const bool has = bits[m / 64] >> (m % 64) & 1;
      if (has) present += weights[m];
      else absent += weights[m];
    }
    confidence = o.confidence == Confidence::kBoxAndModelAvg ? ratio_of(ratio_of(sum, c.weight) * present, o.total)
                                                             : ratio_of(sum, c.weight + absent);
  }
  const T most = max_of(T(1), ratio_of(c.conf, c.weight));
  return confidence > most ? most : confidence;  // NaN stays
}

// Writes a label that group_key has read.
BOXOPS_HD void store_label(void* labels, int64_t bytes, int64_t i, uint64_t label) {
  switch (bytes) {
    case 1: static_cast<uint8_t*>(labels)[i] = static_cast<uint8_t>(label); break;
    case 2: static_cast<uint16_t*>(labels)[i] = static_cast<uint16_t>(label); break;
    case 4: static_cast<uint32_t*>(labels)[i] = static_cast<uint32_t>(label); break;
    default: static_cast<uint64_t*>(labels)[i] = label;
  }
}

namespace cpu {

// Returns the number of results.
template <class T>
BOXOPS_API int64_t weighted_boxes_fusion(const FusionModel* models, const FusionOptions<T>& options,
                                         const FusionResult<T>& result, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

// `count`: boxes of all models.
BOXOPS_API size_t fusion_workspace(int64_t count, int64_t models, bool float64);

// Leaves the number of results in count[1] on the device; `models` is host memory. Returns a cudaError_t.
template <class T>
BOXOPS_API int weighted_boxes_fusion(const FusionModel* models, const FusionOptions<T>& options,
                                     const FusionResult<T>& result, int64_t* count, void* workspace, void* stream);

}  // namespace cuda
}  // namespace boxops
