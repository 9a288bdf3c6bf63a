#include "roi/roi_loops.h"

namespace boxops {
namespace {

// Indices as wide as T, so that comparisons of T select them.
template <class T>
using IndexOf = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;

struct PoolPlan : cpu::Footprint {
  std::vector<PixelRange> y, x;
  int64_t top() const { return rows.front(); }
  int64_t left() const { return columns.front(); }

  template <class T>
  void make(const FeatureMap& map, const Box<T>& box, const Bins& bins) {
    const T scale = static_cast<T>(map.scale);
    work = set(pool_axis(box.y1, box.y2, scale, true), T(), bins.height, map.height, y, rows) *
           set(pool_axis(box.x1, box.x2, scale, true), T(), bins.width, map.width, x, columns);
  }

 private:
  template <class T>
  static int64_t set(const PoolAxis& axis, T, int64_t bins, int64_t extent, std::vector<PixelRange>& ranges,
                     std::vector<int32_t>& pixels) {
    int64_t begin = extent, end = 0, sum = 0;
    for (int64_t p = 0; p < bins; ++p) {
      const PixelRange range = pool_range<T>(axis, p, bins, extent);
      ranges.push_back(range);
      if (range.begin >= range.end) continue;
      begin = std::min(begin, range.begin), end = std::max(end, range.end), sum += range.end - range.begin;
    }
    cpu::fill_range(pixels, begin, std::max<int64_t>(0, end - begin));
    return sum;
  }
};

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "roi/roi_pool_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

template <class T>
void max_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, int32_t* argmax,
              const Parallel& parallel) {
  const Groups groups = Groups::of<T>(features, rois);
  std::vector<PoolPlan> plans(rois.count);
  parallel.share(rois.count, kPlanNs, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) plans[k].make(features.level[0], roi_box<T>(rois, k), bins);
  });
  const int64_t count = bins.height * bins.width, height = tile_rows(bins), width = features.level[0].width;
  fill_without_image(features, rois, count, out, argmax);
  for_each_block<T>(features, rois, groups, plans, parallel,
                    [&](auto block, const PoolPlan& plan, const Offsets& offsets, const T* pixels, int64_t k,
                        int64_t first, int64_t channels, Tiles<T>& tiles) {
                      constexpr int B = decltype(block)::value;
                      T* tile = tiles.of(height * bins.width * B);
                      IndexOf<T>* indices = tiles.template second<IndexOf<T>>();
                      const auto kernel =
                          argmax ? BOXOPS_BY_ISA(max_rows<T, B, true>) : BOXOPS_BY_ISA(max_rows<T, B, false>);
                      for (int64_t p = 0; p < bins.height; p += height) {
                        const int64_t end = std::min(p + height, bins.height), n = (end - p) * bins.width;
                        kernel(plan, p, end, offsets.rows.data(), offsets.columns.data(), pixels, width, tile, indices);
                        const int64_t at = (k * features.channels + first) * count + p * bins.width;
                        with_storage<T>(features.dtype, [&](auto storage) {
                          store_tile<B>(tile, n, channels, static_cast<decltype(storage)>(out) + at, count);
                        });
                        if (argmax) store_tile<B>(indices, n, channels, argmax + at, count);
                      }
                    });
}

// Threads own planes of the gradient and add up the RoIs of their image in order.
template <class T>
void max_pool_backward(const void* grad, const int32_t* argmax, const Rois& rois, const Bins& bins,
                       const Features& gradients, const Parallel& parallel) {
  const Groups groups = Groups::of<T>(gradients, rois);
  const FeatureMap& map = gradients.level[0];
  const int64_t count = bins.height * bins.width, plane = map.height * map.width, channels = gradients.channels;
  with_storage<T>(gradients.dtype, [&](auto storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    const int64_t work = plane / 4 + rois.count / std::max<int64_t>(gradients.images, 1) * count;
    parallel.share(gradients.images * channels, kPixelNs * work, [&](int64_t begin, int64_t end) {
      PlaneSums<T, S> memory;
      for (int64_t item = begin; item < end; ++item) {
        const Group& group = groups.groups[item / channels];
        T* sums = memory.begin(static_cast<S*>(map.data) + item * plane, plane);
        for (int64_t i = 0; i < group.count; ++i) {
          const int64_t at = (group.rois[i] * channels + item % channels) * count;
          const S* from = static_cast<const S*>(grad) + at;
          for (int64_t b = 0; b < count; ++b) {
            const int64_t place = argmax[at + b];
            if (place >= 0 && place < plane) sums[place] += static_cast<T>(from[b]);
          }
        }
        memory.end();
      }
    });
  });
}

}  // namespace

void roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, int32_t* argmax,
              const Parallel& parallel) {
  with_compute_type(features.dtype,
                    [&](auto t) { max_pool<decltype(t)>(features, rois, bins, out, argmax, parallel); });
}
void roi_pool_backward(const void* grad, const int32_t* argmax, const Rois& rois, const Bins& bins,
                       const Features& gradients, const Parallel& parallel) {
  with_compute_type(gradients.dtype,
                    [&](auto t) { max_pool_backward<decltype(t)>(grad, argmax, rois, bins, gradients, parallel); });
}

}  // namespace boxops::cpu
