// What fusion holds on the device. Positions number the boxes by label, in each by falling score: so do boxes choose,
// one after another. Places number them as they come in.
//
//   positions  | 0 1 2 3 | 4 5 6 | 7 |      of three labels
//   parents    | 0 0 2 0 | 4 5 4 | 7 |      parts of them: boxes that may hang on each other, fused by themselves
//   founder    | 0 1 2 1 | 4 5 4 | 7 |      the first box of the cluster that a box joined
//   next       | n 3 n n | 6 n n | n |      and the one that joined behind it
#pragma once

#include "common/components.cuh"
#include "fusion/fusion.h"
#include "nms/overlap.cuh"
#include "nms/segments.cuh"
#include "nms/settle.cuh"

namespace boxops::cuda {
namespace {

constexpr int kFusionThreads = 512;
constexpr int kLinkings = 3;  // of the boxes themselves, and two of the clusters that came of the guess before

// The bits from `from` to before `to`.
__device__ unsigned bits_between(int from, int to) { return static_cast<unsigned>(lowest(to) & ~lowest(from)); }

// Zeros at first.
struct Progress {
  unsigned linked[kLinkings];  // whether any boxes were
  unsigned arrived;            // blocks of the last linking
  int used[kLinkings];         // of the parts' space
};

template <class T>
struct FusionState {
  Segments segments;
  Progress* progress;
  T* weights;  // by model
  // By place:
  FusionBox<T>* boxes;  // model -1: does not take part
  uint64_t* labels;
  Box<T>* results;  // of the clusters that a box founded
  T* confidence;
  bool* founds;
  // By position:
  Components components;
  unsigned* marks;     // bit k, of a part's first box: linking k has made the part
  Upright<T>* states;  // the fused box of its cluster once it had joined
  T* best;             // the IoU by which it joined; the threshold: it founded one
  int *founder, *next;
  uint64_t* bits;  // of the cluster that a box founded
  // The parts' space, by age in each:
  int* members;  // positions
  Cluster<T>* clusters;
  Upright<T>* fused;
  int2* ends;      // the positions of a cluster's first and latest box
  int* joined;     // the first box of the window that joins it, if that has the cluster for its guess
  uchar4* around;  // where, in the tables of cells, boxes stand at most that it may get

  FusionState(Workspace& w, int64_t n, int64_t models)
      : segments(w, n),
        progress(w.take<Progress>(1)),
        weights(w.take<T>(models)),
        boxes(w.take<FusionBox<T>>(n)),
        labels(w.take<uint64_t>(n)),
        results(w.take<Box<T>>(n)),
        confidence(w.take<T>(n)),
        founds(w.take<bool>(n)),
        components{w.take<unsigned long long>(n)},
        marks(w.take<unsigned>(n)),
        states(w.take<Upright<T>>(n)),
        best(w.take<T>(n)),
        founder(w.take<int>(n)),
        next(w.take<int>(n)),
        bits(w.take<uint64_t>(n * model_words(models))),
        members(w.take<int>(n)),
        clusters(w.take<Cluster<T>>(n)),
        fused(w.take<Upright<T>>(n)),
        ends(w.take<int2>(n)),
        joined(w.take<int>(n)),
        around(w.take<uchar4>(n)) {}

  __device__ const FusionBox<T>& box(int64_t position) const { return boxes[segments.order[position]]; }
  __device__ uint64_t label(int64_t position) const { return segments.space.sorted[position]; }
  __device__ int end() const { return static_cast<int>(segments.n); }

  // The box at `position` has joined the cluster that the one at `first` founded, or is that one. `after`: the next to
  // join it; the end: none so far.
  __device__ void record(const FusionBox<T>& box, int position, int first, int after, const Upright<T>& fused,
                         T iou) const {
    states[position] = fused, founder[position] = first, next[position] = after, best[position] = iou;
    founds[box.place] = position == first;
  }
  // One thread has all of a cluster.
  __device__ void finish(const Cluster<T>& c, int first, const FusionRule<T>& options) const {
    results[c.first] = c.box;
    confidence[c.first] = confidence_of(c, bits + first * model_words(options.models), weights, options);
  }
  __device__ void note_model(int first, int64_t model, const FusionRule<T>& options) const {
    auto* const words = reinterpret_cast<unsigned long long*>(bits) + first * model_words(options.models);
    atomicOr(&words[model / 64], 1ull << model % 64);
  }
  __device__ void clear_models(int first, const FusionRule<T>& options) const {
    const int64_t words = model_words(options.models);
    for (int64_t word = 0; word < words; ++word) bits[first * words + word] = 0;
  }
};

}  // namespace
}  // namespace boxops::cuda
