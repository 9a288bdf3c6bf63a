// The forward kernels: a block pools one RoI for a group of channels. What it needs to know of the RoI (the pixels of
// each bin along y and along x and their weights) it works out once, into shared memory.
//
// planar_kernel (NCHW, and any strides): neighbouring threads compute neighbouring bins, so that stores fill lines and
// loads stay in the few lines that a RoI's row spans; a thread computes one bin of 4 channels, to have 4 loads in
// flight. nhwc_kernel (channels last): neighbouring threads compute neighbouring channels of one bin, 4 each with one
// vector load where alignment allows it, so that loads fill lines; results go through shared memory to be stored as
// NCHW.
#pragma once

#include "roi/roi_cuda.cuh"

namespace boxops::cuda {
namespace {

constexpr int kTaps = 1024;      // pixels that a RoI's bins read along y plus along x
constexpr int kTableBins = 256;  // bins along y plus along x

template <class T>
struct alignas(2 * sizeof(T)) Tap {
  int32_t offset;  // pixel times its stride
  T weight;
};

// Whether the elements of a channel's plane are less than 2^31 apart: others are views into 8 GB and more.
__device__ inline bool has_short_offsets(const FeatureMap& m) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  const int64_t y = m.y_stride < 0 ? -m.y_stride : m.y_stride, x = m.x_stride < 0 ? -m.x_stride : m.x_stride;
  return y <= kMax && x <= kMax && m.height * y <= kMax - m.width * x;
}

// Bilinear sums are separable: a bin's samples along each axis collapse to its pixels and their summed weights, where
// neighbouring samples share pixels. With one sample per pixel this reads (r + 1)^2 pixels instead of 4 r^2.
template <Pooling pooling, class T>
struct AlignTable {
  static constexpr bool kHasIndex = false;
  Tap<T> taps[kTaps];
  int counts[kTableBins];

  // A thread lists the pixels of one bin along one axis. False: there are more than the table holds.
  __device__ bool fill(const Place<pooling, T>& at, const FeatureMap& map, const Bins& bins) {
    const int height = static_cast<int>(bins.height), total = height + static_cast<int>(bins.width);
    if (total > kTableBins || 2 * (at.y.samples * bins.height + at.x.samples * bins.width) > kTaps) return false;
    if (!has_short_offsets(map)) return false;
    for (int i = threadIdx.x; i < total; i += blockDim.x) {
      const bool is_y = i < height;
      const AlignAxis<T> axis = is_y ? at.y : at.x;
      const int64_t extent = is_y ? map.height : map.width;
      const int32_t stride = static_cast<int32_t>(is_y ? map.y_stride : map.x_stride);
      Tap<T>* to = taps + first_of(at, height, i);
      int count = 0;
      Sample<T> open = {-2, -2, T(0), T(0)};  // the last pixels, still collecting
      const auto close = [&](int32_t pixel, T weight) { to[count++] = {pixel * stride, weight}; };
      const int p = is_y ? i : i - height;
      const Steps near = samples_within(axis, p, T(-1), static_cast<T>(extent));
#pragma unroll 1
      for (int j = near.begin; j < near.end; ++j) {
        Sample<T> s;
        if (!sample_at(axis, p, j, extent, &s)) continue;
        if (s.low == open.low) {
          open.low_weight += s.low_weight, open.high_weight += s.high_weight;
          open.high = max_of(open.high, s.high);
          continue;
        }
        if (open.low >= 0) close(open.low, open.low_weight);
        if (s.low == open.high) s.low_weight += open.high_weight;
        else if (open.high > open.low) close(open.high, open.high_weight);
        open = s;
      }
      if (open.low >= 0) close(open.low, open.low_weight);
      if (open.high > open.low) close(open.high, open.high_weight);
      counts[i] = count;
    }
    return true;
  }

  __device__ static int first_of(const Place<pooling, T>& at, int height, int i) {
    return i < height ? 2 * at.y.samples * i : 2 * (at.y.samples * height + at.x.samples * (i - height));
  }

  // Pools bin (p, q) of kWidth channels; read(offset, values) reads them at a pixel.
  template <int kWidth, class Read>
  __device__ void pool(bool listed, const Place<pooling, T>& at, const FeatureMap& map, const Bins& bins, int p, int q,
                       Read read, T (&out)[kWidth], int32_t (&)[kWidth]) const {
    for (T& value : out) value = T(0);
    if (listed) {
      const int height = static_cast<int>(bins.height), rows = counts[p], columns = counts[height + q];
      const Tap<T>*y = taps + first_of(at, height, p), *x = taps + first_of(at, height, height + q);
      for (int i = 0; i < rows; ++i) {
        const Tap<T> row = y[i];
        T sum[kWidth] = {};
#pragma unroll 2
        for (int j = 0; j < columns; ++j) {
          const Tap<T> column = x[j];
          T value[kWidth];
          read(row.offset + column.offset, value);
#pragma unroll
          for (int w = 0; w < kWidth; ++w) sum[w] += column.weight * value[w];
        }
#pragma unroll
        for (int w = 0; w < kWidth; ++w) out[w] += row.weight * sum[w];
      }
    } else {  // sample by sample
      const Steps rows = samples_within(at.y, p, T(-1), static_cast<T>(map.height));
      const Steps columns = samples_within(at.x, q, T(-1), static_cast<T>(map.width));
#pragma unroll 1
      for (int i = 2 * rows.begin; i < 2 * rows.end; ++i) {
        Sample<T> y, x;
        if (!sample_at(at.y, p, i / 2, map.height, &y) || (i % 2 == 1 && y.high == y.low)) continue;
        const int64_t row = (i % 2 == 0 ? y.low : y.high) * map.y_stride;
        T sum[kWidth] = {}, value[kWidth];
#pragma unroll 1
        for (int j = 2 * columns.begin; j < 2 * columns.end; ++j) {
          if (!sample_at(at.x, q, j / 2, map.width, &x) || (j % 2 == 1 && x.high == x.low)) continue;
          read(row + (j % 2 == 0 ? x.low : x.high) * map.x_stride, value);
          for (int w = 0; w < kWidth; ++w) sum[w] += (j % 2 == 0 ? x.low_weight : x.high_weight) * value[w];
        }
        for (int w = 0; w < kWidth; ++w) out[w] += (i % 2 == 0 ? y.low_weight : y.high_weight) * sum[w];
      }
    }
    const T scale = T(1) / static_cast<T>(sample_count(at.y.samples, at.x.samples));
#pragma unroll
    for (int w = 0; w < kWidth; ++w) out[w] *= scale;
  }
};

// roi_pool and ps_roi_pool: the pixels of each bin along each axis are a range.
template <Pooling pooling, class T>
struct RangeTable {
  static constexpr bool kHasIndex = pooling == Pooling::kMax;
  Steps ranges[kTableBins];

  // A thread finds the range of one bin along one axis. False: there are more bins than the table holds.
  __device__ bool fill(const Place<pooling, T>& at, const FeatureMap& map, const Bins& bins) {
    const int height = static_cast<int>(bins.height), total = height + static_cast<int>(bins.width);
    if (total > kTableBins) return false;
    for (int i = threadIdx.x; i < total; i += blockDim.x)
      ranges[i] = i < height ? range_of<pooling, T>(at.y, i, bins.height, map.height)
                             : range_of<pooling, T>(at.x, i - height, bins.width, map.width);
    return true;
  }

  template <int kWidth, class Read>
  __device__ void pool(bool listed, const Place<pooling, T>& at, const FeatureMap& map, const Bins& bins, int p, int q,
                       Read read, T (&out)[kWidth], int32_t (&index)[kWidth]) const {
    const Steps y = listed ? ranges[p] : range_of<pooling, T>(at.y, p, bins.height, map.height);
    const Steps x = listed ? ranges[bins.height + q] : range_of<pooling, T>(at.x, q, bins.width, map.width);
    const bool has_pixels = y.begin < y.end && x.begin < x.end;
    const int32_t columns = static_cast<int32_t>(map.width), first = has_pixels ? y.begin * columns + x.begin : -1;
    for (int w = 0; w < kWidth; ++w) {
      out[w] = kHasIndex && has_pixels ? -std::numeric_limits<T>::infinity() : T(0);
      index[w] = first;
    }
    for (int i = y.begin; i < y.end; ++i) {
      const int64_t row = i * map.y_stride;
#pragma unroll 2
      for (int j = x.begin; j < x.end; ++j) {
        T value[kWidth];
        read(row + j * map.x_stride, value);
#pragma unroll
        for (int w = 0; w < kWidth; ++w) {
          if constexpr (kHasIndex) {  // larger, or the first NaN
            if (!(value[w] <= out[w]) && out[w] == out[w]) out[w] = value[w], index[w] = i * columns + j;
          } else {
            out[w] += value[w];
          }
        }
      }
    }
    if constexpr (!kHasIndex) {
      const T area = static_cast<T>(y.end - y.begin) * static_cast<T>(x.end - x.begin);
      if (has_pixels)
        for (int w = 0; w < kWidth; ++w) out[w] = out[w] / area;
    }
  }
};

template <Pooling pooling, class T>
using TableOf = std::conditional_t<is_align(pooling), AlignTable<pooling, T>, RangeTable<pooling, T>>;

// What all threads of a block know of their RoI: image < 0 where there is none.
template <Pooling pooling, class T>
struct Region {
  int64_t image;
  int level;
  Place<pooling, T> at;
};

template <Pooling pooling, class T>
__device__ Region<pooling, T> region_of(const Features& features, const Rois& rois, const Bins& bins, int64_t k) {
  const Box<T> box = roi_box<T>(rois, k);
  Region<pooling, T> r;
  r.image = image_of(rois, k, features.images);
  r.level = level_of(features, box);
  r.at = place_of<pooling>(features.level[r.level], box, bins);
  if (r.image < 0) {  // no such image: nothing is read
    if constexpr (is_align(pooling)) r.at.y.samples = r.at.x.samples = 0;
    else r.at.y.length = r.at.x.length = 0;
  }
  return r;
}

constexpr int kPlanarThreads = 256, kPlanarWidth = 4;
template <Pooling pooling, class T>
constexpr int kPlanarBlocks = sizeof(T) == 4      ? 4
                              : is_align(pooling) ? 2
                                                  : 3;  // of an SM: caps the registers

// Block (k, g): RoI k, `group` output channels. Thread: one bin of kPlanarWidth channels, then the kPlanarThreads-th
// on.
template <Pooling pooling, class T, DType kType>
__global__ void __launch_bounds__(kPlanarThreads, kPlanarBlocks<pooling, T>)
    planar_kernel(Features features, Rois rois, Bins bins, int64_t channels, int64_t group, void* out,
                  int32_t* argmax) {
  using Table = TableOf<pooling, T>;
  __shared__ Table table;
  const int height = static_cast<int>(bins.height), width = static_cast<int>(bins.width);
  const int64_t area = bins.height * bins.width;
  const int step_q = kPlanarThreads % width, step_p = kPlanarThreads / width % height;
  const int step_quad = kPlanarThreads / width / height;
  for (int64_t k = blockIdx.x; k < rois.count; k += gridDim.x) {
    const Region<pooling, T> r = region_of<pooling, T>(features, rois, bins, k);
    const FeatureMap& map = features.level[r.level];
    __syncthreads();  // the table of the RoI before has been used
    const bool listed = table.fill(r.at, map, bins);
    __syncthreads();
    for (int64_t first = blockIdx.y * group; first < channels; first += gridDim.y * group) {
      const int64_t last = min_of(first + group, channels);
      const int t = static_cast<int>(threadIdx.x);
      int q = t % width, p = t / width % height;
      int64_t channel = first + t / width / height * kPlanarWidth;
      while (channel < last) {
        const int64_t bin = int64_t(p) * width + q;
        const int64_t step = is_sensitive(pooling) ? area * map.channel_stride : map.channel_stride;
        const int64_t from = max_of<int64_t>(r.image, 0) * map.image_stride + channel * step +
                             (is_sensitive(pooling) ? bin * map.channel_stride : 0);
        const unsigned char* planes[kPlanarWidth];  // behind the last channel it is read again
#pragma unroll
        for (int w = 0; w < kPlanarWidth; ++w)
          planes[w] = static_cast<const unsigned char*>(map.data) +
                      (from + min_of<int64_t>(w, last - channel - 1) * step) * storage_bytes(kType);
        T value[kPlanarWidth];
        int32_t index[kPlanarWidth];
        table.pool(
            listed, r.at, map, bins, p, q,
            [&](auto offset, T(&values)[kPlanarWidth]) {
#pragma unroll
              for (int w = 0; w < kPlanarWidth; ++w) values[w] = load<T>(planes[w], kType, offset);
            },
            value, index);
#pragma unroll
        for (int w = 0; w < kPlanarWidth; ++w) {
          if (channel + w >= last) break;
          const int64_t to = (k * channels + channel + w) * area + bin;
          store(out, kType, to, value[w]);
          if (Table::kHasIndex && argmax != nullptr) argmax[to] = index[w];
        }
        q += step_q, p += step_p, channel += step_quad * kPlanarWidth;
        if (q >= width) q -= width, ++p;
        if (p >= height) p -= height, channel += kPlanarWidth;
      }
    }
  }
}

constexpr int kNhwcThreads = 128, kNhwcBins = 64;  // bins that go through shared memory at a time
template <class T>
constexpr int kNhwcChannels = sizeof(T) == 8 ? 32 : 64;

// Of numbers and not of bytes, which the compiler would take apart and glue together again.
template <int bytes, int n>
struct alignas(bytes* n) Vector {
  std::conditional_t<bytes == 2, uint16_t, std::conditional_t<bytes == 4, float, double>> data[n];
};

template <Pooling pooling, class T, int kWidth>
struct NhwcShared {
  using Table = TableOf<pooling, T>;
  static constexpr int kChannels = kNhwcChannels<T>, kPitch = kChannels + kWidth;  // no two lanes on one bank
  Table table;
  Vector<sizeof(T), kWidth> results[kNhwcBins * kPitch / kWidth];
  int32_t indices[Table::kHasIndex ? kNhwcBins * (kChannels + 1) : 1];
};

// Pools the n bins from `bin` on into shared memory. Thread: kWidth of the channels from `first` on, of every
// kNhwcThreads kWidth / kChannels-th bin.
template <DType kType, int kWidth, Pooling pooling, class T>
__device__ void pool_bins(const Region<pooling, T>& r, const FeatureMap& map, const Bins& bins, bool listed,
                          int64_t first, int64_t channels, int64_t bin, int n, NhwcShared<pooling, T, kWidth>& shared) {
  using Shared = NhwcShared<pooling, T, kWidth>;
  constexpr int kLanes = Shared::kChannels / kWidth, kElement = storage_bytes(kType);
  const int t = static_cast<int>(threadIdx.x), width = static_cast<int>(bins.width), lane = t % kLanes * kWidth;
  const auto* from = static_cast<const unsigned char*>(map.data) +
                     (max_of<int64_t>(r.image, 0) * map.image_stride + first + lane) * kElement;
  int q = static_cast<int>((bin + t / kLanes) % width), p = static_cast<int>((bin + t / kLanes) / width);
  for (int b = t / kLanes; b < n && first + lane < channels; b += kNhwcThreads / kLanes) {
    T value[kWidth];
    int32_t index[kWidth];
    shared.table.pool(
        listed, r.at, map, bins, p, q,
        [&](auto offset, T(&values)[kWidth]) {
          const auto raw =
              *reinterpret_cast<const Vector<kElement, kWidth>*>(from + static_cast<int64_t>(offset) * kElement);
#pragma unroll
          for (int w = 0; w < kWidth; ++w) values[w] = load<T>(raw.data, kType, w);
        },
        value, index);
    memcpy(&shared.results[(b * Shared::kPitch + lane) / kWidth], value, sizeof(value));
    if constexpr (Shared::Table::kHasIndex)
      for (int w = 0; w < kWidth; ++w) shared.indices[b * (Shared::kChannels + 1) + lane + w] = index[w];
    for (q += kNhwcThreads / kLanes; q >= width; q -= width) ++p;
  }
}

// Stores them as NCHW. Thread: kWidth channels of one bin at a time, neighbours neighbouring bins.
template <DType kType, int kWidth, Pooling pooling, class T>
__device__ void store_bins(int64_t k, int64_t first, int64_t channels, int64_t bin, int n, int64_t area,
                           const NhwcShared<pooling, T, kWidth>& shared, void* out, int32_t* argmax) {
  using Shared = NhwcShared<pooling, T, kWidth>;
  const int lanes = static_cast<int>(min_of<int64_t>(Shared::kChannels, channels - first) + kWidth - 1) / kWidth;
  for (int i = static_cast<int>(threadIdx.x); i < n * lanes; i += kNhwcThreads) {
    const int b = i % n, c = i / n * kWidth;
    T value[kWidth];
    memcpy(value, &shared.results[(b * Shared::kPitch + c) / kWidth], sizeof(value));
#pragma unroll
    for (int w = 0; w < kWidth; ++w) {
      const int64_t to = (k * channels + first + c + w) * area + bin + b;
      store(out, kType, to, value[w]);
      if (Shared::Table::kHasIndex && argmax != nullptr)
        argmax[to] = shared.indices[b * (Shared::kChannels + 1) + c + w];
    }
  }
}

// Block (k, g): RoI k, kNhwcChannels channels.
template <Pooling pooling, class T, DType kType, int kWidth>
__global__ void __launch_bounds__(kNhwcThreads)
    nhwc_kernel(Features features, Rois rois, Bins bins, int64_t channels, void* out, int32_t* argmax) {
  using Shared = NhwcShared<pooling, T, kWidth>;
  __shared__ Shared shared;
  constexpr int kChannels = Shared::kChannels;
  const int64_t area = bins.height * bins.width;
  for (int64_t k = blockIdx.x; k < rois.count; k += gridDim.x) {
    const Region<pooling, T> r = region_of<pooling, T>(features, rois, bins, k);
    const FeatureMap& map = features.level[r.level];
    __syncthreads();  // the table of the RoI before has been used
    const bool listed = shared.table.fill(r.at, map, bins);
    __syncthreads();
    for (int64_t first = int64_t(blockIdx.y) * kChannels; first < channels; first += int64_t(gridDim.y) * kChannels)
      for (int64_t bin = 0; bin < area; bin += kNhwcBins) {
        const int n = static_cast<int>(min_of<int64_t>(kNhwcBins, area - bin));
        pool_bins<kType>(r, map, bins, listed, first, channels, bin, n, shared);
        __syncthreads();
        store_bins<kType>(k, first, channels, bin, n, area, shared, out, argmax);
        __syncthreads();
      }
  }
}

// Whether all levels are channels last, and then whether groups of 4 channels can be read as one vector.
inline bool is_channels_last(const Features& f) {
  for (int l = 0; l < f.levels; ++l)
    if (f.level[l].channel_stride != 1 || f.level[l].x_stride == 1) return false;
  return f.channels >= 4;
}
inline bool is_aligned(const Features& f) {
  bool aligned = f.channels % 4 == 0;
  for (int l = 0; l < f.levels; ++l) {
    const FeatureMap& m = f.level[l];
    aligned = aligned && reinterpret_cast<uintptr_t>(m.data) % (4 * size_of(f.dtype)) == 0 && m.image_stride % 4 == 0 &&
              m.y_stride % 4 == 0 && m.x_stride % 4 == 0;
  }
  return aligned;
}

template <Pooling pooling, class T>
int forward(const Features& features, const Rois& rois, const Bins& bins, void* out, int32_t* argmax, void* stream) {
  const int64_t area = bins.height * bins.width, channels = features.channels / (is_sensitive(pooling) ? area : 1);
  return with_storage<T>(features.dtype, [&](auto type) -> int {
    if constexpr (!is_sensitive(pooling)) {
      if (is_channels_last(features)) {
        const dim3 grid(grid_x(rois.count), grid_yz(blocks_of(channels, kNhwcChannels<T>)));
        const auto kernel =
            is_aligned(features) ? nhwc_kernel<pooling, T, type(), 4> : nhwc_kernel<pooling, T, type(), 1>;
        return launch(kernel, grid, kNhwcThreads, stream, features, rois, bins, channels, out, argmax);
      }
    }
    // Many channels share the table of a block, but few RoIs should still fill the device.
    int64_t group = 256;
    while (group > 16 && rois.count * blocks_of(channels, group) < 1024) group /= 2;
    return launch(planar_kernel<pooling, T, type()>, dim3(grid_x(rois.count), grid_yz(blocks_of(channels, group))),
                  kPlanarThreads, stream, features, rois, bins, channels, group, out, argmax);
  });
}

}  // namespace
}  // namespace boxops::cuda
