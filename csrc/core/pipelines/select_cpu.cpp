#include "pipelines/select.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/geometry.h"
#include "common/isa.h"

#define BOXOPS_SIMD_SOURCE "pipelines/select_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {

template <class S>
void select_above(const Scalars& scores, int64_t batch, int64_t begin, int64_t end, S threshold, bool or_equal,
                  std::vector<int32_t>& found) {
  constexpr int64_t kChunk = 1 << 13;
  const auto above = or_equal ? BOXOPS_BY_ISA(above<true, S>) : BOXOPS_BY_ISA(above<false, S>);
  const bool direct = scores.stride == 1 && scores.dtype == dtype_of<S>();
  std::vector<S> copy(direct ? 0 : std::min(kChunk, end - begin));
  size_t count = found.size();
  for (int64_t first = begin; first < end; first += kChunk) {
    const int64_t n = std::min(kChunk, end - first), at = batch * scores.batch_stride + first * scores.stride;
    const S* chunk = direct ? static_cast<const S*>(scores.data) + at : copy.data();
    if (!direct)
      for (int64_t i = 0; i < n; ++i) copy[i] = load<S>(scores.data, scores.dtype, at + i * scores.stride);
    if (found.size() < count + n) found.resize(2 * count + n);
    count += above(chunk, n, threshold, static_cast<int32_t>(first), found.data() + count);
  }
  found.resize(count);
}

// The threshold is guessed from a sample, low enough that at least k pass but for bad luck.
template <class S>
std::vector<int64_t> select_top(const Scalars& scores, int64_t batch, int64_t begin, int64_t end, int64_t k) {
  constexpr int64_t kSample = 2048;
  const int64_t n = end - begin;
  std::vector<int64_t> top;
  if (n > 2 * kSample && k < n / 4) {
    // Neighbours are alike, and so are rows: steps by the golden section meet all parts evenly.
    std::vector<S> sample(kSample);
    for (int64_t i = 0; i < kSample; ++i) {
      const double part = std::fmod(static_cast<double>(i) * 0.6180339887498949, 1.0);
      const int64_t at = begin + std::min(n - 1, static_cast<int64_t>(part * static_cast<double>(n)));
      const S score = load<S>(scores.data, scores.dtype, batch * scores.batch_stride + at * scores.stride);
      sample[i] = score == score ? score : -std::numeric_limits<S>::infinity();
    }
    const double expected = static_cast<double>(k) * kSample / static_cast<double>(n);
    const auto rank = static_cast<int64_t>(expected + 4 * std::sqrt(expected) + 4);
    std::nth_element(sample.begin(), sample.begin() + rank, sample.end(), std::greater<S>());
    std::vector<int32_t> found;
    select_above<S>(scores, batch, begin, end, sample[rank], true, found);
    if (static_cast<int64_t>(found.size()) >= k) top.assign(found.begin(), found.end());
  }
  if (top.empty()) top.resize(n), std::iota(top.begin(), top.end(), begin);
  std::vector<uint64_t> keys(top.size());
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = score_key(scores, batch, top[i]);
  sort_pairs(keys.data(), top.data(), static_cast<int64_t>(top.size()));
  top.resize(std::min(n, k));
  return top;
}

#define INSTANTIATE(S)                                                                                      \
  template void select_above<S>(const Scalars&, int64_t, int64_t, int64_t, S, bool, std::vector<int32_t>&); \
  template std::vector<int64_t> select_top<S>(const Scalars&, int64_t, int64_t, int64_t, int64_t);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace boxops::cpu
