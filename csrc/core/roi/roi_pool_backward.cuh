// The backward kernel of roi_pool: deterministic without atomics, one launch, each gradient read once or twice.
//
//   plane of a channel   | run 0      | run 1      | ...     pixels in row-major order; a block has one run, whole
//   sums[warp][cell]     warp 0: the first eighth of the RoIs; warp 1: the second; ...
//   lanes                32 bins of a RoI and channel in a row, whose gradients and maxima lie side by side
//
// Each warp adds its RoIs in their order to sums of its own in shared memory; in the end the warps' sums are added in
// order. Bins of a RoI overlap, so lanes may have the same pixel: these add up their gradients by pairs, pairs of pairs
// and so on, and the first writes. A RoI that lies in a run with some rows of bins is read in those alone.
//
// Cost, estimated: 512 RoIs of 7 x 7 bins on 256 channels of 50 x 50 pixels: 512 blocks of 2 runs, 4 to an SM; 51 MB
// read, 1.3 times; 340,000 steps of a warp with some 40 instructions, and 12 for each doubling of the lanes that have
// one pixel: many on RoIs with fewer pixels than bins, so some 3 of them.
#pragma once

#include "common/warp.cuh"
#include "roi/roi_cuda.cuh"

namespace boxops::cuda {
namespace {

constexpr int kSumWarps = 8, kSumThreads = kSumWarps * 32, kSumBlocks = 5;  // of an SM
template <class T>
constexpr int kCells = 40 * 1024 / (kSumWarps * sizeof(T));

// Adds each lane's g to its cell. Of the lanes of one cell each that is left adds what the next one has, then every
// second one is left; in the end it is the first. cell < 0: there is none.
template <class T>
__device__ void add_by_cell(T* sums, int cell, T g) {
  if (!__any_sync(kFullMask, cell >= 0)) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const unsigned peers = __match_any_sync(kFullMask, cell), before = peers & ((1u << lane) - 1);
  unsigned behind = cell < 0 ? 0 : peers & (~1u << lane);
  for (int rank = __popc(before); __any_sync(kFullMask, behind != 0); rank /= 2) {
    const int next = __ffs(static_cast<int>(behind)) - 1;
    const T more = __shfl_sync(kFullMask, g, max_of(next, 0));
    if (next >= 0) g += more;
    behind &= __ballot_sync(kFullMask, rank % 2 == 0);
  }
  if (cell >= 0 && before == 0) sums[cell] += g;
  __syncwarp();
}

struct Run {
  int64_t image, channel;
  int64_t first, top, bottom;  // its first pixel; its first and last row
  int pixels;
};

// The rows of bins of RoI k that may touch the run.
template <class T>
__device__ Steps rows_touching(const Features& gradients, const Rois& rois, const Bins& bins, const Run& run,
                               int64_t k) {
  if (image_of(rois, k, gradients.images) != run.image) return {0, 0};
  const PoolAxis y = place_of<Pooling::kMax>(gradients.level[0], roi_box<T>(rois, k), bins).y;
  if (y.length == 0) return {0, 0};
  return steps_within(static_cast<T>(y.start), static_cast<T>(y.length) / static_cast<T>(bins.height),
                      static_cast<int>(bins.height), static_cast<T>(run.top - 1), static_cast<T>(run.bottom + 1));
}

// Up to 64 gradients of a RoI and channel, two of each lane, and their cells in the run.
template <class T>
struct Gradients {
  int cell[2];
  T g[2];
};

// Of the n from `at` on.
template <DType kType, class T>
__device__ Gradients<T> load_bins(const Run& run, int64_t at, int n, const void* grad, const int32_t* argmax) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Gradients<T> of = {{-1, -1}, {T(0), T(0)}};
  at += lane;
#pragma unroll
  for (int i = 0; i < 2; ++i)
    if (lane + 32 * i < n) {
      const unsigned pixel = static_cast<unsigned>(argmax[at + 32 * i]) - static_cast<unsigned>(run.first);
      if (pixel < static_cast<unsigned>(run.pixels)) of.cell[i] = static_cast<int>(pixel);
      of.g[i] = load<T>(grad, kType, at + 32 * i);
    }
  return of;
}

// A warp adds the RoIs [begin, end): each lane finds the bins of one that may touch the run, then one is added after
// another, while the gradients of the next are on their way.
template <DType kType, class T>
__device__ void add_rois(const Features& gradients, const Rois& rois, const Bins& bins, const Run& run, int64_t begin,
                         int64_t end, const void* grad, const int32_t* argmax, T* sums) {
  const int width = static_cast<int>(bins.width);
  for (int64_t first = begin; first < end; first += 32) {
    const int64_t k = first + static_cast<int>(threadIdx.x) % 32;
    Steps rows = {0, 0};
    if (k < end) rows = rows_touching<T>(gradients, rois, bins, run, k);
    const int64_t own = ((k * gradients.channels + run.channel) * bins.height + rows.begin) * bins.width;
    unsigned left = __ballot_sync(kFullMask, rows.begin < rows.end);
    int64_t at = 0;  // the next of a RoI's bins
    int n = 0;       // of them
    const auto advance = [&] {
      at += 64, n -= 64;
      if (n > 0) return true;
      if (left == 0) return false;
      const int from = __ffs(static_cast<int>(left)) - 1;
      at = __shfl_sync(kFullMask, own, from);
      n = __shfl_sync(kFullMask, (rows.end - rows.begin) * width, from);
      left &= left - 1;
      return true;
    };
    bool more = advance();
    Gradients<T> next = load_bins<kType, T>(run, at, n, grad, argmax);
    while (more) {
      const Gradients<T> now = next;
      more = advance();
      next = load_bins<kType, T>(run, at, n, grad, argmax);
      add_by_cell(sums, now.cell[0], now.g[0]);
      add_by_cell(sums, now.cell[1], now.g[1]);
    }
  }
}

// Block: a run of one channel's plane, `pixels` of it or what is left.
template <class T, DType kType>
__global__ void __launch_bounds__(kSumThreads, kSumBlocks)
    pool_backward_kernel(Features gradients, Rois rois, Bins bins, int64_t runs, int pixels, const void* grad,
                         const int32_t* argmax) {
  __shared__ T sums[kSumWarps][kCells<T>];
  const FeatureMap& map = gradients.level[0];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t size = map.height * map.width, per_warp = max_of<int64_t>(blocks_of(rois.count, kSumWarps), 1);
  const int busy = static_cast<int>(blocks_of(rois.count, per_warp));  // warps that have RoIs
  for (int64_t index = blockIdx.x; index < runs * gradients.images * gradients.channels; index += gridDim.x) {
    const int64_t plane = index / runs;
    Run run;
    run.image = plane / gradients.channels, run.channel = plane % gradients.channels;
    run.first = index % runs * pixels, run.pixels = static_cast<int>(min_of<int64_t>(pixels, size - run.first));
    run.top = run.first / map.width, run.bottom = (run.first + run.pixels - 1) / map.width;
    if (warp < busy)
      for (int i = lane; i < run.pixels; i += 32) sums[warp][i] = T(0);
    __syncwarp();
    add_rois<kType>(gradients, rois, bins, run, warp * per_warp, min_of((warp + 1) * per_warp, rois.count), grad,
                    argmax, sums[warp]);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < run.pixels; i += kSumThreads) {
      T sum = T(0);
      for (int w = 0; w < busy; ++w) sum += sums[w][i];
      store(map.data, kType, plane * size + run.first + i, sum);
    }
    __syncthreads();
  }
}

template <class T>
int pool_backward(const void* grad, const int32_t* argmax, const Rois& rois, const Bins& bins,
                  const Features& gradients, void* stream) {
  const int64_t pixels = gradients.level[0].height * gradients.level[0].width;
  const int64_t runs = blocks_of(pixels, kCells<T>), blocks = runs * gradients.images * gradients.channels;
  const int cells = runs == 0 ? 0 : static_cast<int>(blocks_of(pixels, runs));
  return with_storage<T>(gradients.dtype, [&](auto type) {
    return launch(pool_backward_kernel<T, type()>, grid_x(blocks), kSumThreads, stream, gradients, rois, bins, runs,
                  cells, grad, argmax);
  });
}

}  // namespace
}  // namespace boxops::cuda
