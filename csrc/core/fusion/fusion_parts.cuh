// The parts that the links make, each fused by itself: by a warp, and, once many clusters stand, by the block.
//
//   positions  | 0 .. 127 | 128 .. 255 | ...     2,048 of them to 128 blocks in turn: parts begin early in a label,
//   blocks     | 0 .. 127 |   0 .. 127 | ...     those of many boxes first of all
//
// A block has a warp for each of its positions, and looks for the other boxes of the parts that begin there together.
#pragma once

#include "common/compact.cuh"
#include "fusion/fusion_few.cuh"
#include "fusion/fusion_links.cuh"
#include "fusion/fusion_window.cuh"

namespace boxops::cuda {
namespace {

constexpr int kWarps = kFusionThreads / 32, kStride = 128;  // kStride: blocks that share positions
constexpr int kFew = 32;              // boxes that a block finds at once, and a warp brings into order
constexpr int64_t kMostTiles = 4096;  // at once: more have no multiprocessor to run on
constexpr int kMostInTurn = 512;      // boxes: of more, the block settles many at a time
constexpr int kShared = kWarps * kStride;

struct Parts {
  int first, end;             // of the block's positions; of the last one's label
  int counts[kWarps];         // of the boxes of the part that begins at a warp's
  int members[kWarps][kFew];  // its boxes; of more, some
  int starts[kWarps];         // of the space of such a part
  int taken[kWarps];          // of its boxes, while up to 32 clusters stood
};

// The warp at whose position the part of a box begins; kWarps: none of the block's. `parent`: that of the box.
__device__ int warp_of(const Components& components, int first, uint64_t parent) {
  if (parent < static_cast<uint64_t>(first)) return kWarps;
  const uint64_t from = components.final_root(parent) - first;  // huge, if it is before
  return from >= kShared || from % kStride != 0 ? kWarps : static_cast<int>(from / kStride);
}

// What warps need, and then the block.
template <class T>
union Work {
  Staged<T> staged[kWarps];
  Window<T> window;
};

// A block finds the boxes of the parts that begin at its positions.
template <class T>
__device__ void find_boxes(const FusionState<T>& s, Parts& parts) {
  constexpr int kAtOnce = 4;
  const int first = parts.first, end = parts.end;
  for (int i = first + static_cast<int>(threadIdx.x); i < end; i += kAtOnce * kFusionThreads) {
    uint64_t parents[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) parents[k] = s.components.parents[min_of(i + k * kFusionThreads, end - 1)];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int own = i + k * kFusionThreads, warp = own < end ? warp_of(s.components, first, parents[k]) : kWarps;
      if (warp == kWarps) continue;
      const int at = atomicAdd(&parts.counts[warp], 1);
      if (at < kFew) parts.members[warp][at] = own;
    }
  }
}

// A block lists the boxes of those parts that have more than a few.
template <class T>
__device__ void list_boxes(const FusionState<T>& s, int linking, Parts& parts) {
  const int t = static_cast<int>(threadIdx.x);
  if (t < kWarps && parts.counts[t] > kFew) parts.starts[t] = atomicAdd(&s.progress->used[linking], parts.counts[t]);
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) {
    const int first = parts.first + warp * kStride;
    if (parts.counts[warp] <= kFew) continue;
    compact(
        parts.end - first, parts.counts[warp],
        [&](int64_t i) { return s.components.final_root(first + i) == static_cast<uint64_t>(first); },
        [&](int64_t at, int64_t i) { s.members[parts.starts[warp] + at] = first + static_cast<int>(i); });
  }
  __syncthreads();
}

// A warp brings the boxes of a part into their order.
__device__ void sort_few(int* members, int count) {
  const int lane = static_cast<int>(threadIdx.x) % 32, own = members[lane < count ? lane : 0];
  int rank = 0;
  for (int k = 0; k < count; ++k) rank += __shfl_sync(kFullMask, own, k) < own;
  __syncwarp();
  if (lane < count) members[rank] = own;
  __syncwarp();
}

// A warp fuses its part, as far as there is room.
template <class T>
__device__ void fuse_own(const FusionState<T>& s, Parts& parts, const FusionRule<T>& options,
                         const Threshold<T>& threshold, Staged<T>& staged) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int count = parts.counts[warp];
  if (count <= kFew) sort_few(parts.members[warp], count);
  const int start = count <= kFew ? 0 : parts.starts[warp];
  const int* const members = count <= kFew ? parts.members[warp] : s.members + start;
  FewClusters<T> few;
  const int taken = count > kMostInTurn ? 0 : take_few(s, members, count, options, threshold, staged, few);
  if (lane == 0) parts.taken[warp] = taken;
  if (taken == 0 || taken == count) return;
  const Part<T> part(s, start, count);
  few.store_models(s, options);
  part.clusters[lane] = few.cluster, part.fused[lane] = few.fused, part.ends[lane] = few.ends, part.joined[lane] = 0;
}

// A block fuses the parts that begin at its positions, if the linking has made them. A warp's begins at its own.
template <class T>
__device__ void fuse_parts(const FusionState<T>& s, int linking, bool begins, Parts& parts,
                           const FusionRule<T>& options, const Threshold<T>& threshold, Work<T>& work) {
  const int t = static_cast<int>(threadIdx.x);
  if (!__syncthreads_or(begins)) return;
  if (t < kWarps) parts.counts[t] = parts.taken[t] = 0;
  if (t == 0) {
    const uint64_t label = s.label(min_of(parts.first + kShared - kStride, s.end() - 1));
    parts.end = partition_point(s.end(), [&](int i) { return s.label(i) <= label; });
  }
  __syncthreads();
  find_boxes(s, parts);
  __syncthreads();
  if (t % 32 == 0 && !begins) parts.counts[t / 32] = 0;
  __syncthreads();
  list_boxes(s, linking, parts);
  if (begins) fuse_own(s, parts, options, threshold, work.staged[t / 32]);
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp)
    if (const int taken = parts.taken[warp]; taken < parts.counts[warp])
      fuse_rest(Part<T>(s, parts.starts[warp], parts.counts[warp]), taken, taken > 0 ? 32 : 0, options, threshold,
                work.window);
}

// A block fuses the parts that begin at its positions; a thread those of one box.
template <class T>
__global__ void __launch_bounds__(kFusionThreads)
    fuse_kernel(FusionState<T> s, int linking, FusionRule<T> options, Threshold<T> threshold) {
  __shared__ Parts parts;
  __shared__ Work<T> work;
  if (linking > 0 && s.progress->linked[linking] == 0) return;
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t i = blockIdx.x; i / kStride * kShared < s.segments.n; i += gridDim.x) {
    const int first = static_cast<int>(i / kStride * kShared + i % kStride), own = first + t / 32 * kStride;
    const bool is_first = own < s.end() && s.components.final_root(own) == static_cast<uint64_t>(own);
    const unsigned marks = is_first ? s.marks[own] : 0;
    if (t == 0) parts.first = first;
    fuse_parts(s, linking, (marks >> linking & 1) != 0, parts, options, threshold, work);
    if (linking == 0 && is_first && marks == 0 && t % 32 == 0) fuse_only(s, own, options, threshold);
    __syncthreads();
  }
}

// The first position from `from` on that a linking has marked; the end: none.
template <class T>
__device__ int first_marked(const FusionState<T>& s, int from, int linking) {
  __shared__ int found;
  if (threadIdx.x == 0) found = s.end();
  __syncthreads();
  for (int i = from + static_cast<int>(threadIdx.x); i < s.end(); i += kFusionThreads)
    if (s.marks[i] >> linking & 1) {
      atomicMin(&found, i);
      break;
    }
  __syncthreads();
  const int first = found;
  __syncthreads();
  return first;
}

// A block fuses labels anew, as a whole, in which the last linking has found something.
template <class T>
__device__ void fuse_labels(const FusionState<T>& s, int linking, const FusionRule<T>& options,
                            const Threshold<T>& threshold, Window<T>& window) {
  int at = 0;
  while ((at = first_marked(s, at, linking)) < s.end()) {
    const uint64_t label = s.label(at);
    const int begin = partition_point(s.end(), [&](int k) { return s.label(k) < label; });
    at = partition_point(s.end(), [&](int k) { return s.label(k) <= label; });
    for (int i = begin + static_cast<int>(threadIdx.x); i < at; i += kFusionThreads) s.members[i] = i;
    __syncthreads();
    fuse_rest(Part<T>(s, begin, at - begin), 0, 0, options, threshold, window);
  }
}

// A block links the boxes of 32 columns with those before them.
template <class T>
__global__ void __launch_bounds__(kRows) link_kernel(FusionState<T> s, int linking, Threshold<T> threshold) {
  if (linking <= 1 || s.progress->linked[linking - 1] != 0) link_columns(s, linking, threshold);
}

// The same for the last time. The last block sees to what it has found.
template <class T>
__global__ void __launch_bounds__(kRows)
    last_link_kernel(FusionState<T> s, int linking, FusionRule<T> options, Threshold<T> threshold) {
  __shared__ Window<T> window;
  if (s.progress->linked[linking - 1] == 0) return;
  link_columns(s, linking, threshold);
  if (is_last_block(&s.progress->arrived, gridDim.x * gridDim.y) && s.progress->linked[linking] != 0)
    fuse_labels(s, linking, options, threshold, window);
}

// Fuses the boxes of each label, which are in the order of positions.
template <class T>
int fuse_all(const FusionState<T>& s, const FusionRule<T>& options, void* stream) {
  const Threshold<T> threshold(options.iou_threshold);
  const dim3 tiles(
      grid_x(blocks_of(s.segments.n, kColumns)),
      grid_yz(min_of(blocks_of(s.segments.n, kRows), blocks_of(kMostTiles, blocks_of(s.segments.n, kColumns)))));
  const unsigned blocks = grid_x(blocks_of(s.segments.n, kShared) * kStride);
  for (int linking = 0; linking + 1 < kLinkings; ++linking) {
    BOXOPS_TRY(launch(link_kernel<T>, tiles, kRows, stream, s, linking, threshold));
    BOXOPS_TRY(launch(fuse_kernel<T>, blocks, kFusionThreads, stream, s, linking, options, threshold));
  }
  return launch(last_link_kernel<T>, tiles, kRows, stream, s, kLinkings - 1, options, threshold);
}

}  // namespace
}  // namespace boxops::cuda
