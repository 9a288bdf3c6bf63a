// The backward kernel of roi_pool: deterministic without atomics, one launch, each gradient read once or twice.
//
//   plane of a channel   | run 0      | run 1      | ...     pixels in row-major order; a block has one run, whole
//   sums[warp][cell]     warp 0: the first eighth of the RoIs; warp 1: the second; ...
//   lanes                32 bins of a RoI and channel in a row, whose gradients and maxima lie side by side
//
// Each warp adds its RoIs in their order to sums of its own in shared memory; in the end the warps' sums are added in
// order. Bins of a RoI overlap, so lanes may have the same pixel: each then adds up the gradients of all of them in the
// order of the bins, and the first writes. A RoI that lies in a run with some rows of bins is read in those alone.
//
// Cost, estimated: 512 RoIs of 7 x 7 bins on 256 channels of 50 x 50 pixels: 512 blocks of 2 runs, 4 to an SM; 51 MB
// read, 1.3 times; 250,000 steps of a warp with some 65 instructions: 40 us on an H200. All RoIs at one place, or none
// larger than a pixel, cost up to 32 additions a step and no more.
#pragma once

#include "common/warp.cuh"
#include "roi/roi_cuda.cuh"

namespace boxops::cuda {
namespace {

constexpr int kSumWarps = 8, kSumThreads = kSumWarps * 32, kSumBlocks = 5;  // of an SM
template <class T>
constexpr int kCells = 40 * 1024 / (kSumWarps * sizeof(T));

// Adds each lane's g to its cell, those of one cell in the order of the lanes. cell < 0: there is none.
template <class T>
__device__ void add_in_order(T* sums, int cell, T g) {
  const unsigned peers = __match_any_sync(kFullMask, cell);
  T sum = cell < 0 ? T(0) : sums[cell];
  for (unsigned left = cell < 0 ? 0 : peers; __any_sync(kFullMask, left != 0); left &= left - 1) {
    const T next = __shfl_sync(kFullMask, g, left == 0 ? 0 : __ffs(static_cast<int>(left)) - 1);
    if (left != 0) sum += next;
  }
  __syncwarp();
  if (cell >= 0 && static_cast<int>(threadIdx.x % 32) == __ffs(static_cast<int>(peers)) - 1) sums[cell] = sum;
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

// A warp adds the gradients [begin, end) whose maxima lie in the run.
template <DType kType, class T>
__device__ void add_bins(const Run& run, int64_t begin, int64_t end, const void* grad, const int32_t* argmax, T* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t bin = begin; bin < end; bin += 64) {
    int cell[2] = {-1, -1};
    T g[2] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (const int64_t at = bin + 32 * i + lane; at < end) {
        const unsigned pixel = static_cast<unsigned>(argmax[at]) - static_cast<unsigned>(run.first);
        if (pixel < static_cast<unsigned>(run.pixels)) cell[i] = static_cast<int>(pixel);
        g[i] = load<T>(grad, kType, at);
      }
    add_in_order(sums, cell[0], g[0]);
    if (bin + 32 < end) add_in_order(sums, cell[1], g[1]);
  }
}

// A warp adds the RoIs [begin, end): each lane finds the bins of one that may touch the run, then one is added after
// another.
template <DType kType, class T>
__device__ void add_rois(const Features& gradients, const Rois& rois, const Bins& bins, const Run& run, int64_t begin,
                         int64_t end, const void* grad, const int32_t* argmax, T* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t first = begin; first < end; first += 32) {
    Steps rows = {0, 0};
    if (first + lane < end) rows = rows_touching<T>(gradients, rois, bins, run, first + lane);
    for (unsigned left = __ballot_sync(kFullMask, rows.begin < rows.end); left != 0; left &= left - 1) {
      const int from = __ffs(static_cast<int>(left)) - 1;
      const int64_t base = ((first + from) * gradients.channels + run.channel) * bins.height * bins.width;
      add_bins<kType>(run, base + __shfl_sync(kFullMask, rows.begin, from) * bins.width,
                      base + __shfl_sync(kFullMask, rows.end, from) * bins.width, grad, argmax, sums);
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
