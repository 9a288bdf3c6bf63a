// The pixels that a bin of align reads along one axis, with weights. Private to roi/, for the CPU.
#pragma once

#include <algorithm>
#include <vector>

#include "roi/roi_bins.h"

namespace boxops::cpu {

template <class T>
struct Tap {
  int32_t index;
  T weight;
};

// Taps of several bins, one after another.
template <class T>
struct TapLists {
  std::vector<Tap<T>> taps;
  std::vector<int64_t> ends;

  struct List {
    const Tap<T>*first, *last;
    const Tap<T>* begin() const { return first; }
    const Tap<T>* end() const { return last; }
    int64_t size() const { return last - first; }
  };
  List of(int64_t list) const { return {taps.data() + (list == 0 ? 0 : ends[list - 1]), taps.data() + ends[list]}; }
  int64_t lists() const { return static_cast<int64_t>(ends.size()); }
  void close() { ends.push_back(static_cast<int64_t>(taps.size())); }

  // The samples of bin p of an axis, those on one pixel joined.
  void add_samples(const AlignAxis<T>& axis, int64_t p, int64_t extent) {
    Sample<T> sample;
    for (int i = 0; i < axis.samples; ++i)
      if (sample_at(axis, p, i, extent, &sample)) {
        join(sample.low, sample.low_weight);
        join(sample.high, sample.high_weight);
      }
    close();
  }

 private:
  // Samples come in order, so a pixel seen before is among the last few.
  void join(int32_t pixel, T weight) {
    const int64_t size = static_cast<int64_t>(taps.size());
    const int64_t begin = std::max(ends.empty() ? 0 : ends.back(), size - 3);
    for (int64_t i = size - 1; i >= begin; --i)
      if (taps[i].index == pixel) {
        taps[i].weight += weight;
        return;
      }
    taps.push_back({pixel, weight});
  }
};

}  // namespace boxops::cpu
