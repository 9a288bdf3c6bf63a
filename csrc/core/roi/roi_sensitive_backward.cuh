// The backward kernel of ps_roi_align and ps_roi_pool: deterministic without atomics, because each gradient is gathered
// by one thread.
//
//   channel   0 1 2 ... of bin 0 | 0 1 2 ... of bin 1 | ...    of the gradients: those of a bin have the same weights
//
//   warp      a tile of 8 x 8 pixels (roi_tiles.cuh) of up to 32 channels of one bin; a lane keeps all pixels of its
//             channel in registers
//   block     some such warps with one tile and different bins; they share
//   places      of a chunk of RoIs, one worked out by each thread
//   listed    those of them whose bin touches the warp's tile, in order: few
//   weights   of 32 listed, one by each lane; then one after another is added, lanes along the channels
#pragma once

#include "roi/roi_lists.cuh"
#include "roi/roi_tiles.cuh"

namespace boxops::cuda {
namespace {

template <class T>
constexpr int kBinWarps = sizeof(T) == 8 ? 2 : 4;  // of a block

template <Pooling pooling, class T>
struct SensitiveShared {
  static constexpr int kWarps = kBinWarps<T>, kThreads = kWarps * kLanes;
  int64_t rois[kThreads];  // of a chunk; -1: of another image
  Place<pooling, T> places[kThreads];
  uint8_t listed[kWarps][kThreads];
  alignas(16) T weights[kWarps][kLanes][2][kTile];  // along y and x: what the bin gives the tile's rows or columns
  uint8_t touched[kWarps][kLanes][2];               // a bit for each of these
  T sums[kWarps][kLanes][kLanes + 1];
};

// What a warp works on: `channels` of a bin from `first` on, of a tile.
struct BinJob {
  Tile tile;
  int p, q;
  int64_t first;
  int channels;
};

// A lane works out what the job's bin of a RoI gives the tile's rows and columns.
template <Pooling pooling, class T>
__device__ void load_bin_weights(const BinJob& job, const Bins& bins, const FeatureMap& map,
                                 const Place<pooling, T>& at, T (&weights)[2][kTile], uint8_t (&touched)[2]) {
  T factor;
  if constexpr (is_align(pooling)) {
    factor = T(1) / static_cast<T>(sample_count(at.y.samples, at.x.samples));
  } else {
    const Steps y = range_of<pooling, T>(at.y, job.p, bins.height, map.height);
    const Steps x = range_of<pooling, T>(at.x, job.q, bins.width, map.width);
    const T pixels = static_cast<T>(y.end - y.begin) * static_cast<T>(x.end - x.begin);
    factor = pixels > T(0) ? T(1) / pixels : T(0);
  }
  touched[0] = static_cast<uint8_t>(
      tile_weights<pooling, T>(at.y, job.p, bins.height, map.height, job.tile.y, factor, weights[0]));
  touched[1] =
      static_cast<uint8_t>(tile_weights<pooling, T>(at.x, job.q, bins.width, map.width, job.tile.x, T(1), weights[1]));
}

// Adds what bins give along x, times `weight`, to the rows of pixels that they touch.
template <class T>
__device__ void add_rows(unsigned touched, const T* weight, const T (&along)[kTile], T (&sum)[kTile][kTile]) {
#pragma unroll
  for (int y = 0; y < kTile; ++y)
    if (touched >> y & 1) {
      const T w = weight[y];
#pragma unroll
      for (int x = 0; x < kTile; ++x) sum[y][x] = std::fma(w, along[x], sum[y][x]);
    }
}

// Adds a bin's gradient to the sums of a lane's channel. A pixel that it does not touch has weight 0, which only a
// finite gradient may be multiplied with.
template <class T>
__device__ void add_bin(T g, const T (&weights)[2][kTile], const uint8_t (&touched)[2], T (&sum)[kTile][kTile]) {
  T along[kTile];
  const bool finite = std::fabs(g) <= std::numeric_limits<T>::max();
#pragma unroll
  for (int i = 0; i < kTile; ++i) along[i] = finite || touched[1] >> i & 1 ? weights[1][i] * g : T(0);
  add_rows(touched[0], weights[0], along, sum);
}

// Whether bin p of those from `start` on may touch pixels [low, low + kTile): cheap, and false for most that do not.
template <class T>
__device__ bool may_touch(T start, T bin, int p, int low) {
  const T a = start + static_cast<T>(p) * bin, b = start + static_cast<T>(p + 1) * bin;
  const T slack = (std::fabs(start) + std::fabs(b) + std::fabs(bin)) * (std::numeric_limits<T>::epsilon() * T(8));
  return max_of(a, b) + slack >= static_cast<T>(low - 1) && min_of(a, b) - slack <= static_cast<T>(low + kTile);
}
template <class T>
__device__ bool may_touch(const AlignAxis<T>& axis, int, int p, int low) {
  return axis.samples > 0 && may_touch(axis.start, axis.bin, p, low);
}
template <class T>
__device__ bool may_touch(const PoolAxis& axis, int bins, int p, int low) {
  return axis.length > 0 &&
         may_touch(static_cast<T>(axis.start), static_cast<T>(axis.length) / static_cast<T>(bins), p, low);
}

// A warp lists which of the chunk's n RoIs have their bin at the tile; returns how many.
template <Pooling pooling, class T>
__device__ int list_bins(const BinJob& job, const Bins& bins, int n, SensitiveShared<pooling, T>& shared) {
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  int listed = 0;
  for (int i = lane; i - lane < n; i += kLanes) {
    const bool touches = i < n && shared.rois[i] >= 0 &&
                         may_touch<T>(shared.places[i].y, static_cast<int>(bins.height), job.p, job.tile.y) &&
                         may_touch<T>(shared.places[i].x, static_cast<int>(bins.width), job.q, job.tile.x);
    const unsigned ballot = __ballot_sync(kFullMask, touches);
    if (touches) shared.listed[warp][listed + __popc(ballot & ((1u << lane) - 1))] = static_cast<uint8_t>(i);
    listed += __popc(ballot);
  }
  __syncwarp();
  return listed;
}

// A warp adds the listed bins, in order; the gradient of the next is on its way.
template <DType kType, Pooling pooling, class T>
__device__ void add_bins(const BinJob& job, const Bins& bins, const FeatureMap& map, int64_t channels, const void* grad,
                         int listed, SensitiveShared<pooling, T>& shared, T (&sum)[kTile][kTile]) {
  const int warp = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t bin = job.p * bins.width + job.q, area = bins.height * bins.width;
  const auto gradient_of = [&](int h) {
    if (h >= listed || lane >= job.channels) return T(0);
    return load<T>(grad, kType, (shared.rois[shared.listed[warp][h]] * channels + job.first + lane) * area + bin);
  };
  T next = gradient_of(0);
  for (int first = 0; first < listed; first += kLanes) {
    if (first + lane < listed)
      load_bin_weights(job, bins, map, shared.places[shared.listed[warp][first + lane]], shared.weights[warp][lane],
                       shared.touched[warp][lane]);
    __syncwarp();
    for (int h = first; h < min_of(first + kLanes, listed); ++h) {
      const T g = next;
      next = gradient_of(h + 1);
      add_bin(g, shared.weights[warp][h - first], shared.touched[warp][h - first], sum);
    }
    __syncwarp();
  }
}

// A warp stores its sums, of channels `step` apart from `at` on: 4 rows at a time go through shared memory, so that
// neighbouring lanes store neighbouring pixels.
template <class T, class Put>
__device__ void store_sums(const Tile& tile, const FeatureMap& map, int64_t at, int64_t step, int channels,
                           const T (&sum)[kTile][kTile], T (*shared)[kLanes + 1], Put put) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
#pragma unroll
  for (int top = 0; top < kTile; top += kLanes / kTile) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kLanes; ++i) shared[lane][i] = sum[top + i / kTile][i % kTile];
    __syncwarp();
    const int64_t y = tile.y + top + lane / kTile, x = tile.x + lane % kTile;
    if (y < map.height && x < map.width)
      for (int c = 0; c < channels; ++c) put(at + c * step + y * map.y_stride + x * map.x_stride, shared[c][lane]);
  }
  __syncwarp();
}

// Block (tile, bins): see above. `channels` are grad's, of one bin.
template <Pooling pooling, class T, DType kType>
__global__ void __launch_bounds__(kBinWarps<T>* kLanes, 4)
    sensitive_backward_kernel(Features gradients, Rois rois, Bins bins, int64_t channels, int64_t tiles,
                              Lists<pooling, T> lists, const void* grad) {
  using Shared = SensitiveShared<pooling, T>;
  __shared__ Shared shared;
  const int t = static_cast<int>(threadIdx.x), warp = t / kLanes;
  const FeatureMap& map = gradients.level[0];
  const int64_t across = blocks_of(channels, kLanes), area = bins.height * bins.width, groups = area * across;
  for (int64_t index = blockIdx.x; index < tiles; index += gridDim.x)
    for (int64_t first = int64_t(blockIdx.y) * Shared::kWarps; first < groups; first += gridDim.y * Shared::kWarps) {
      const int64_t group = first + warp, bin = group / across;
      BinJob job = {locate(gradients, index), static_cast<int>(bin / bins.width), static_cast<int>(bin % bins.width),
                    group % across * kLanes, 0};
      if (group < groups) job.channels = static_cast<int>(min_of<int64_t>(kLanes, channels - job.first));
      T sum[kTile][kTile] = {};
      const Range range = rois_of(rois, lists, job.tile.image);
      for (int64_t chunk = range.begin; chunk < range.end; chunk += Shared::kThreads) {
        const int n = static_cast<int>(min_of<int64_t>(Shared::kThreads, range.end - chunk));
        if (t < n)
          shared.rois[t] = find_roi(gradients, rois, bins, lists, job.tile.image, chunk + t, shared.places + t);
        __syncthreads();
        if (job.channels > 0)
          add_bins<kType>(job, bins, map, channels, grad, list_bins(job, bins, n, shared), shared, sum);
        __syncthreads();
      }
      store_sums(job.tile, map, job.tile.image * map.image_stride + (job.first * area + bin) * map.channel_stride,
                 area * map.channel_stride, job.channels, sum, shared.sums[warp],
                 [&](int64_t at, T value) { store(map.data, kType, at, value); });
    }
}

template <Pooling pooling, class T>
struct SensitiveCut {
  static constexpr int kWarps = kBinWarps<T>;
  int64_t tiles, channels, groups;  // blocks: tiles by groups
  SensitiveCut(const Features& gradients, const Bins& bins)
      : tiles(tiles_of(gradients.level[0]) * gradients.images),
        channels(gradients.channels / (bins.height * bins.width)),
        groups(blocks_of(blocks_of(channels, kLanes) * bins.height * bins.width, kWarps)) {}
};

template <Pooling pooling, class T>
int sensitive_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients, void* workspace,
                       void* stream) {
  Workspace w(workspace);
  const SensitiveCut<pooling, T> cut(gradients, bins);
  const Lists<pooling, T> lists(w, gradients, rois.count, cut.tiles * cut.groups);
  BOXOPS_TRY(list_rois(gradients, rois, bins, lists, Parts(), stream));
  return with_storage<T>(gradients.dtype, [&](auto type) {
    return launch(sensitive_backward_kernel<pooling, T, type()>, dim3(grid_x(cut.tiles), grid_yz(cut.groups)),
                  kBinWarps<T> * kLanes, stream, gradients, rois, bins, cut.channels, cut.tiles, lists, grad);
  });
}

template <Pooling pooling, class T>
size_t sensitive_backward_workspace(const Features& gradients, const Rois& rois, const Bins& bins) {
  Workspace w(nullptr);
  const SensitiveCut<pooling, T> cut(gradients, bins);
  const Lists<pooling, T> lists(w, gradients, rois.count, cut.tiles * cut.groups);
  return w.used();
}

}  // namespace
}  // namespace boxops::cuda
