// Which of many scores are large: the one pass over all of them, on the CPU.
#pragma once

#include <vector>

#include "common/sort.h"

namespace boxops::cpu {

// Appends to `found` the i in [begin, end) with score > threshold, or score >= threshold with `or_equal`, rising.
// S is the scores' compute type.
template <class S>
void select_above(const Scalars& scores, int64_t batch, int64_t begin, int64_t end, S threshold, bool or_equal,
                  std::vector<int32_t>& found);

// The k largest of the scores [begin, end) by falling score, ties by rising index, NaN last.
template <class S>
std::vector<int64_t> select_top(const Scalars& scores, int64_t batch, int64_t begin, int64_t end, int64_t k);

}  // namespace boxops::cpu
