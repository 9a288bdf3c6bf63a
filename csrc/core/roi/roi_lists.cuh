// The RoIs by level and image, for the backward kernels: which they are and where each lies.
//
//   segment   level * images + image of a RoI; those of no image come last and are never read
//   order     RoIs by (segment, number); begin[segment] to begin[segment + 1] are a segment's
//   places    of the RoIs, in that order
//
// Where few RoIs meet few blocks there need be no lists: each block looks at all RoIs itself, which takes less time
// than a launch. Up to kRanked RoIs one launch lists them: each block knows all segments, and a thread counts the RoIs
// that come before its own. Beyond that there are three launches and a sort. Workspace: O(K + levels N).
#pragma once

#include "common/sort_space.cuh"
#include "roi/roi_parts.cuh"

namespace boxops::cuda {
namespace {

constexpr int64_t kRanked = 2048;
// Looks of blocks at RoIs: so many take some 10 us of all multiprocessors, as a launch that lists them does.
constexpr int64_t kLooks = 1 << 20;

struct Range {
  int64_t begin, end;
};

template <Pooling pooling, class T>
struct Lists {
  int64_t segments;
  int64_t *order = nullptr, *begin = nullptr;  // null: no lists
  Place<pooling, T>* places = nullptr;
  bool ranked;
  SortSpace by_segment;  // where not ranked

  // `blocks` will look at the RoIs.
  Lists(Workspace& w, const Features& gradients, int64_t count, int64_t blocks)
      : segments(gradients.levels * gradients.images),
        ranked(count <= kRanked && segments < (int64_t(1) << 32) / kRanked) {
    if (ranked && count * blocks <= kLooks) return;
    order = w.take<int64_t>(count);
    begin = w.take<int64_t>(segments + 1);
    places = w.take<Place<pooling, T>>(count);
    if (!ranked) by_segment = SortSpace(w, count);
  }
};

// Writes the RoI that comes `i`-th.
template <Pooling pooling, class T>
__device__ void list_roi(const Features& gradients, const Rois& rois, const Bins& bins, const Lists<pooling, T>& s,
                         int64_t i, int64_t k, int64_t segment) {
  s.order[i] = k;
  if (segment < s.segments)
    s.places[i] = place_of<pooling>(gradients.level[segment / gradients.images], roi_box<T>(rois, k), bins);
}

// Where tiles are cut into parts, the last block, which has no RoIs to list, does that.
template <Pooling pooling, class T>
__device__ bool cuts_tiles(const Features& gradients, const Rois& rois, const Bins& bins, const Parts& parts) {
  if (parts.item == nullptr || blockIdx.x + 1 < gridDim.x) return false;
  if constexpr (pooling == Pooling::kAlign) cut_tiles<T>(gradients, rois, bins, parts);
  return true;
}

// Thread k: how many RoIs come before RoI k, and how many before segment k. A key is the segment, then the number.
template <Pooling pooling, class T>
__global__ void __launch_bounds__(kListThreads)
    rank_kernel(Features gradients, Rois rois, Bins bins, Lists<pooling, T> s, Parts parts) {
  if (cuts_tiles<pooling, T>(gradients, rois, bins, parts)) return;
  alignas(16) __shared__ uint32_t keys[kRanked];
  const int count = static_cast<int>(rois.count);
  for (int k = threadIdx.x; k < count; k += kListThreads)
    keys[k] = static_cast<uint32_t>(segment_of<T>(gradients, rois, k) * kRanked + k);
  __syncthreads();
  for (const int64_t k : grid_stride<kListThreads>(max_of<int64_t>(count, s.segments + 1))) {
    const uint32_t roi = k < count ? keys[k] : 0, segment = static_cast<uint32_t>(min_of(k, s.segments) * kRanked);
    int before_roi = 0, before_segment = 0;
#pragma unroll 8
    for (int j = 0; j < count; ++j) before_roi += keys[j] < roi, before_segment += keys[j] < segment;
    if (k < count) list_roi(gradients, rois, bins, s, before_roi, k, roi / kRanked);
    if (k <= s.segments) s.begin[k] = before_segment;
  }
}

// A thread finds the segment of one RoI.
template <Pooling pooling, class T>
__global__ void segment_kernel(Features gradients, Rois rois, Lists<pooling, T> s) {
  for (const int64_t k : grid_stride<kListThreads>(rois.count)) {
    s.by_segment.keys[k] = static_cast<uint64_t>(segment_of<T>(gradients, rois, k));
    s.by_segment.values[k] = k;
  }
}

// A thread works out where the RoI of one place lies, and finds where one segment begins by bisection.
template <Pooling pooling, class T>
__global__ void __launch_bounds__(kListThreads)
    place_kernel(Features gradients, Rois rois, Bins bins, Lists<pooling, T> s, Parts parts) {
  if (cuts_tiles<pooling, T>(gradients, rois, bins, parts)) return;
  for (const int64_t i : grid_stride<kListThreads>(max_of(rois.count, s.segments + 1))) {
    if (i < rois.count) list_roi(gradients, rois, bins, s, i, s.order[i], static_cast<int64_t>(s.by_segment.sorted[i]));
    if (i <= s.segments) s.begin[i] = lower_bound(s.by_segment.sorted, rois.count, static_cast<uint64_t>(i));
  }
}

template <Pooling pooling, class T>
int list_rois(const Features& gradients, const Rois& rois, const Bins& bins, const Lists<pooling, T>& s,
              const Parts& parts, void* stream) {
  if (s.order == nullptr) return cudaSuccess;
  const unsigned blocks = grid_x(blocks_of(max_of(rois.count, s.segments + 1), kListThreads));
  const unsigned with_parts = blocks + (parts.item != nullptr ? 1 : 0);
  if (s.ranked)
    return launch(rank_kernel<pooling, T>, with_parts, kListThreads, stream, gradients, rois, bins, s, parts);
  BOXOPS_TRY(launch(segment_kernel<pooling, T>, blocks, kListThreads, stream, gradients, rois, s));
  BOXOPS_TRY(s.by_segment.sort(s.order, bits_of(s.segments + 1), stream));
  return launch(place_kernel<pooling, T>, with_parts, kListThreads, stream, gradients, rois, bins, s, parts);
}

// The places of a segment's RoIs: in the lists, or all there are.
template <Pooling pooling, class T>
__device__ Range rois_of(const Rois& rois, const Lists<pooling, T>& s, int64_t segment) {
  if (s.order == nullptr) return {0, rois.count};
  return {s.begin[segment], s.begin[segment + 1]};
}

// The RoI at one of these places: its number, or -1 where it belongs to another segment, and where it lies.
template <Pooling pooling, class T>
__device__ int64_t find_roi(const Features& gradients, const Rois& rois, const Bins& bins, const Lists<pooling, T>& s,
                            int64_t segment, int64_t i, Place<pooling, T>* at) {
  if (s.order != nullptr) {
    *at = s.places[i];
    return s.order[i];
  }
  if (segment_of<T>(gradients, rois, i) != segment) return -1;
  *at = place_of<pooling>(gradients.level[segment / gradients.images], roi_box<T>(rois, i), bins);
  return i;
}

}  // namespace
}  // namespace boxops::cuda
