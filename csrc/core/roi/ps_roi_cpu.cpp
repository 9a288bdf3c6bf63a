// Position-sensitive pooling: input channel c is read by bin c % (PH PW) alone, and in the output of a RoI the value
// made of it is the c-th. So a thread owns planes of the features and walks the RoIs of their image.
#include "roi/roi_blocks.h"

namespace boxops::cpu {
namespace {

// The pixels of one bin along one axis, and their weights.
template <class T>
struct Taps {
  std::vector<int32_t> pixels;
  std::vector<T> weights;

  void add(int32_t pixel, T weight) {
    for (size_t i = pixels.size(); i > 0 && i + 3 > pixels.size(); --i)
      if (pixels[i - 1] == pixel) {
        weights[i - 1] += weight;
        return;
      }
    pixels.push_back(pixel), weights.push_back(weight);
  }
};

// The bins of a RoI: taps of every bin along each axis, and what sums are divided by.
template <class T>
struct PsPlan {
  std::vector<Taps<T>> y, x;
  std::vector<T> divisors;  // of each bin
};

template <class T>
std::vector<Taps<T>> align_taps(const AlignAxis<T>& axis, int64_t bins, int64_t extent) {
  std::vector<Taps<T>> taps(bins);
  Sample<T> sample;
  for (int64_t p = 0; p < bins; ++p)
    for (int i = 0; i < axis.samples; ++i)
      if (sample_at(axis, p, i, extent, &sample)) {
        taps[p].add(sample.low, sample.low_weight);
        taps[p].add(sample.high, sample.high_weight);
      }
  return taps;
}

template <class T>
PsPlan<T> align_plan(const FeatureMap& map, const Box<T>& box, const Bins& bins) {
  const T scale = static_cast<T>(map.scale);
  const auto y = align_axis(box.y1, box.y2, scale, bins.height, bins.sampling_ratio, true);
  const auto x = align_axis(box.x1, box.x2, scale, bins.width, bins.sampling_ratio, true);
  return {align_taps(y, bins.height, map.height), align_taps(x, bins.width, map.width),
          std::vector<T>(bins.height * bins.width, static_cast<T>(sample_count(y.samples, x.samples)))};
}

template <class T>
std::vector<Taps<T>> pool_taps(const PoolAxis& axis, int64_t bins, int64_t extent) {
  std::vector<Taps<T>> taps(bins);
  for (int64_t p = 0; p < bins; ++p) {
    const PixelRange range = pool_range<T>(axis, p, bins, std::max<int64_t>(0, extent - 1));
    fill_range(taps[p].pixels, range.begin, std::max<int64_t>(0, range.end - range.begin));
    taps[p].weights.assign(taps[p].pixels.size(), T(1));
  }
  return taps;
}

template <class T>
PsPlan<T> pool_plan(const FeatureMap& map, const Box<T>& box, const Bins& bins) {
  const T scale = static_cast<T>(map.scale);
  PsPlan<T> plan{pool_taps<T>(pool_axis(box.y1, box.y2, scale, false), bins.height, map.height),
                 pool_taps<T>(pool_axis(box.x1, box.x2, scale, false), bins.width, map.width),
                 {}};
  for (const auto& y : plan.y)
    for (const auto& x : plan.x)
      plan.divisors.push_back(static_cast<T>(std::max<size_t>(1, y.pixels.size() * x.pixels.size())));
  return plan;
}

template <class T, class Make>
std::vector<PsPlan<T>> make_plans(const Features& features, const Rois& rois, const Bins& bins,
                                  const Parallel& parallel, Make make) {
  std::vector<PsPlan<T>> plans(rois.count);
  parallel.run(rois.count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) plans[k] = make(features.level[0], roi_box<T>(rois, k), bins);
  });
  return plans;
}

template <class T>
void pool(const Features& features, const Rois& rois, const Bins& bins, const std::vector<PsPlan<T>>& plans, void* out,
          const Parallel& parallel) {
  const Groups groups = Groups::of<T>(features, rois);
  const FeatureMap& map = features.level[0];
  fill_without_image(features, rois, 1, out, nullptr);
  parallel.run(features.images * features.channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const Group& group = groups.groups[item / features.channels];
      const int64_t c = item % features.channels, bin = c % (bins.height * bins.width);
      with_storage<T>(features.dtype, [&](auto storage) {
        auto* plane =
            static_cast<decltype(storage)>(map.data) + group.image * map.image_stride + c * map.channel_stride;
        for (int64_t i = 0; i < group.count; ++i) {
          const PsPlan<T>& plan = plans[group.rois[i]];
          const Taps<T>&ys = plan.y[bin / bins.width], &xs = plan.x[bin % bins.width];
          T sum = T(0);
          for (size_t y = 0; y < ys.pixels.size(); ++y) {
            const auto* row = plane + ys.pixels[y] * map.y_stride;
            T line = T(0);
            for (size_t x = 0; x < xs.pixels.size(); ++x)
              line += xs.weights[x] * static_cast<T>(row[xs.pixels[x] * map.x_stride]);
            sum += ys.weights[y] * line;
          }
          using S = std::remove_pointer_t<decltype(storage)>;
          static_cast<S*>(out)[group.rois[i] * features.channels + c] = static_cast<S>(sum / plan.divisors[bin]);
        }
      });
    }
  });
}

template <class T>
void pool_backward(const void* grad, const Rois& rois, const Bins& bins, const std::vector<PsPlan<T>>& plans,
                   const Features& gradients, const Parallel& parallel) {
  const Groups groups = Groups::of<T>(gradients, rois);
  const FeatureMap& map = gradients.level[0];
  const int64_t plane = map.height * map.width;
  parallel.run(gradients.images * gradients.channels, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> sums;
    for (int64_t item = begin; item < end; ++item) {
      const Group& group = groups.groups[item / gradients.channels];
      const int64_t c = item % gradients.channels, bin = c % (bins.height * bins.width);
      sums.assign(plane, T(0));
      with_storage<T>(gradients.dtype, [&](auto storage) {
        using S = std::remove_pointer_t<decltype(storage)>;
        for (int64_t i = 0; i < group.count; ++i) {
          const PsPlan<T>& plan = plans[group.rois[i]];
          const Taps<T>&ys = plan.y[bin / bins.width], &xs = plan.x[bin % bins.width];
          const T part =
              static_cast<T>(static_cast<const S*>(grad)[group.rois[i] * gradients.channels + c]) / plan.divisors[bin];
          for (size_t y = 0; y < ys.pixels.size(); ++y) {
            T* row = sums.data() + ys.pixels[y] * map.width;
            for (size_t x = 0; x < xs.pixels.size(); ++x) row[xs.pixels[x]] += xs.weights[x] * (ys.weights[y] * part);
          }
        }
        S* out = static_cast<S*>(map.data) + item * plane;
        for (int64_t i = 0; i < plane; ++i) out[i] = static_cast<S>(sums[i]);
      });
    }
  });
}

}  // namespace

template <class T>
void ps_roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, const Parallel& parallel) {
  pool<T>(features, rois, bins, make_plans<T>(features, rois, bins, parallel, align_plan<T>), out, parallel);
}
template <class T>
void ps_roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                           const Parallel& parallel) {
  pool_backward<T>(grad, rois, bins, make_plans<T>(gradients, rois, bins, parallel, align_plan<T>), gradients,
                   parallel);
}
template <class T>
void ps_roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, const Parallel& parallel) {
  pool<T>(features, rois, bins, make_plans<T>(features, rois, bins, parallel, pool_plan<T>), out, parallel);
}
template <class T>
void ps_roi_pool_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                          const Parallel& parallel) {
  pool_backward<T>(grad, rois, bins, make_plans<T>(gradients, rois, bins, parallel, pool_plan<T>), gradients, parallel);
}

#define INSTANTIATE(T)                                                                                             \
  template void ps_roi_align<T>(const Features&, const Rois&, const Bins&, void*, const Parallel&);                \
  template void ps_roi_align_backward<T>(const void*, const Rois&, const Bins&, const Features&, const Parallel&); \
  template void ps_roi_pool<T>(const Features&, const Rois&, const Bins&, void*, const Parallel&);                 \
  template void ps_roi_pool_backward<T>(const void*, const Rois&, const Bins&, const Features&, const Parallel&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace boxops::cpu
