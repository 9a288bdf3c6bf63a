// Stable sorts by counting and in tiles, beside the standard library's: the result counts places that differ. Many keys
// are the same, some of them the largest that there is.
#include "common/tile_sort.cuh"

#include <algorithm>
#include <numeric>

#include "programs/program.h"

namespace boxops::cuda {
namespace {

struct KeyAt {
  const uint64_t* keys;
  __device__ uint64_t operator()(int64_t i) const { return keys[i]; }
};

double wrong(int64_t n, uint64_t kinds, bool shuffled) {
  std::vector<uint64_t> keys(n);
  for (int64_t i = 0; i < n; ++i) keys[i] = ~((static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15 >> 20) % kinds << 31);
  std::vector<int64_t> values(n);
  std::iota(values.begin(), values.end(), 0);
  if (shuffled)
    for (int64_t i = n - 1; i > 0; --i) std::swap(values[i], values[(i * 40503 >> 4) % (i + 1)]);
  std::vector<int64_t> expected = values;
  std::stable_sort(expected.begin(), expected.end(), [&](int64_t a, int64_t b) { return keys[a] < keys[b]; });
  std::vector<uint64_t> sorted(n);
  for (int64_t i = 0; i < n; ++i) sorted[i] = keys[expected[i]];

  Workspace size(nullptr);
  SortSpace(size, n);
  const Device<char> memory(size.used());
  Workspace w(static_cast<char*>(memory));
  const SortSpace space(w, n);
  const Device<uint64_t> keys_there(keys);
  const Device<int64_t> from(values), order(static_cast<size_t>(n));
  if (sort_by(KeyAt{keys_there}, shuffled ? static_cast<int64_t*>(from) : nullptr, 64, space, order, nullptr) != 0)
    return static_cast<double>(n);
  return count_differences(order.values(), expected) +
         count_differences(std::vector<uint64_t>(space.sorted, space.sorted + n), sorted);
}

PROGRAM(sorts) {
  double count = 0;
  for (const int64_t n : {1, 31, 33, 1025, 2100}) count += wrong(n, 50, n % 2 == 0) + wrong(n, 1u << 30, n % 2 != 0);
  return count + wrong(kMostRanked + 1, 500, true);
}

}  // namespace
}  // namespace boxops::cuda
