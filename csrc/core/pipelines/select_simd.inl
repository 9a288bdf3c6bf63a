// The vector loop of select_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

// Writes to `out`, which has room for n, the i < n with scores[i] above the threshold, plus `first`; returns how many.
// Few are: blocks without any cost one comparison of vectors.
template <bool or_equal, class S>
int64_t above(const S* scores, int64_t n, S threshold, int32_t first, int32_t* out) {
  constexpr int64_t kBlock = 32;
  const auto passes = [threshold](S score) { return or_equal ? score >= threshold : score > threshold; };
  int64_t count = 0, i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    int any = 0;
    for (int64_t j = i; j < i + kBlock; ++j) any |= passes(scores[j]);
    if (!any) continue;
    for (int64_t j = i; j < i + kBlock; ++j) {
      out[count] = first + static_cast<int32_t>(j);
      count += passes(scores[j]);
    }
  }
  for (; i < n; ++i) {
    out[count] = first + static_cast<int32_t>(i);
    count += passes(scores[i]);
  }
  return count;
}

}  // namespace boxops::BOXOPS_ISA
