#include "common/sort.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "common/isa.h"

namespace boxops {
constexpr int64_t kFew = 128;  // up to so many, comparing all with all is faster than digits
}

#define BOXOPS_SIMD_SOURCE "common/sort_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

// A radix sort of digits of equal width, least significant first. It counts all digits in one pass and skips those that
// never change. Keys have no more than so many bits.
template <class Item>
void order_by_digits(const uint32_t* keys, int64_t n, int bits, int64_t* order) {
  const int most_bits = n < 1000 ? 8 : 11;  // counts of wide digits cost too much for few keys
  const int digits = (bits + most_bits - 1) / most_bits, width = (bits + digits - 1) / digits;
  const int64_t buckets = int64_t(1) << width;
  using Place = decltype(Item::place);
  const auto digit = [&](uint32_t key, int d) { return static_cast<int64_t>(key >> (d * width)) & (buckets - 1); };
  std::vector<Item> a(n), b(n);
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
    for (const Item& item : a) b[count[digit(item.key, d)]++] = item;
    a.swap(b);
  }
  for (int64_t i = 0; i < n; ++i) order[i] = a[i].place;
}

struct Narrow {
  uint32_t key, place;
};
struct OfMany {
  uint32_t key;
  int64_t place;
};

int width_of(uint64_t number) {
  int bits = 0;
  while (bits < 64 && number >> bits) ++bits;
  return bits;
}

}  // namespace

void order_of(const uint64_t* keys, int64_t n, int64_t* order) {
  uint64_t least = std::numeric_limits<uint64_t>::max(), most = 0, falls = 0;
  for (int64_t i = 0; i < n; ++i) least = std::min(least, keys[i]), most = std::max(most, keys[i]);
  for (int64_t i = 1; i < n; ++i) falls |= keys[i] < keys[i - 1];
  if (!falls) return std::iota(order, order + n, 0);
  // By the 32 bits in which keys differ first; then, where these are equal, by the rest.
  const int width = width_of(most - least), dropped = std::max(0, width - 32);
  std::vector<uint32_t> narrow(std::max(n, kFew), std::numeric_limits<uint32_t>::max());
  for (int64_t i = 0; i < n; ++i) narrow[i] = static_cast<uint32_t>((keys[i] - least) >> dropped);
  if (n <= kFew) BOXOPS_BY_ISA(order_of_few)(narrow.data(), n, order);
  else if (n <= std::numeric_limits<uint32_t>::max())
    order_by_digits<Narrow>(narrow.data(), n, width - dropped, order);
  else order_by_digits<OfMany>(narrow.data(), n, width - dropped, order);
  for (int64_t end, begin = 0; dropped && begin < n; begin = end) {
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
