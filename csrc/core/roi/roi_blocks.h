// What the CPU kernels work on: RoIs by the map they lie on, pixels in blocks of channels, and tiles of bins.
//
// Vector loops run over channels. A block is B channels of some pixels, [pixels][B]; a tile is B channels of some bins,
// [bins][B]. B is 1 for few channels (then nothing is copied), or one or two packs of 64 bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

#include <boxops/roi.h>
#include "common/blocks.h"
#include "common/isa.h"
#include "roi/roi_bins.h"

namespace boxops::cpu {

// Storage types that convert as load() and store() do.
struct Half {
  uint16_t bits;
  Half() = default;
  explicit Half(float value) : bits(detail::float_to_half(value)) {}
  explicit operator float() const { return detail::half_to_float(bits); }
};
struct BFloat16 {
  uint16_t bits;
  BFloat16() = default;
  explicit BFloat16(float value) : bits(detail::float_to_bfloat16(value)) {}
  explicit operator float() const { return detail::bfloat16_to_float(bits); }
};

// Calls f with a null pointer to the storage type, one of those that compute in T.
template <class T, class F>
void with_storage(DType dtype, F&& f) {
  if constexpr (sizeof(T) == 8) return f(static_cast<double*>(nullptr));
  else if (dtype == DType::kFloat16) return f(static_cast<Half*>(nullptr));
  else if (dtype == DType::kBFloat16) return f(static_cast<BFloat16*>(nullptr));
  else return f(static_cast<float*>(nullptr));
}

template <class T>
constexpr int kPack = 64 / sizeof(T);

// Calls f with the number of channels of a block as a constant.
template <class T, class F>
void with_block(int64_t channels, F&& f) {
  if (channels <= 4) return f(std::integral_constant<int, 1>());
  if (channels <= kPack<T>) return f(std::integral_constant<int, kPack<T>>());
  return f(std::integral_constant<int, 2 * kPack<T>>());
}

// RoIs of one image and level, in their order.
struct Group {
  int64_t image, level;
  const int64_t* rois;
  int64_t count;
};

// All groups, those without RoIs too; a RoI of no image is in none.
struct Groups {
  std::vector<int64_t> order;
  std::vector<Group> groups;

  template <class T>
  static Groups of(const Features& features, const Rois& rois) {
    Groups g;
    const int64_t maps = features.images * features.levels;
    std::vector<int64_t> map(rois.count), begin(maps + 2, 0);
    for (int64_t k = 0; k < rois.count; ++k) {
      const int64_t image = image_of(rois, k, features.images);
      map[k] = image < 0 ? maps : level_of(features, roi_box<T>(rois, k)) * features.images + image;
      ++begin[map[k] + 1];
    }
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    g.order.resize(rois.count);
    std::vector<int64_t> at(begin);
    for (int64_t k = 0; k < rois.count; ++k) g.order[at[map[k]]++] = k;
    for (int64_t m = 0; m < maps; ++m)
      g.groups.push_back(
          {m % features.images, m / features.images, g.order.data() + begin[m], begin[m + 1] - begin[m]});
    return g;
  }
};

// The rows and columns of pixels that a RoI reads, rising, and how many pixels its bins read in all.
struct Footprint {
  std::vector<int32_t> rows, columns;
  int64_t work = 0;
  int64_t pixels() const { return static_cast<int64_t>(rows.size() * columns.size()); }
};

struct Hull {
  int32_t top = INT32_MAX, bottom = -1, left = INT32_MAX, right = -1;
  void add(const Footprint& f) {
    if (f.pixels() == 0) return;
    top = std::min(top, f.rows.front()), bottom = std::max(bottom, f.rows.back());
    left = std::min(left, f.columns.front()), right = std::max(right, f.columns.back());
  }
  int64_t height() const { return std::max<int64_t>(0, int64_t(bottom) - top + 1); }
  int64_t width() const { return std::max<int64_t>(0, int64_t(right) - left + 1); }
};

inline void fill_range(std::vector<int32_t>& out, int64_t begin, int64_t count) {
  out.resize(count);
  std::iota(out.begin(), out.end(), static_cast<int32_t>(begin));
}

// Pixels of `channels` channels as a block [rows][columns][B]; channels beyond are 0.
template <int B, class S, class T>
void copy_block(const S* from, const FeatureMap& map, int64_t channels, const std::vector<int32_t>& rows,
                const std::vector<int32_t>& columns, T* to) {
  const int64_t n = static_cast<int64_t>(columns.size());
  for (const int32_t row : rows) {
    const S* line = from + row * map.y_stride;
    if (channels < B) std::fill_n(to, n * B, T(0));
    if (map.channel_stride == 1) {
      for (int64_t j = 0; j < n; ++j) {
        const S* pixel = line + columns[j] * map.x_stride;
        for (int64_t c = 0; c < channels; ++c) to[j * B + c] = static_cast<T>(pixel[c]);
      }
    } else {
      for (int64_t c = 0; c < channels; ++c) {
        const S* plane = line + c * map.channel_stride;
        for (int64_t j = 0; j < n; ++j) to[j * B + c] = static_cast<T>(plane[columns[j] * map.x_stride]);
      }
    }
    to += n * B;
  }
}

// A tile as rows of bins, one per channel, and back.
template <int B, class T, class S>
void store_tile(const T* tile, int64_t bins, int64_t channels, S* out, int64_t stride) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t b = 0; b < bins; ++b) out[c * stride + b] = static_cast<S>(tile[b * B + c]);
}
template <int B, class S, class T>
void load_tile(const S* from, int64_t stride, int64_t bins, int64_t channels, T* tile) {
  if (channels < B) std::fill_n(tile, bins * B, T(0));
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t b = 0; b < bins; ++b) tile[b * B + c] = static_cast<T>(from[c * stride + b]);
}

// Bin rows per tile, so that a tile stays in the first-level cache.
inline int64_t tile_rows(const Bins& bins) { return std::clamp<int64_t>(256 / bins.width, 1, bins.height); }

// Where the rows and columns of a footprint lie in a block, in elements.
struct Offsets {
  std::vector<int64_t> rows, columns;
  void set(const Footprint& f, int64_t top, int64_t left, int64_t row_stride, int64_t column_stride) {
    rows.resize(f.rows.size()), columns.resize(f.columns.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = (f.rows[i] - top) * row_stride;
    for (size_t i = 0; i < columns.size(); ++i) columns[i] = (f.columns[i] - left) * column_stride;
  }
  void set_dense(const Footprint& f, int64_t block) {  // the footprint alone was copied
    rows.resize(f.rows.size()), columns.resize(f.columns.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i * columns.size()) * block;
    for (size_t i = 0; i < columns.size(); ++i) columns[i] = static_cast<int64_t>(i) * block;
  }
};

// Memory of one thread for a tile of T, and one of indices as wide.
template <class T>
class Tiles {
 public:
  T* of(int64_t n) {
    if (static_cast<int64_t>(memory_.size()) < 2 * n) memory_.resize(2 * n);
    return memory_.data();
  }
  template <class Index>
  Index* second() {
    static_assert(sizeof(Index) == sizeof(T));
    return reinterpret_cast<Index*>(memory_.data() + memory_.size() / 2);
  }

 private:
  std::vector<T> memory_;
};

// Zeros for RoIs of images that do not exist; checked ops have none.
inline void fill_without_image(const Features& features, const Rois& rois, int64_t bins, void* out, int32_t* argmax) {
  const int64_t n = features.channels * bins, bytes = n * size_of(features.dtype);
  for (int64_t k = 0; k < rois.count; ++k) {
    if (image_of(rois, k, features.images) >= 0) continue;
    std::memset(static_cast<char*>(out) + k * bytes, 0, bytes);
    if (argmax != nullptr) std::fill_n(argmax + k * n, n, -1);
  }
}

// The costs on one core: of a RoI's plan, and of a channel of a pixel read or written, alone and in a vector.
constexpr double kPlanNs = 1000, kPixelNs = 1, kVectorPixelNs = 0.1;

// One plane of the gradient as sums of T that start at 0: the plane itself, or memory to be rounded into it.
template <class T, class S>
class PlaneSums {
 public:
  T* begin(S* plane, int64_t pixels) {
    plane_ = plane, pixels_ = pixels;
    if constexpr (std::is_same_v<T, S>) {
      std::fill_n(plane, pixels, T(0));
      return plane;
    } else {
      memory_.assign(pixels, T(0));
      return memory_.data();
    }
  }
  void end() {
    if constexpr (!std::is_same_v<T, S>)
      for (int64_t i = 0; i < pixels_; ++i) plane_[i] = static_cast<S>(memory_[i]);
  }

 private:
  std::vector<T> memory_;
  S* plane_;
  int64_t pixels_;
};

}  // namespace boxops::cpu
