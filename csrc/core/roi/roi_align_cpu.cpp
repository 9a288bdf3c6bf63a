#include "roi/roi_loops.h"
#include "roi/roi_taps.h"

namespace boxops {
namespace {

using cpu::Tap;

// The taps of every bin along one axis, as indices into `pixels`, which becomes the list of all pixels they name.
template <class T>
cpu::TapLists<T> make_taps(const AlignAxis<T>& axis, int64_t bins, int64_t extent, std::vector<int32_t>& pixels) {
  cpu::TapLists<T> taps;
  for (int64_t p = 0; p < bins; ++p) taps.add_samples(axis, p, extent);
  for (const Tap<T>& tap : taps.taps) pixels.push_back(tap.index);
  std::sort(pixels.begin(), pixels.end());
  pixels.erase(std::unique(pixels.begin(), pixels.end()), pixels.end());
  for (Tap<T>& tap : taps.taps)
    tap.index = static_cast<int32_t>(std::lower_bound(pixels.begin(), pixels.end(), tap.index) - pixels.begin());
  return taps;
}

template <class T>
struct AlignPlan : cpu::Footprint {
  cpu::TapLists<T> y, x;
  T divisor;

  void make(const FeatureMap& map, const Box<T>& box, const Bins& bins) {
    const T scale = static_cast<T>(map.scale);
    const auto axis_y = align_axis(box.y1, box.y2, scale, bins.height, bins.sampling_ratio, bins.aligned);
    const auto axis_x = align_axis(box.x1, box.x2, scale, bins.width, bins.sampling_ratio, bins.aligned);
    y = make_taps(axis_y, bins.height, map.height, rows);
    x = make_taps(axis_x, bins.width, map.width, columns);
    divisor = static_cast<T>(sample_count(axis_y.samples, axis_x.samples));
    work = static_cast<int64_t>(y.taps.size() * x.taps.size());
  }
};

}  // namespace
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "roi/roi_align_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

template <class T>
std::vector<AlignPlan<T>> make_plans(const Features& features, const Rois& rois, const Bins& bins,
                                     const Parallel& parallel) {
  std::vector<AlignPlan<T>> plans(rois.count);
  parallel.share(rois.count, kPlanNs, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const Box<T> box = roi_box<T>(rois, k);
      plans[k].make(features.level[level_of(features, box)], box, bins);
    }
  });
  return plans;
}

template <class T>
void align(const Features& features, const Rois& rois, const Bins& bins, void* out, const Parallel& parallel) {
  const Groups groups = Groups::of<T>(features, rois);
  const auto plans = make_plans<T>(features, rois, bins, parallel);
  const int64_t count = bins.height * bins.width, height = tile_rows(bins);
  fill_without_image(features, rois, count, out, nullptr);
  for_each_block<T>(features, rois, groups, plans, parallel,
                    [&](auto block, const AlignPlan<T>& plan, const Offsets& offsets, const T* pixels, int64_t k,
                        int64_t first, int64_t channels, Tiles<T>& tiles) {
                      constexpr int B = decltype(block)::value;
                      const auto kernel = BOXOPS_BY_ISA(align_rows<T, B>);
                      T* tile = tiles.of(height * bins.width * B);
                      for (int64_t p = 0; p < bins.height; p += height) {
                        const int64_t end = std::min(p + height, bins.height);
                        kernel(plan, p, end, offsets.rows.data(), offsets.columns.data(), pixels, tile);
                        with_storage<T>(features.dtype, [&](auto storage) {
                          auto* to = static_cast<decltype(storage)>(out) + (k * features.channels + first) * count +
                                     p * bins.width;
                          store_tile<B>(tile, (end - p) * bins.width, channels, to, count);
                        });
                      }
                    });
}

// Threads own blocks of channels of bands of rows of a map, and add up the RoIs that touch them in their order.
template <class T>
void align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                    const Parallel& parallel) {
  const Groups groups = Groups::of<T>(gradients, rois);
  const auto plans = make_plans<T>(gradients, rois, bins, parallel);
  const int64_t count = bins.height * bins.width, height = tile_rows(bins);
  for_each_band<T>(gradients, groups, plans, parallel,
                   [&](auto block, const AlignPlan<T>& plan, const Offsets& offsets, T* pixels, int64_t k,
                       int64_t first, int64_t channels, Tiles<T>& tiles) {
                     constexpr int B = decltype(block)::value;
                     const auto kernel = BOXOPS_BY_ISA(align_rows_backward<T, B>);
                     T* tile = tiles.of(height * bins.width * B);
                     const auto touched = [&](int64_t p) {
                       for (const Tap<T>& y : plan.y.of(p))
                         if (offsets.rows[y.index] >= 0) return true;
                       return false;
                     };
                     int64_t from = 0, to = bins.height;
                     while (from < to && !touched(from)) ++from;
                     while (from < to && !touched(to - 1)) --to;
                     for (int64_t p = from; p < to; p += height) {
                       const int64_t end = std::min(p + height, to);
                       with_storage<T>(gradients.dtype, [&](auto storage) {
                         const auto* at = static_cast<const std::remove_pointer_t<decltype(storage)>*>(grad) +
                                          (k * gradients.channels + first) * count + p * bins.width;
                         load_tile<B>(at, count, (end - p) * bins.width, channels, tile);
                       });
                       kernel(plan, p, end, offsets.rows.data(), offsets.columns.data(), tile, pixels);
                     }
                   });
}

}  // namespace

void roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, const Parallel& parallel) {
  with_compute_type(features.dtype, [&](auto t) { align<decltype(t)>(features, rois, bins, out, parallel); });
}
void roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                        const Parallel& parallel) {
  with_compute_type(gradients.dtype,
                    [&](auto t) { align_backward<decltype(t)>(grad, rois, bins, gradients, parallel); });
}

}  // namespace boxops::cpu
