#include "common/sort.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace boxops::cpu {

// Short inputs go through std::stable_sort; long ones through a radix sort of 11-bit digits, least
// significant first, that counts all digits in one pass and skips those that never change.
void sort_pairs(uint64_t* keys, int64_t* values, int64_t n) {
  if (std::is_sorted(keys, keys + n)) return;
  std::vector<std::pair<uint64_t, int64_t>> a(n);
  for (int64_t i = 0; i < n; ++i) a[i] = {keys[i], values[i]};
  constexpr int kBits = 11, kDigits = 6, kBuckets = 1 << kBits;
  if (n < 400) {
    std::stable_sort(a.begin(), a.end(), [](const auto& x, const auto& y) { return x.first < y.first; });
  } else {
    std::vector<std::array<int64_t, kBuckets>> counts(kDigits);
    for (int64_t i = 0; i < n; ++i)
      for (int d = 0; d < kDigits; ++d) ++counts[d][keys[i] >> (d * kBits) & (kBuckets - 1)];
    std::vector<std::pair<uint64_t, int64_t>> b(n);
    for (int d = 0; d < kDigits; ++d) {
      auto& count = counts[d];
      if (count[a[0].first >> (d * kBits) & (kBuckets - 1)] == n) continue;
      int64_t sum = 0;
      for (int64_t& c : count) c = std::exchange(sum, sum + c);
      for (const auto& pair : a) b[count[pair.first >> (d * kBits) & (kBuckets - 1)]++] = pair;
      a.swap(b);
    }
  }
  for (int64_t i = 0; i < n; ++i) keys[i] = a[i].first, values[i] = a[i].second;
}

}  // namespace boxops::cpu
