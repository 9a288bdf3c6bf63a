// The arithmetic of <boxops/fusion.h>: the one copy, for every backend.
#pragma once

#include <boxops/fusion.h>
#include "common/geometry.h"
#include "common/sort.h"

namespace boxops {

// The type that a call computes in.
inline DType compute_type(const FusionModel* models, const FusionOptions& options) {
  DType type = DType::kFloat32;
  for (int64_t m = 0; m < options.models; ++m) type = compute_type(type, models[m].boxes.dtype, models[m].scores.dtype);
  return type;
}

// The options of a call, rounded to it.
template <class T>
struct FusionRule {
  T iou_threshold, score_threshold;
  Confidence confidence;
  bool allows_overflow;
  int64_t models;
  T total, largest;

  explicit FusionRule(const FusionOptions& o)
      : iou_threshold(static_cast<T>(o.iou_threshold)),
        score_threshold(static_cast<T>(o.score_threshold)),
        confidence(o.confidence),
        allows_overflow(o.allows_overflow),
        models(o.models),
        total(static_cast<T>(o.total)),
        largest(static_cast<T>(o.largest)) {}
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
BOXOPS_HD int64_t model_words(int64_t models) { return (models + 63) / 64; }

// A cluster's box is one: sums of weighted corners by the sum of the weights.
template <class T>
struct Mean {
  Box<T> sum;
  T weight;
  BOXOPS_HD Box<T> box() const { return {sum.x1 / weight, sum.y1 / weight, sum.x2 / weight, sum.y2 / weight}; }
};

template <class T>
BOXOPS_HD void join(Cluster<T>& c, const FusionBox<T>& b) {
  c.sum.x1 += b.score * b.x1, c.sum.y1 += b.score * b.y1, c.sum.x2 += b.score * b.x2, c.sum.y2 += b.score * b.y2;
  c.conf += b.score, c.weight += b.weight, ++c.count;
  if (c.conf != T(0)) c.box = Mean<T>{c.sum, c.conf}.box();
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
BOXOPS_HD T confidence_of(const Cluster<T>& c, const uint64_t* bits, const T* weights, const FusionRule<T>& o) {
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
  const T max = max_of(T(1), ratio_of(c.conf, c.weight));
  return confidence > max ? max : confidence;  // NaN stays
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

}  // namespace boxops
