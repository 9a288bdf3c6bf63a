#include "common/sort.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "common/isa.h"
#include "common/scratch.h"

namespace boxops {
constexpr int64_t kFew = 128;  // up to so many, comparing all with all is faster than digits
}

#define BOXOPS_SIMD_SOURCE "common/sort_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

// Counts of wide digits cost too much for few keys.
int digit_bits(int64_t n) { return n < 600 ? 8 : n < 2000 ? 10 : 11; }

template <class Place>
struct Item {
  uint32_t key;
  Place place;
};

// A radix sort of digits of equal width, least significant first. It counts all digits in one pass and skips those that
// never change. Keys have no more than so many bits. Returns whether any are equal.
template <class Place>
bool order_by_digits(const uint32_t* keys, int64_t n, int bits, int64_t* order) {
  const int digits = (bits + digit_bits(n) - 1) / digit_bits(n), width = (bits + digits - 1) / digits;
  const int64_t buckets = int64_t(1) << width;
  const auto digit = [&](uint32_t key, int d) { return static_cast<int64_t>(key >> (d * width)) & (buckets - 1); };
  std::vector<Item<Place>> a(n), b(n);
  std::vector<Place> counts(digits * buckets);
  for (int64_t i = 0; i < n; ++i) {
    a[i] = {keys[i], static_cast<Place>(i)};
    for (int d = 0; d < digits; ++d) ++counts[d * buckets + digit(keys[i], d)];
  }
  for (int d = 0; d < digits; ++d) {
    Place* count = counts.data() + d * buckets;
    if (count[digit(keys[0], d)] == static_cast<Place>(n)) continue;
    Place sum = 0;
    for (int64_t k = 0; k < buckets; ++k) count[k] = std::exchange(sum, sum + count[k]);
    for (const Item<Place>& item : a) b[count[digit(item.key, d)]++] = item;
    a.swap(b);
  }
  bool equal = false;
  for (int64_t i = 0; i < n; ++i) order[i] = a[i].place;
  for (int64_t i = 1; i < n; ++i) equal |= a[i].key == a[i - 1].key;
  return equal;
}

int width_of(uint64_t number) {
  int bits = 0;
  while (bits < 64 && number >> bits) ++bits;
  return bits;
}

}  // namespace

void order_of(const uint64_t* keys, int64_t n, int64_t* order) {
  if (std::is_sorted(keys, keys + n)) return std::iota(order, order + n, 0);
  uint64_t differing = 0;
  for (int64_t i = 0; i < n; ++i) differing |= keys[i] ^ keys[0];
  // By the first bits that differ, as many as are likely to tell all keys apart; where these are equal, by the rest.
  const int digits = n < 20000 ? 2 : 3;
  const int width = width_of(differing), dropped = std::max(0, width - std::min(32, digits * digit_bits(n)));
  const uint64_t mask = differing >> dropped;
  Scratch<uint32_t> narrow(std::max(n, kFew));
  std::fill(narrow.data() + n, narrow.data() + std::max(n, kFew), std::numeric_limits<uint32_t>::max());
  for (int64_t i = 0; i < n; ++i) narrow[i] = static_cast<uint32_t>(keys[i] >> dropped & mask);
  const bool equal = n <= kFew ? BOXOPS_BY_ISA(order_of_few)(narrow.data(), n, order)
                     : n <= std::numeric_limits<uint32_t>::max()
                         ? order_by_digits<uint32_t>(narrow.data(), n, width - dropped, order)
                         : order_by_digits<int64_t>(narrow.data(), n, width - dropped, order);
  for (int64_t end, begin = 0; equal && dropped && begin < n; begin = end) {
    for (end = begin + 1; end < n && narrow[order[end]] == narrow[order[begin]];) ++end;
    if (end - begin > 1)
      std::stable_sort(order + begin, order + end, [&](int64_t i, int64_t j) { return keys[i] < keys[j]; });
  }
}

void sort_pairs(uint64_t* keys, int64_t* values, int64_t n) {
  std::vector<int64_t> order(n), old_values(values, values + n);
  std::vector<uint64_t> old_keys(keys, keys + n);
  order_of(keys, n, order.data());
  for (int64_t i = 0; i < n; ++i) keys[i] = old_keys[order[i]], values[i] = old_values[order[i]];
}

}  // namespace boxops::cpu
