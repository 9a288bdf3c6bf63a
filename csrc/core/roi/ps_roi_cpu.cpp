// Position-sensitive pooling: input channel c is read by bin c % (PH PW) alone, and in the output of a RoI the value
// made of it is the c-th. So a thread owns planes of the features and walks the RoIs of their image.
#include "roi/roi_blocks.h"
#include "roi/roi_taps.h"

namespace boxops::cpu {
namespace {

// For each bin along an axis, the taps of all RoIs; a plane needs those of one bin, and they lie together.
template <class T>
struct AxisTaps {
  struct Bin {
    const TapLists<T>* lists;
    int64_t first;  // the list of RoI 0
    typename TapLists<T>::List of(int64_t k) const { return lists->of(first + k); }
  };
  std::vector<TapLists<T>> parts;  // each filled by one thread
  std::vector<Bin> bins;

  // Calls make(k, bin, lists) for all RoIs in order, for every bin.
  template <class Make>
  void fill(int64_t count, int64_t rois, const Parallel& parallel, Make make) {
    parts.resize(count), bins.resize(count);
    constexpr double kTapsNs = 50;  // the cost of a RoI's taps on one core
    parallel.share(count, kTapsNs * rois, [&](int64_t begin, int64_t end) {
      TapLists<T>& lists = parts[begin];
      lists.taps.reserve(2 * (end - begin) * rois), lists.ends.reserve((end - begin) * rois);
      for (int64_t p = begin; p < end; ++p) {
        bins[p] = {&lists, lists.lists()};
        for (int64_t k = 0; k < rois; ++k) make(k, p, lists);
      }
    });
  }
};

template <class T>
struct PsPlan {
  AxisTaps<T> y, x;
  std::vector<T> divisors;  // of each RoI; empty: a bin's sum is divided by the number of its pixels

  T divisor(int64_t k, int64_t pixels) const {
    return divisors.empty() ? static_cast<T>(std::max<int64_t>(1, pixels)) : divisors[k];
  }
};

// `size` planes of the features, or of the gradient, that one bin reads: those of output channels from `channel` on.
// Counted on, as divisions would cost more than a RoI does.
template <int size>
struct Planes {
  int64_t image, channel, y, x;

  static int64_t per_image(int64_t channels, const Bins& bins) {
    const int64_t count = bins.height * bins.width;
    return blocks_of(channels / count, size) * count;
  }
  static Planes of(int64_t item, int64_t channels, const Bins& bins) {
    const int64_t n = per_image(channels, bins), i = item % n;
    return {item / n, i / (bins.height * bins.width) * size, i / bins.width % bins.height, i % bins.width};
  }
  int64_t first(const Bins& bins) const { return (channel * bins.height + y) * bins.width + x; }
  void next(int64_t channels, const Bins& bins) {
    if (++x == bins.width) x = 0, ++y;
    if (y == bins.height) y = 0, channel += size;
    if (first(bins) >= channels) channel = 0, ++image;
  }
};

template <class T>
PsPlan<T> align_plan(const Features& features, const Rois& rois, const Bins& bins, const Parallel& parallel) {
  const FeatureMap& map = features.level[0];
  const T scale = static_cast<T>(map.scale);
  std::vector<AlignAxis<T>> ys(rois.count), xs(rois.count);
  PsPlan<T> plan;
  for (int64_t k = 0; k < rois.count; ++k) {
    const Box<T> box = roi_box<T>(rois, k);
    ys[k] = align_axis(box.y1, box.y2, scale, bins.height, bins.sampling_ratio, true);
    xs[k] = align_axis(box.x1, box.x2, scale, bins.width, bins.sampling_ratio, true);
    plan.divisors.push_back(static_cast<T>(sample_count(ys[k].samples, xs[k].samples)));
  }
  plan.y.fill(bins.height, rois.count, parallel,
              [&](int64_t k, int64_t p, TapLists<T>& taps) { taps.add_samples(ys[k], p, map.height); });
  plan.x.fill(bins.width, rois.count, parallel,
              [&](int64_t k, int64_t p, TapLists<T>& taps) { taps.add_samples(xs[k], p, map.width); });
  return plan;
}

template <class T>
PsPlan<T> pool_plan(const Features& features, const Rois& rois, const Bins& bins, const Parallel& parallel) {
  const FeatureMap& map = features.level[0];
  const T scale = static_cast<T>(map.scale);
  std::vector<PoolAxis> ys(rois.count), xs(rois.count);
  for (int64_t k = 0; k < rois.count; ++k) {
    const Box<T> box = roi_box<T>(rois, k);
    ys[k] = pool_axis(box.y1, box.y2, scale, false);
    xs[k] = pool_axis(box.x1, box.x2, scale, false);
  }
  const auto add = [](const PoolAxis& axis, int64_t p, int64_t count, int64_t extent, TapLists<T>& taps) {
    const PixelRange range = pool_range<T>(axis, p, count, std::max<int64_t>(0, extent - 1));
    for (int64_t i = range.begin; i < range.end; ++i) taps.taps.push_back({static_cast<int32_t>(i), T(1)});
    taps.close();
  };
  PsPlan<T> plan;
  plan.y.fill(bins.height, rois.count, parallel,
              [&](int64_t k, int64_t p, TapLists<T>& taps) { add(ys[k], p, bins.height, map.height, taps); });
  plan.x.fill(bins.width, rois.count, parallel,
              [&](int64_t k, int64_t p, TapLists<T>& taps) { add(xs[k], p, bins.width, map.width, taps); });
  return plan;
}

template <class T>
void pool(const Features& features, const Rois& rois, const Bins& bins, const PsPlan<T>& plan, void* out,
          const Parallel& parallel) {
  const Groups groups = Groups::of<T>(features, rois);
  const FeatureMap& map = features.level[0];
  fill_without_image(features, rois, 1, out, nullptr);
  with_storage<T>(features.dtype, [&](auto storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    constexpr int size = 8;  // planes that are pooled together, since all that is not a pixel is the same
    const int64_t count = bins.height * bins.width, channels = features.channels / count;
    const int64_t work = rois.count / std::max<int64_t>(features.images, 1) * 16 * size;
    parallel.share(features.images * Planes<size>::per_image(features.channels, bins), kPixelNs * work,
                   [&](int64_t begin, int64_t end) {
                     Planes<size> at = Planes<size>::of(begin, features.channels, bins);
                     for (int64_t item = begin; item < end; ++item, at.next(features.channels, bins)) {
                       const Group& group = groups.groups[at.image];
                       const int64_t first = at.first(bins), n = std::min<int64_t>(size, channels - at.channel);
                       const S* planes[size];
                       planes[0] =
                           static_cast<const S*>(map.data) + at.image * map.image_stride + first * map.channel_stride;
                       for (int j = 1; j < size; ++j)  // beyond the last, it again
                         planes[j] = planes[j - 1] + (j < n ? count * map.channel_stride : 0);
                       const auto ys = plan.y.bins[at.y], xs = plan.x.bins[at.x];
                       for (int64_t i = 0; i < group.count; ++i) {
                         const int64_t k = group.rois[i];
                         const auto rows = ys.of(k), columns = xs.of(k);
                         T sums[size] = {};
                         for (const Tap<T>& y : rows) {
                           T lines[size] = {};
                           for (const Tap<T>& x : columns) {
                             const int64_t pixel = y.index * map.y_stride + x.index * map.x_stride;
                             for (int j = 0; j < size; ++j) lines[j] += x.weight * static_cast<T>(planes[j][pixel]);
                           }
                           for (int j = 0; j < size; ++j) sums[j] += y.weight * lines[j];
                         }
                         const T divisor = plan.divisor(k, rows.size() * columns.size());
                         S* to = static_cast<S*>(out) + k * features.channels + first;
                         for (int j = 0; j < size; ++j) sums[j] /= divisor;
                         for (int64_t j = 0; j < n; ++j) to[j * count] = static_cast<S>(sums[j]);
                       }
                     }
                   });
  });
}

template <class T>
void pool_backward(const void* grad, const Rois& rois, const Bins& bins, const PsPlan<T>& plan,
                   const Features& gradients, const Parallel& parallel) {
  const Groups groups = Groups::of<T>(gradients, rois);
  const FeatureMap& map = gradients.level[0];
  const int64_t pixels = map.height * map.width;
  with_storage<T>(gradients.dtype, [&](auto storage) {
    using S = std::remove_pointer_t<decltype(storage)>;
    const int64_t work = pixels / 4 + rois.count / std::max<int64_t>(gradients.images, 1) * 16;
    parallel.share(gradients.images * gradients.channels, kPixelNs * work, [&](int64_t begin, int64_t end) {
      PlaneSums<T, S> memory;
      Planes<1> at = Planes<1>::of(begin, gradients.channels, bins);
      for (int64_t item = begin; item < end; ++item, at.next(gradients.channels, bins)) {
        const Group& group = groups.groups[at.image];
        const auto ys = plan.y.bins[at.y], xs = plan.x.bins[at.x];
        T* sums = memory.begin(static_cast<S*>(map.data) + item * pixels, pixels);
        for (int64_t i = 0; i < group.count; ++i) {
          const int64_t k = group.rois[i];
          const auto rows = ys.of(k), columns = xs.of(k);
          const T part = static_cast<T>(static_cast<const S*>(grad)[k * gradients.channels + at.first(bins)]) /
                         plan.divisor(k, rows.size() * columns.size());
          for (const Tap<T>& y : rows) {
            T* row = sums + y.index * map.width;
            for (const Tap<T>& x : columns) row[x.index] += x.weight * (y.weight * part);
          }
        }
        memory.end();
      }
    });
  });
}

}  // namespace

void ps_roi_align(const Features& features, const Rois& rois, const Bins& bins, void* out, const Parallel& parallel) {
  with_compute_type(features.dtype, [&](auto t) {
    pool(features, rois, bins, align_plan<decltype(t)>(features, rois, bins, parallel), out, parallel);
  });
}
void ps_roi_align_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                           const Parallel& parallel) {
  with_compute_type(gradients.dtype, [&](auto t) {
    pool_backward(grad, rois, bins, align_plan<decltype(t)>(gradients, rois, bins, parallel), gradients, parallel);
  });
}
void ps_roi_pool(const Features& features, const Rois& rois, const Bins& bins, void* out, const Parallel& parallel) {
  with_compute_type(features.dtype, [&](auto t) {
    pool(features, rois, bins, pool_plan<decltype(t)>(features, rois, bins, parallel), out, parallel);
  });
}
void ps_roi_pool_backward(const void* grad, const Rois& rois, const Bins& bins, const Features& gradients,
                          const Parallel& parallel) {
  with_compute_type(gradients.dtype, [&](auto t) {
    pool_backward(grad, rois, bins, pool_plan<decltype(t)>(gradients, rois, bins, parallel), gradients, parallel);
  });
}

}  // namespace boxops::cpu
