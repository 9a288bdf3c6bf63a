// Rule 5 of the house: a ragged batch is one flat array and offsets[batch + 1].
#pragma once

#include <cstdint>

#include <boxops/portability.h>

namespace boxops {

// Item b owns rows [begin(b), end(b)) of `total`. Offsets on a device cannot be checked without waiting for it, so
// reading clamps them: nonsense gives nonsense, but never an access out of bounds. Null offsets: one item owns all.
struct Ragged {
  const int64_t* offsets;
  int64_t batch, total;

  BOXOPS_HD int64_t at(int64_t i) const {
    if (offsets == nullptr) return i == 0 ? 0 : total;
    const int64_t v = offsets[i];
    return v < 0 ? 0 : v > total ? total : v;
  }
  BOXOPS_HD int64_t begin(int64_t b) const { return at(b); }
  BOXOPS_HD int64_t end(int64_t b) const {
    const int64_t first = at(b), last = at(b + 1);
    return last < first ? first : last;
  }
  BOXOPS_HD int64_t count(int64_t b) const { return end(b) - begin(b); }
};

}  // namespace boxops
