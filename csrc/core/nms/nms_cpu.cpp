#include <boxops/nms.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "common/blocks.h"
#include "common/isa.h"
#include "common/scratch.h"
#include "common/sort.h"
#include "nms/candidates.h"

#define BOXOPS_SIMD_SOURCE "nms/nms_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

// Writes the n candidates of one image by falling score; candidate(i), rising: the index of the i-th.
template <class Candidate>
void rank(const NmsInput& input, int64_t batch, int64_t n, Candidate candidate, int64_t* ranked) {
  Scratch<uint64_t> keys(n);
  for (int64_t i = 0; i < n; ++i) keys[i] = score_key(input.scores, batch, candidate(i));
  order_of(keys.data(), n, ranked);
  for (int64_t i = 0; i < n; ++i) ranked[i] = candidate(ranked[i]);
}

// Reads which of the ranked boxes are kept, at most `limit` of each group.
template <class R>
void suppress(const NmsInput& input, int64_t batch, const int64_t* ranked, int64_t n, typename R::Scalar threshold,
              int64_t limit, bool* keep, const Parallel& parallel) {
  const auto greedy = BOXOPS_BY_ISA(greedy<R>);
  if (!input.has_groups) return greedy({input.boxes, batch, ranked}, n, threshold, limit, keep, parallel);

  // Groups one after another, each by falling score; place[i]: the rank of the i-th box there.
  std::vector<uint64_t> keys(n);
  for (int64_t i = 0; i < n; ++i) keys[i] = group_key(input.groups, batch, ranked[i]);
  std::vector<int64_t> place(n), order(n), starts{0};
  order_of(keys.data(), n, place.data());
  for (int64_t i = 0; i < n; ++i) {
    order[i] = ranked[place[i]];
    if (i > 0 && keys[place[i]] != keys[place[i - 1]]) starts.push_back(i);
  }
  starts.push_back(n);
  std::vector<uint8_t> flags(n, 0);
  bool* kept = reinterpret_cast<bool*>(flags.data());
  const int64_t groups = static_cast<int64_t>(starts.size()) - 1;
  const Serial serial;
  const Parallel& within = groups == 1 ? parallel : serial;
  parallel.share(groups, R::kBoxNs * n / groups, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s)
      greedy({input.boxes, batch, order.data() + starts[s]}, starts[s + 1] - starts[s], threshold, limit,
             kept + starts[s], within);
  });
  for (int64_t i = 0; i < n; ++i) keep[place[i]] = kept[i];
}

// Suppresses n candidates and writes the first `limit` kept to `out`.
template <class R, class Candidate>
int64_t keep_first(const NmsInput& input, int64_t batch, int64_t n, Candidate candidate, typename R::Scalar threshold,
                   int64_t limit, int64_t* out, const Parallel& parallel) {
  Scratch<int64_t> ranked(n);
  Scratch<bool> keep(n);
  std::fill_n(keep.data(), n, false);
  rank(input, batch, n, candidate, ranked.data());
  suppress<R>(input, batch, ranked.data(), n, threshold, limit, keep.data(), parallel);
  int64_t count = 0;
  for (int64_t i = 0; i < n && count < limit; ++i)
    if (keep[i]) out[count++] = ranked[i];
  return count;
}

template <class R>
int64_t keep_all(const NmsInput& input, typename R::Scalar threshold, int64_t* out, const Parallel& parallel) {
  const int64_t n = input.boxes.count;
  return keep_first<R>(input, 0, n, [](int64_t i) { return i; }, threshold, n, out, parallel);
}

}  // namespace

int64_t nms(const NmsInput& input, double iou_threshold, int64_t* keep, const Parallel& parallel) {
  return with_compute_type(input.boxes.dtype, [&](auto t) {
    using T = decltype(t);
    return keep_all<Ranked<T>>(input, static_cast<T>(iou_threshold), keep, parallel);
  });
}

int64_t rotated_nms(const NmsInput& input, double iou_threshold, int64_t* keep, const Parallel& parallel) {
  return with_compute_type(input.boxes.dtype, [&](auto t) {
    using T = decltype(t);
    return keep_all<RankedRotated<T>>(input, static_cast<T>(iou_threshold), keep, parallel);
  });
}

void nms_padded(const NmsInput& input, double iou_threshold, const PaddedOptions& options, int64_t* indices,
                int64_t* counts, const Parallel& parallel) {
  with_compute_type(input.boxes.dtype, [&](auto t) {
    using T = decltype(t);
    parallel.share(input.boxes.batch, Ranked<T>::kBoxNs * input.boxes.count, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        std::vector<int64_t> candidates;
        for (int64_t i = 0; options.has_score_threshold && i < input.boxes.count; ++i)
          if (score_exceeds(input.scores, b, i, options.score_threshold)) candidates.push_back(i);
        const bool all = !options.has_score_threshold;
        const auto candidate = [&](int64_t i) { return all ? i : candidates[i]; };
        const int64_t n = all ? input.boxes.count : static_cast<int64_t>(candidates.size());
        int64_t* out = indices + b * options.max_output;
        counts[b] = keep_first<Ranked<T>>(input, b, n, candidate, static_cast<T>(iou_threshold), options.max_output,
                                          out, Serial());
        std::fill(out + counts[b], out + options.max_output, -1);
      }
    });
  });
}

}  // namespace boxops::cpu
