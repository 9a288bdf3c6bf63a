#include "sampling/sampling.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/isa.h"
#include "common/random.h"

namespace boxops {
namespace {
constexpr int kKeys = 256;  // random keys made at a time
}
}  // namespace boxops

#define BOXOPS_SIMD_SOURCE "sampling/sampling_simd.inl"
#include "common/for_each_isa.h"

namespace boxops::cpu {
namespace {

constexpr double kSampleNs = 1, kMineNs = 8;  // the cost of a match on one core
using Keyed = std::pair<uint64_t, int64_t>;   // key and index

// The matches of one image, in a row.
const int64_t* in_a_row(const Matches& matches, int64_t b, std::vector<int64_t>& copy) {
  if (matches.stride == 1) return matches.data + b * matches.batch_stride;
  copy.resize(matches.count);
  for (int64_t i = 0; i < matches.count; ++i) copy[i] = matches.at(b, i);
  return copy.data();
}

// Moves the `count` smallest to the front.
void select(std::vector<Keyed>& all, int64_t count) {
  if (count < static_cast<int64_t>(all.size())) std::nth_element(all.begin(), all.begin() + count, all.end());
}

// One kind of match: how many there are, and how many to draw.
struct Kind {
  int64_t there, target;
  std::vector<Keyed> found;

  // Keys are uniform: those below this hold enough but for bad luck, which costs a second look. It is not made
  // rarer than one image in 40, so that tests meet it.
  uint64_t threshold() const {
    const double n = static_cast<double>(target), bound = n + 2 * std::sqrt(n) + 2;
    return target == 0 ? 0 : static_cast<uint64_t>(std::min(1.0, bound / static_cast<double>(there)) * 0x1p32);
  }
  bool all() const { return target == there; }
};

void find(const int64_t* matches, int64_t count, uint64_t seed, int64_t image, Kind& positives, uint64_t below_positive,
          Kind& negatives, uint64_t below_negative) {
  uint32_t keys[kKeys] = {};
  const bool random = !positives.all() || !negatives.all();
  positives.found.clear(), negatives.found.clear();
  for (int64_t first = 0; first < count; first += kKeys) {
    if (random) BOXOPS_BY_ISA(random_keys)(seed, image, first, keys);
    for (int64_t i = first; i < std::min(count, first + kKeys); ++i) {
      const uint64_t key = keys[i - first];
      // Whichever is rare is asked first, so that branches are foreseen.
      if (matches[i] >= 0) {
        if (key < below_positive) positives.found.emplace_back(key, i);
      } else if (key < below_negative && matches[i] == -1) {
        negatives.found.emplace_back(key, i);
      }
    }
  }
}

void sample_image(const Matches& matches, int64_t b, int64_t size, int64_t max_positives, uint64_t seed,
                  int64_t* indices, int64_t* num_positive, int64_t* num_sampled) {
  constexpr uint64_t kAll = uint64_t(1) << 32;
  std::vector<int64_t> copy;
  const int64_t* match = in_a_row(matches, b, copy);
  Kind positives, negatives;
  BOXOPS_BY_ISA(count_matches)(match, matches.count, &positives.there, &negatives.there);
  positives.target = std::min(positives.there, max_positives);
  negatives.target = std::min(negatives.there, size - positives.target);
  find(match, matches.count, seed, b, positives, positives.threshold(), negatives, negatives.threshold());
  if (static_cast<int64_t>(positives.found.size()) < positives.target ||
      static_cast<int64_t>(negatives.found.size()) < negatives.target)
    find(match, matches.count, seed, b, positives, kAll, negatives, kAll);
  int64_t* out = indices;
  for (Kind* kind : {&positives, &negatives}) {
    select(kind->found, kind->target);
    int64_t* begin = out;
    for (int64_t i = 0; i < kind->target; ++i) *out++ = kind->found[i].second;
    std::sort(begin, out);
  }
  std::fill(out, indices + size, int64_t(-1));
  *num_positive = positives.target, *num_sampled = positives.target + negatives.target;
}

void mine_image(const Scalars& loss, const Matches& matches, int64_t b, double ratio, int64_t min_negatives,
                uint8_t* mask) {
  std::vector<Keyed> negatives;
  int64_t positives = 0;
  for (int64_t i = 0; i < matches.count; ++i) {
    const int64_t match = matches.at(b, i);
    positives += match >= 0;
    if (match == -1) negatives.emplace_back(score_key(loss, b, i), i);
  }
  const int64_t count =
      std::min(hard_negatives(positives, ratio, min_negatives, matches.count), static_cast<int64_t>(negatives.size()));
  select(negatives, count);
  std::fill_n(mask, matches.count, uint8_t(0));
  for (int64_t i = 0; i < count; ++i) mask[negatives[i].second] = 1;
}

}  // namespace

void sample_matches(const Matches& matches, int64_t size, int64_t max_positives, const Seed& seed, int64_t* indices,
                    int64_t* num_positive, int64_t* num_sampled, const Parallel& parallel) {
  parallel.share(matches.batch, kSampleNs * matches.count, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      sample_image(matches, b, size, max_positives, seed.get(), indices + b * size, num_positive + b, num_sampled + b);
  });
}

void mine_hard_negatives(const Scalars& loss, const Matches& matches, double ratio, int64_t min_negatives,
                         uint8_t* mask, const Parallel& parallel) {
  parallel.share(matches.batch, kMineNs * matches.count, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) mine_image(loss, matches, b, ratio, min_negatives, mask + b * matches.count);
  });
}

}  // namespace boxops::cpu
