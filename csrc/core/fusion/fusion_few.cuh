// The boxes of a part as long as up to 32 clusters stand: a warp takes one after another.
//
//   members   | x x x x | . . .     positions: the boxes of 16 at a time are put into shared memory
//   clusters  | 0 1 . . |           a lane's own, which it holds against the box
#pragma once

#include "common/warp.cuh"
#include "fusion/fusion_state.cuh"

namespace boxops::cuda {
namespace {

constexpr int kStaged = 16;  // boxes of a warp
template <class T>
struct Staged {
  Upright<T> shapes[kStaged];
  FusionBox<T> boxes[kStaged];
  int positions[kStaged];
};

// A lane's cluster.
template <class T>
struct FewClusters {
  Cluster<T> cluster{};
  Upright<T> fused{shape_of<Measure::kIoU>(nowhere<T>())};
  int2 ends{};          // the positions of its first and latest box
  uint64_t models = 0;  // bits of the first 64 that it has boxes of
  int count = 0;        // of all lanes

  // The lane whose cluster a box joins; the next free one: it founds one. And the lane's IoU with it.
  __device__ Indexed<T> choose(const Upright<T>& shape, const Threshold<T>& threshold) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const T inter = quick_intersection<T>(fused, shape);
    const bool overlaps = inter > T(0) && exceeds(inter, fused, shape, threshold);
    const unsigned lanes = __ballot_sync(kFullMask, overlaps);
    if (lanes == 0) return {threshold.value, count};
    const Indexed<T> own{overlaps ? iou_of<true, T>(fused, shape) : threshold.value,
                         overlaps ? lane : Indexed<T>::kNone};
    if ((lanes & (lanes - 1)) != 0) return warp_first(own);
    return {own.value, __ffs(static_cast<int>(lanes)) - 1};
  }
  __device__ void put(const FusionState<T>& s, const FusionBox<T>& box, int position, const Indexed<T>& choice,
                      const FusionRule<T>& options) {
    const bool is_new = choice.index == count;
    count += is_new;
    if (choice.index != int(threadIdx.x) % 32) return;
    if (is_new) cluster = found(box), ends = {position, position}, models = 0, s.clear_models(position, options);
    else join(cluster, box);
    fused = {shape_of<Measure::kIoU>(cluster.box)};
    s.record(box, position, ends.x, s.end(), fused, choice.value);
    if (!is_new) s.next[ends.y] = position;
    ends.y = position;
    if (box.model < 64) models |= uint64_t(1) << box.model;
    else s.note_model(ends.x, box.model, options);
  }
  // Of a lane that has one.
  __device__ void store_models(const FusionState<T>& s, const FusionRule<T>& options) const {
    s.bits[ends.x * model_words(options.models)] = models;
  }
};

// A warp takes boxes of a part while there is room. Returns how many.
template <class T>
__device__ int take_few(const FusionState<T>& s, const int* members, int n, const FusionRule<T>& options,
                        const Threshold<T>& threshold, Staged<T>& staged, FewClusters<T>& few) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int from = 0; from < n; from += kStaged) {
    const int in = min_of(n - from, kStaged);
    __syncwarp();
    if (lane < in) {
      const int position = members[from + lane];
      const FusionBox<T> box = s.box(position);
      staged.boxes[lane] = box, staged.shapes[lane] = {shape_of<Measure::kIoU>(box)}, staged.positions[lane] = position;
    }
    __syncwarp();
    for (int k = 0; k < in; ++k) {
      const Indexed<T> choice = few.choose(staged.shapes[k], threshold);
      if (choice.index == 32) return from + k;
      few.put(s, staged.boxes[k], staged.positions[k], choice, options);
    }
  }
  if (lane < few.count) few.store_models(s, options), s.finish(few.cluster, few.ends.x, options);
  return n;
}

// A thread has the one box of a part.
template <class T>
__device__ void fuse_only(const FusionState<T>& s, int position, const FusionRule<T>& options,
                          const Threshold<T>& threshold) {
  const FusionBox<T> box = s.box(position);
  s.next[position] = 0;
  if (box.model < 0) return;
  s.clear_models(position, options), s.note_model(position, box.model, options);
  s.record(box, position, position, s.end(), {shape_of<Measure::kIoU>(box)}, threshold.value);
  s.finish(found(box), position, options);
}

}  // namespace
}  // namespace boxops::cuda
