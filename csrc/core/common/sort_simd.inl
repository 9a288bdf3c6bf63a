// The order of few keys, of sort_cpu.cpp; compiled once per instruction set (common/isa.h).
namespace boxops::BOXOPS_ISA {

// Each key's rank is the number of keys before it: n^2 comparisons, but in vectors and without a branch. Behind the n
// keys come numbers as high as any, up to a multiple of kKeyLanes.
// Returns whether any are equal.
constexpr int kKeyLanes = BOXOPS_VECTOR_BYTES / 4;

inline bool order_of_few(const uint32_t* keys, int64_t n, int64_t* order) {
  uint32_t ranks[kFew], sum = 0;
  for (int64_t i = 0; i < n; i += kKeyLanes) {
    uint32_t before[kKeyLanes] = {};
    for (int64_t j = 0; j < n; ++j)
      for (int lane = 0; lane < kKeyLanes; ++lane) before[lane] += keys[j] < keys[i + lane];
    std::copy_n(before, kKeyLanes, ranks + i);
  }
  for (int64_t i = 0; i < n; ++i) sum += ranks[i], order[ranks[i]] = i;
  if (sum == n * (n - 1) / 2) return false;
  for (int64_t i = 0; i < n; ++i) {  // some are equal: of these, the first comes first
    for (int64_t j = 0; j < i; ++j) ranks[i] += keys[j] == keys[i];
    order[ranks[i]] = i;
  }
  return true;
}

}  // namespace boxops::BOXOPS_ISA
