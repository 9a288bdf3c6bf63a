// The greedy pass of NMS over 64 boxes, by a warp.
#pragma once

#include "common/warp.cuh"

namespace boxops::cuda {
namespace {

using Word = unsigned long long;  // a bit for each box

// The `count` lowest bits, of any count.
__device__ Word lowest(int64_t count) { return count >= 64 ? ~Word(0) : count <= 0 ? 0 : (Word(1) << count) - 1; }

// What a warp's lanes say of their two boxes each, `lane` and `lane + 32`.
__device__ inline Word ballot_of_64(bool low, bool high) {
  const unsigned bits = __ballot_sync(kFullMask, low);
  return Word(__ballot_sync(kFullMask, high)) << 32 | bits;
}

// Which of 64 boxes stay. A lane holds two of them, `lane` and `lane + 32`, with the bits of those before them that
// they overlap; `out` are the bits of those that are out already. From all in, a box is in as long as it overlaps none
// that is, until nothing changes: after a round the first box is right for good, and those that hang on it after the
// next; few rounds do (Blelloch, Fineman, Shun, "Greedy sequential maximal independent set and matching are parallel on
// average", SPAA 2012), and there is no order of memory to wait for.
__device__ Word settle(const Word (&overlapped)[2], Word out) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool open0 = !(out >> lane & 1), open1 = !(out >> (lane + 32) & 1);
  Word in = ~out, before;
  do {
    before = in;
    in = ballot_of_64(open0 && !(overlapped[0] & before), open1 && !(overlapped[1] & before));
  } while (in != before);
  return in;
}

}  // namespace
}  // namespace boxops::cuda
