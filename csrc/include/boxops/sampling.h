// Choosing the anchors that a loss looks at: at random, balanced, or the hardest.
//
// Matches are >= 0 for positives, -1 for negatives; everything else is ignored. Choosing is by rank in a key, ties to
// the lower index: a random number that is a function of (seed, image, anchor), or falling loss, NaN last. Equal input
// gives equal output on every backend. O(A) time; CUDA sorts, in a number of launches known beforehand, and never
// waits. Floor: matches (and losses) read once.
#pragma once

#include <cstddef>
#include <cstdint>

#include <boxops/parallel.h>
#include <boxops/types.h>

namespace boxops {

struct Matches {
  const int64_t* data;  // [batch, count]
  int64_t batch, count, batch_stride, stride;

  BOXOPS_HD int64_t at(int64_t b, int64_t i) const { return data[b * batch_stride + i * stride]; }
};

// One number, on the device of the matches, or, where `data` is null, here.
struct Seed {
  const int64_t* data;
  int64_t value;

  BOXOPS_HD uint64_t get() const { return static_cast<uint64_t>(data == nullptr ? value : *data); }
};

namespace cpu {

// Writes indices[batch, size]: at most max_positives positives, rising, then negatives, rising, then -1; and how many
// of the indices are positives, and how many are real.
BOXOPS_API void sample_matches(const Matches& matches, int64_t size, int64_t max_positives, const Seed& seed,
                               int64_t* indices, int64_t* num_positive, int64_t* num_sampled, const Parallel& parallel);

// Writes mask[batch, count]: 1 for the hard_negatives() negatives of largest loss, else 0.
BOXOPS_API void mine_hard_negatives(const Scalars& loss, const Matches& matches, double ratio, int64_t min_negatives,
                                    uint8_t* mask, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

BOXOPS_API size_t sample_matches_workspace(const Matches& matches, int64_t size);
BOXOPS_API size_t mine_hard_negatives_workspace(const Scalars& loss, const Matches& matches);

// Return a cudaError_t.
BOXOPS_API int sample_matches(const Matches& matches, int64_t size, int64_t max_positives, const Seed& seed,
                              int64_t* indices, int64_t* num_positive, int64_t* num_sampled, void* workspace,
                              void* stream);
BOXOPS_API int mine_hard_negatives(const Scalars& loss, const Matches& matches, double ratio, int64_t min_negatives,
                                   uint8_t* mask, void* workspace, void* stream);

}  // namespace cuda

}  // namespace boxops
